"""Real Snakemake runs on a virtual GPU: the pipeline must find the truth that the node kept."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.pipeline.conftest import Project

from inference_energy.bench.config import Node
from inference_energy.bench.live.cli_wrapper import SHIMS
from inference_energy.bench.live.node import open_node
from inference_energy.config.loader import read_merged
from inference_energy.contracts import requests
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.validation.experiment import simulate_experiment
from inference_energy.validation.make_bench import LiveTruth, compare_live

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from inference_energy.cli.main import main; main()"]
NODE = {"sensors": {"nvml": {"gain": 1.0, "offset_w": 0.0}, "rapl": {"present": True}}}
CHAT = {
    "prompts": {"source": "synthetic", "length": {"distribution": "normal", "mean": 200, "std": 50}},
    "max_tokens": 64,
    "ignore_eos": True,
}
ANSWERS = {
    "prompts": {"source": "synthetic", "length": {"distribution": "fixed", "tokens": 16}},
    "max_tokens": 128,
    "ignore_eos": True,
}


def config(port: int) -> dict[str, Any]:
    """The bench's own experiment with less of everything, laid over config.yaml."""
    full = yaml.safe_load((ROOT / "config" / "bench.yaml").read_text())
    poisson = {"process": "poisson", "rate_qps": 10}
    return full | {
        "sessions": {
            "bench": {
                "server": "bench",
                "warmup": {"workload": "bench-chat", "arrival": poisson, "duration_s": 2},
                "windows": ["bench-chat", "bench-decode"],
            }
        },
        "windows": {
            "bench-chat": {"kind": "decode", "workload": "bench-chat", "arrival": poisson, "duration_s": 14},
            "bench-decode": {
                "kind": "decode",
                "workload": "bench-decode",
                "arrival": {"process": "closed", "concurrency": 8, "pool": 16},
                "duration_s": 14,
            },
        },
        "workloads": {"bench-chat": CHAT, "bench-decode": ANSWERS},
        "servers": {"bench": full["servers"]["bench"] | {"port": port}},
        # NVML shows the mean of the last second, so that much must pass before an idle phase begins.
        # A counter that moves every 0.1 s is known to 1 % only over ten seconds, so windows are longer than that.
        "idle": {"cold_s": 10, "loaded_s": 10, "post_s": 10, "settle_s": 1.5},
        "client": {"request_timeout_s": 20, "drain_s": 5},
        "analysis": {"trim_start_s": 2},
    }


