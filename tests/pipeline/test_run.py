"""A whole run: its figures agree with pandas alone, its archive verifies, its report and Snakemake's are made."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.pipeline.conftest import MACHINE, Project, processes_of, wait_for

pytestmark = pytest.mark.pipeline


def figures(project: Project, cell: str) -> dict[str, dict[str, object]]:
    summary = json.loads((project.folder / "results/short/summary.json").read_text())
    return next(entry for entry in summary["cells"] if entry["cell"] == cell)["figures"]


def integral_j(power: pd.DataFrame, start_ns: int, end_ns: int) -> float:
    """Energy of a cumulative counter between two times, by linear interpolation."""
    counter = power.dropna(subset=["energy_counter_j"])
    at_edges = np.interp([start_ns, end_ns], counter["timestamp_ns"], counter["energy_counter_j"])
    return float(at_edges[1] - at_edges[0])


def tokens_inside(requests: pd.DataFrame, start_ns: int, end_ns: int) -> int:
    count = 0
    for row in requests.dropna(subset=["first_token_ns", "completion_tokens"]).itertuples():
        times = np.linspace(row.first_token_ns, row.last_token_ns, int(row.completion_tokens))
        count += int(((times >= start_ns) & (times < end_ns)).sum())
    return count


@pytest.mark.parametrize("window", ["short-low", "short-high"])
def test_figures_agree_with_pandas_alone(finished: Project, window: str) -> None:
    raw = finished.folder / "results/raw" / MACHINE / "sessions/short"
    phases = pd.read_parquet(raw / "phases.parquet")
    span = phases[(phases["phase"] == "window") & (phases["cell"] == window)].iloc[0]
    start_ns, end_ns = int(span["start_ns"] + 0.5e9), int(span["end_ns"])
    power = pd.read_parquet(raw / "power.parquet").dropna(subset=["energy_counter_j"])
    # The window goes from the first to the last reading in it at which the counter had moved.
    moved_ns = power.loc[power["energy_counter_j"].diff() > 0, "timestamp_ns"]
    inside_ns = moved_ns[moved_ns.between(start_ns, end_ns)]
    start_ns, end_ns = int(inside_ns.min()), int(inside_ns.max())
    duration_s = (end_ns - start_ns) / 1e9
    energy_j = integral_j(power, start_ns, end_ns)
    idle_facts = json.loads((finished.folder / f"results/raw/{MACHINE}/idle/stub/idle.json").read_text())
    idle_power = pd.read_parquet(finished.folder / f"results/raw/{MACHINE}/idle/stub/power.parquet")
    cold_w = integral_j(idle_power, idle_facts["start_ns"], idle_facts["end_ns"]) / idle_facts["duration_s"]
    tokens = tokens_inside(pd.read_parquet(raw / "requests.parquet"), start_ns, end_ns)

    found = figures(finished, f"short.{window}")
    assert found["energy_total_j"]["value"] == pytest.approx(energy_j, rel=1e-9)
    assert found["energy_active_j"]["value"] == pytest.approx(energy_j - cold_w * duration_s, rel=1e-6)
    assert found["power_mean_w"]["value"] == pytest.approx(energy_j / duration_s, rel=1e-9)
    assert found["output_tokens"]["value"] == pytest.approx(tokens, abs=1)
    assert found["energy_total_per_output_token_j"]["value"] == pytest.approx(energy_j / tokens, rel=0.02)
    config_g_per_kwh = 473
    assert found["carbon_total_g"]["value"] == pytest.approx(energy_j / 3.6e6 * config_g_per_kwh, rel=1e-9)


def test_receipts_sum_to_the_windows(finished: Project) -> None:
    receipts = pd.read_parquet(finished.folder / f"results/derived/{MACHINE}/short/receipts.parquet")
    for window in ("short-low", "short-high", "short-prefill"):
        charged = receipts[receipts["cell"].isin([window, f"short.{window}"])]["energy_j"].sum()
        assert charged == pytest.approx(figures(finished, f"short.{window}")["energy_total_j"]["value"], rel=1e-9)


def test_every_energy_says_that_it_is_modelled(finished: Project) -> None:
    for name, figure in figures(finished, "short.short-low").items():
        if figure["unit"].startswith(("J", "W", "kWh", "gCO2e")):
            assert figure["grade"] == "modelled", name
            assert "modelled" in figure["boundary"], name


def test_the_report_stands_alone(finished: Project) -> None:
    text = (finished.folder / "results/short/report.html").read_text()
    assert "modelled" in text
    assert 'src="http' not in text


def test_the_archive_verifies_and_a_changed_one_does_not(finished: Project, tmp_path: Path) -> None:
    archive = finished.folder / "results/short/short.zip"

    def verify(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from inference_energy.cli.main import main; main()", "verify", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert verify(archive).returncode == 0
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    spoiled = tmp_path / "spoiled.zip"
    spoiled.write_bytes(content)
    assert verify(spoiled).returncode != 0


def test_snakemakes_own_report(finished: Project) -> None:
    finished.snakemake("--report", "snakemake_report.html")
    text = (finished.folder / "snakemake_report.html").read_text()
    assert "report.html" in text
    assert "power_trace.html" in text


def test_the_last_lines_sum_it_up(finished: Project) -> None:
    command = [sys.executable, "-c", "from inference_energy.cli.main import main; main()", "show"]
    shown = subprocess.run(
        [*command, str(finished.folder / "results/short")], capture_output=True, text=True, check=True
    )
    lines = shown.stdout.strip().splitlines()
    assert len(lines) == 5
    assert "modelled" in shown.stdout
    assert "report.html" in lines[-1]


def test_a_run_of_a_single_file_ends_without_a_summary(make_project: Callable[[], Project]) -> None:
    project = make_project()
    done = project.snakemake("--", f"results/raw/{MACHINE}/environment.json")
    assert (project.folder / f"results/raw/{MACHINE}/environment.json").is_file()
    assert "inference-energy: " not in done.stdout + done.stderr


def test_after_a_kill_the_next_run_says_so_and_goes_on(make_project: Callable[[], Project]) -> None:
    project = make_project()
    session = f"results/raw/{MACHINE}/sessions/short/session.json"
    log = project.folder / f"results/logs/{MACHINE}/sessions/short/session.log"
    with project.started("--", session) as running:
        wait_for(lambda: log.is_file() and "window short-low" in log.read_text(), "the first window", 180)
        running.kill()
        running.wait()
    wait_for(lambda: not processes_of(project), "the processes of the killed run to end")
    power = project.folder / f"results/raw/{MACHINE}/idle/stub/power.parquet"
    before = power.stat().st_mtime_ns
    partial = log.parent / "partial" / "requests.parquet"
    assert partial.is_file(), log.read_text()
    done = project.snakemake("--", session)
    assert "did not end: it was killed" in done.stderr
    assert "session.json" in done.stderr
    assert power.stat().st_mtime_ns == before, "what was finished is kept"
    assert (log.parent / "partial.earlier" / "requests.parquet").is_file()


def test_a_failed_rule_ends_with_its_message_and_the_path_of_its_log(make_project: Callable[[], Project]) -> None:
    project = make_project()
    done = project.snakemake(
        "--quiet", "rules", change={"servers": {"stub": {"container": ["/bin/false"]}}}, check=False
    )
    assert done.returncode == 1
    end = done.stderr.rpartition("Exiting because a job execution failed")[2]
    assert f"log: results/logs/{MACHINE}" in end, done.stderr
    assert "inference-energy: " in end
    assert "Traceback" not in done.stderr
