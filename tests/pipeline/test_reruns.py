"""What reruns after a change, row by row as docs/explanation/reruns.md has it, on real Snakemake dry runs."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from tests.pipeline.conftest import MACHINE, Project
from tests.provenance.rewording import change_definitions, reword_package

from inference_energy.estimate.calibration import shipped_calibration

pytestmark = pytest.mark.pipeline

FROM_SUMMARY = {"summary", "report", "archive"}
FROM_METRICS = {"metrics", *FROM_SUMMARY}
FROM_ESTIMATE = {"estimate", *FROM_SUMMARY}
FROM_CARBON = {"carbon", "experiment", *FROM_METRICS}
FROM_INTEGRATE = {"integrate", "attribute", "fit", "power_trace", "carbon", *FROM_METRICS, *FROM_ESTIMATE}
FROM_SESSION = {"session", "launch", "warmup", "steady_load", *FROM_INTEGRATE}

EXTRA = {
    "run": ["short", "extra"],
    "sessions": {"extra": {"server": "stub", "windows": ["more"]}},
    "windows": {"more": {"workload": "short-chat", "arrival": {"process": "poisson", "rate_qps": 4}, "duration_s": 3}},
}


@pytest.fixture(scope="module")
def dry_runs(
    request: pytest.FixtureRequest, finished: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, "Future[set[str]]"]]:
    """What a dry run would run for each selected test with a `change` or a `module`, by the test's id.

    A dry run keeps one core busy for seconds, so there is one for each core, and each has a copy of the project.
    """

    parsing = Lock()  # Python 3.11 counts the depth of a syntax tree wrongly when two threads parse at once

    def plan(change: Mapping[str, Any] | None, module: str | None) -> set[str]:
        clone = finished.copy(tmp_path_factory.mktemp("changed") / "project")
        if module is not None:
            path = clone.folder / "src" / "inference_energy" / module
            if path.suffix == ".py":
                with parsing:
                    change_definitions(path)
            else:
                path.write_text(path.read_text() + "\n")
        planned = clone.would_run(change)
        shutil.rmtree(clone.folder)
        return planned

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {}
        for item in request.session.items:
            told = item.callspec.params if item.path == Path(__file__) and hasattr(item, "callspec") else {}
            if "change" in told or "module" in told:
                runs[item.nodeid] = pool.submit(plan, told.get("change"), told.get("module"))
        yield runs
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def planned(request: pytest.FixtureRequest, dry_runs: Mapping[str, "Future[set[str]]"]) -> set[str]:
    """The rules that would run after this test's change."""
    return dry_runs[request.node.nodeid].result()


def test_nothing_changed(finished: Project) -> None:
    assert finished.would_run() == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {
                "impact": {
                    "carbon": {"zone": "FR", "intensity_g_per_kwh": 44, "basis": "lifecycle", "source": "of 2024"}
                }
            },
            FROM_CARBON,
        ),
        ({"servers": {"stub": {"arguments": {"max-num-seqs": 4}}}}, FROM_SESSION | {"experiment"}),
        ({"analysis": {"trim_start_s": 0.7}}, {"steady_load", "experiment", *FROM_INTEGRATE}),
        ({"analysis": {"steadiness": {"max_power_trend": 0.2}}}, {"steady_load", "experiment", *FROM_INTEGRATE}),
        ({"analysis": {"counter_tolerance": 0.1}}, {"experiment", *FROM_INTEGRATE}),
        ({"analysis": {"attribution": "total_tokens"}}, {"attribute", "experiment", *FROM_METRICS}),
        ({"metrics": {"quality": {"floor": 0.5}}}, {"experiment", *FROM_METRICS}),
        ({"estimate": {"gpu": "H200"}}, {"experiment", *FROM_ESTIMATE}),
        ({"estimate": {"calibration": "h100-windows"}}, {"experiment", *FROM_ESTIMATE}),
        ({"idle": {"cold_s": 3}}, {"idle_baseline", "experiment", *FROM_SESSION}),
        ({"seed": 3}, {"prompts", "schedule", "experiment", *FROM_SESSION}),
    ],
    ids=[
        *("carbon zone", "server flags", "trimming", "steadiness", "tolerance", "attribution", "quality floor"),
        *("estimated gpu", "calibration of estimates", "idle duration", "seed"),
    ],
)
def test_a_change_of_the_configuration(planned: set[str], change: Mapping[str, Any], expected: set[str]) -> None:
    """A rule reruns when what it is told changes, and with it whatever is made from its output."""
    assert planned == expected


def test_a_load_level_added_measures_only_itself(finished: Project) -> None:
    planned = finished.would_run(EXTRA)
    assert "idle_baseline" not in planned
    assert {"session", "prompts", "schedule", "launch", "fit", "report"} <= planned
    listing = finished.snakemake("--dry-run", "--quiet", "rules", "--summary", change=EXTRA, check=False).stdout
    rerun = [line for line in listing.splitlines() if "update pending" in line]
    measured = [line.split()[0] for line in rerun if line.startswith(f"results/raw/{MACHINE}/sessions/")]
    assert measured
    assert all(path.startswith(f"results/raw/{MACHINE}/sessions/extra/") for path in measured)


def test_touched_sources_and_a_clone_elsewhere_rerun_nothing(finished: Project, tmp_path: Path) -> None:
    clone = finished.copy(tmp_path / "elsewhere")
    for path in clone.folder.rglob("*"):
        if path.suffix in (".py", ".smk", ".yaml", ".lock"):
            os.utime(path)
    assert clone.would_run() == set()