def run_on_node(project: Project, name: str, node: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    """Run the project's experiment on a virtual node whose folder is `name`."""
    (project.folder / "node.json").write_text(json.dumps(node))
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(project.config))
    words = [*COMMAND, "bench", "run", "--node", "node.json"]
    words += ["--folder", name, "--", sys.executable, "-m", "snakemake", "--configfile", "overlay.yaml"]
    environment = os.environ | {"PYTHONPATH": str(project.folder / "src")}
    environment.pop("INFERENCE_ENERGY_MACHINE", None)
    return subprocess.run(
        words, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def project(make_project: Callable[[], Project]) -> Project:
    """A finished run."""
    made = make_project()
    made = Project(made.folder, config(made.config["servers"]["stub"]["port"]))
    done = run_on_node(made, "node", NODE)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return made


def test_every_figure_is_within_one_percent_of_the_truth(project: Project) -> None:
    rows = compare_live(
        open_node(project.folder / "node"),
        project.folder / "results/raw",
        project.folder / "results/bench/summary.json",
    )
    assert len(rows) == 3 + 2 * 6
    for where, row in rows:
        assert row.measured is not None, (where, row)
        assert row.error == pytest.approx(0, abs=0.01), (where, row)


def test_all_that_is_simulated_says_so(project: Project) -> None:
    summary = json.loads((project.folder / "results/bench/summary.json").read_text())
    for cell in summary["cells"]:
        for name, figure in cell["figures"].items():
            if figure["grade"] not in ("counted", "configured"):
                assert figure["grade"] == "simulated", name
    assert any("simulated" in note for note in summary["notes"])
    session = project.folder / "results/raw/bench/sessions/bench"
    assert {source["grade"] for source in read_metadata(session / "power.parquet")["source"]} == {"simulated"}
    assert json.loads((session / "environment.json").read_text())["simulated"] is True
    page = (project.folder / "results/bench/report.html").read_text()
    assert "simulated" in page


def test_the_archive_of_a_simulated_run_can_be_checked(project: Project) -> None:
    environment = os.environ | {"PYTHONPATH": str(project.folder / "src")}
    done = subprocess.run(
        [*COMMAND, "verify", "results/bench/bench.zip"],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_true_energies_of_the_requests_add_up_to_that_of_the_steps(project: Project) -> None:
    (truth,) = (project.folder / "node/truth").iterdir()
    server = json.loads((truth / "server.json").read_text())
    parts_j = server["requests_energy_j"] + server["rest_energy_j"]
    assert parts_j == pytest.approx(server["total_energy_j"], rel=1e-9)


def test_offline_it_is_the_same_experiment(project: Project, tmp_path: Path) -> None:
    """The same seed gives the same tokens, and the same energy within 1 %."""
    both = read_merged([project.folder / "config.yaml", project.folder / "overlay.yaml"])
    list(simulate_experiment(both, Node.parse(NODE), tmp_path))
    place = Path("bench/sessions/bench/requests.parquet")
    live, offline = (read_table(root / place, requests.SCHEMA) for root in (project.folder / "results/raw", tmp_path))
    open_loop = [frame[frame["cell"] == "bench-chat"].sort_values("request_id") for frame in (live, offline)]
    for column in ("prompt_tokens", "completion_tokens", "cached_tokens", "finish_reason", "status"):
        assert open_loop[0][column].tolist() == open_loop[1][column].tolist(), column
    # A closed loop sends when the last answer is there, so its number of requests depends on the client's delays.
    counts = [int((frame["cell"] == "bench-decode").sum()) for frame in (live, offline)]
    assert counts[0] == pytest.approx(counts[1], abs=8)
    truth = LiveTruth(open_node(project.folder / "node"))
    simulated = json.loads((tmp_path / "bench/sessions/bench/session.json").read_text())
    assert simulated["simulated"]["gpu"] == "h100"
    found = _energies_offline(tmp_path, both)
    summary = json.loads((project.folder / "results/bench/summary.json").read_text())
    for cell in summary["cells"]:
        window = cell["window"]
        live_j = truth.energy_j(window["start_ns"], window["end_ns"])
        assert found[window["name"]] == pytest.approx(live_j, rel=0.01), window["name"]


def _energies_offline(raw_root: Path, configuration: Any) -> dict[str, float]:
    from inference_energy.stages.chain import RawSession, session_parts

    files = RawSession.below(raw_root, "bench", "bench", "bench")
    parts = session_parts(files, configuration.analysis, configuration.impact)
    figures = {name: window.figures["energy_total_j"] for name, window in parts.energy.windows.items()}
    return {name: figure.value for name, figure in figures.items() if figure.value is not None}


def test_a_crash_of_the_simulated_server_ends_the_run_in_order(make_project: Callable[[], Project]) -> None:
    made = make_project()
    made = Project(made.folder, config(made.config["servers"]["stub"]["port"]))
    done = run_on_node(made, "node", NODE | {"faults": {"server": {"crash_at_request": 30}}})
    assert done.returncode != 0
    log = (made.folder / "results/logs/bench/sessions/bench/session.log").read_text()
    assert "server" in log and ("ended" in log or "died" in log), log
    assert not (made.folder / "results/raw/bench/sessions/bench/power.parquet").exists()
    assert (made.folder / "results/logs/bench/sessions/bench/power.arrows").stat().st_size > 0
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(made.folder) in " ".join(p.info["cmdline"] or [])]
    assert left == []


def test_without_a_node_the_stand_ins_do_nothing(project: Project) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SHIMS), str(project.folder / "src")])}
    environment.pop("INFERENCE_ENERGY_SIMULATED", None)
    code = "import pynvml\ntry:\n pynvml.nvmlInit()\nexcept pynvml.NVMLError as error:\n print(error)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "not found" in done.stdout.lower()