def test_another_machines_results_plan_no_measurement(finished: Project, tmp_path: Path) -> None:
    third = finished.copy(tmp_path / "third")
    raw = third.folder / "results" / "raw"
    shutil.move(raw / MACHINE, raw / "a-gpu-host")
    shutil.rmtree(third.folder / "results" / "derived")
    planned = third.would_run({"machines": ["a-gpu-host"]})
    assert {"integrate", "summary", "report"} <= planned
    assert planned.isdisjoint(
        {"environment", "server_environment", "model", "prompts", "schedule", "idle_baseline", "session"}
    )


def test_a_calibration_and_a_change_of_it_rerun_the_analysis_alone(finished: Project, tmp_path: Path) -> None:
    calibrated = finished.copy(tmp_path / "calibrated")
    path = calibrated.folder / "meters" / "rack.json"
    path.parent.mkdir()
    line = {"gain": 1.05, "offset_w": 1.0, "u_gain": 0.001, "u_offset_w": 0.2, "covariance_w": 0.0, "chi2_per_dof": 1.0}
    facts = {"grade": "metered", "date": "2026-11-20T10:00:00+00:00", "toolkit_version": "0.1.0", "phases": []}
    entry = {**line, **facts, "meter": {"name": "pdu"}, "channels": ["modelled cpu cpu"]}

    def write(gain: float) -> None:
        path.write_text(json.dumps({"version": 1, "calibrations": {"cpu": {**entry, "gain": gain}}}))

    write(1.05)
    change = {"analysis": {"calibration": "meters/rack.json"}}
    assert calibrated.would_run(change) == {"experiment", *FROM_INTEGRATE}
    before = json.loads((calibrated.folder / "results/short/summary.json").read_text())
    calibrated.snakemake(change=change)
    after = json.loads((calibrated.folder / "results/short/summary.json").read_text())
    for old, new in zip(before["cells"], after["cells"], strict=True):
        energies_j = [cell["figures"]["energy_total_j"]["value"] for cell in (old, new)]
        seconds = new["figures"]["duration_s"]["value"]
        assert energies_j[1] == pytest.approx(1.05 * energies_j[0] + 1.0 * seconds)
    assert calibrated.would_run(change) == set()
    with zipfile.ZipFile(calibrated.folder / "results/short/short.zip") as archive:
        assert archive.read("results/short/calibration.json") == path.read_bytes()
    write(1.06)
    assert calibrated.would_run(change) == FROM_INTEGRATE


def test_a_calibration_of_the_estimates_and_a_change_of_it_rerun_them_alone(finished: Project, tmp_path: Path) -> None:
    fitted = finished.copy(tmp_path / "fitted")
    path = fitted.folder / "fits" / "mine.json"
    path.parent.mkdir()
    record = shipped_calibration("h100-published").record

    def write(name: str) -> None:
        path.write_text(json.dumps({**record, "name": name}))

    write("mine")
    change = {"estimate": {"calibration": "fits/mine.json"}}
    assert fitted.would_run(change) == {"experiment", *FROM_ESTIMATE}
    fitted.snakemake(change=change)
    assert fitted.would_run(change) == set()
    summary = json.loads((fitted.folder / "results/short/summary.json").read_text())
    assert "no GPU" in summary["estimates"][0]["unknown"][0] + summary["estimates"][0]["unknown"][-1]
    with zipfile.ZipFile(fitted.folder / "results/short/short.zip") as archive:
        assert archive.read("results/short/estimate_calibration.json") == path.read_bytes()
    write("other")
    assert fitted.would_run(change) == FROM_ESTIMATE


@pytest.mark.parametrize(
    ("module", "reruns", "spares"),
    [
        ("analysis/steadiness.py", {"steady_load"}, {"session", "idle_baseline", "launch"}),
        ("analysis/fit/uncertainty.py", {"fit"}, {"session", "integrate", "carbon"}),
        ("metrics/sci.py", {"metrics", "summary"}, {"session", "integrate", "carbon", "fit"}),
        ("analysis/footprint.py", {"carbon"}, {"session", "integrate", "fit"}),
        ("estimate/estimators/tdp.py", {"estimate", "report"}, {"session", "integrate", "fit", "carbon"}),
        ("estimate/data/gpus.csv", {"estimate"}, {"session", "integrate", "fit", "carbon"}),
        ("present/page.py", {"report"}, {"session", "integrate", "summary"}),
        ("acquire/load/http/client.py", {"session"}, {"idle_baseline", "prompts"}),
        ("acquire/power/sampler.py", {"session", "idle_baseline"}, {"prompts", "model"}),
        ("acquire/session/live_stats.py", set(), {"session", "idle_baseline", "summary", "report"}),
        ("config/docgen.py", set(), {"session", "integrate", "summary", "report"}),
        ("cli/main.py", set(), {"session", "integrate", "summary", "report"}),
    ],
)
def test_an_edited_module_reruns_the_rules_that_hold_it(
    planned: set[str], module: str, reruns: set[str], spares: set[str]
) -> None:
    assert reruns <= planned
    assert planned.isdisjoint(spares)


def test_other_words_everywhere_rerun_nothing(finished: Project, tmp_path: Path) -> None:
    clone = finished.copy(tmp_path / "reworded")
    assert reword_package(clone.folder / "src" / "inference_energy") > 1000
    reword_package(clone.folder / "scripts")
    assert clone.would_run() == set()
