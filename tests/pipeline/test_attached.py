"""Real Snakemake runs that attach to a server somebody else started: measured to the end, and left running."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml
from tests.conftest import unused_port
from tests.pipeline.conftest import Project

from inference_energy.bench.config import Node
from inference_energy.bench.live.cli_wrapper import PowercapUpdater, bench_environment
from inference_energy.bench.live.node import NodeFolder, make_node, open_node
from inference_energy.validation.make_bench import LiveTruth

pytestmark = pytest.mark.pipeline

NODE = {"sensors": {"nvml": {"gain": 1.0, "offset_w": 0.0}}}
KEY = "sk-attached-0123456789abcdef"


def attached_config(endpoint: str) -> dict[str, Any]:
    """Two windows on a server that runs already, laid over config.yaml."""
    words = {
        "source": "synthetic",
        "form": "words",
        "length": {"distribution": "fixed", "tokens": 32},
    }
    poisson = {"process": "poisson", "rate_qps": 8}
    return {
        "experiment": "attached",
        "run": ["theirs"],
        "sessions": {
            "theirs": {
                "server": "running",
                "warmup": {"workload": "words", "arrival": poisson, "duration_s": 2},
                "windows": ["at-eight", "four-users"],
            }
        },
        "windows": {
            "at-eight": {"workload": "words", "arrival": poisson, "duration_s": 14},
            "four-users": {
                "workload": "words",
                "arrival": {"process": "closed", "concurrency": 4},
                "duration_s": 12,
            },
        },
        "workloads": {"words": {"prompts": words, "max_tokens": 48, "ignore_eos": True}},
        "servers": {"running": {"mode": "attach", "endpoint": endpoint}},
        "idle": {"cold_s": 2, "loaded_s": 8, "post_s": 2, "settle_s": 1.5},
        "client": {"request_timeout_s": 20, "drain_s": 5},
        "analysis": {"trim_start_s": 2},
    }


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeFolder]:
    made = make_node(tmp_path_factory.mktemp("machine") / "node", Node.parse(NODE))
    with PowercapUpdater(made):
        yield made


@pytest.fixture(scope="module")
def server(
    node: NodeFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The bench's server, started by hand as a user would start vLLM."""
    port = unused_port()
    words = ["--model", "llama-3.1-8b", "--port", str(port), "--max-num-seqs", "64", "--enable-prompt-tokens-details"]
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words],
            env=bench_environment(node, os.environ),
            stdout=file,
            stderr=file,
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{endpoint}/health", timeout=5):
                break
            time.sleep(0.1)
        yield process, endpoint
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def run(
    make_project: Callable[[], Project], node: NodeFolder, server: tuple["subprocess.Popen[bytes]", str]
) -> tuple[Project, "subprocess.CompletedProcess[str]"]:
    """A whole run, attached."""
    project = Project(make_project().folder, attached_config(server[1]))
    (project.folder / "overlay.yaml").write_text(yaml.safe_dump(project.config))
    environment = bench_environment(node, os.environ | {"PYTHONPATH": str(project.folder / "src")})
    environment["OPENAI_API_KEY"] = KEY
    command = [sys.executable, "-m", "snakemake", "--configfile", "overlay.yaml", "--quiet", "rules"]
    done = subprocess.run(
        command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return project, done


def summary_of(project: Project) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project.folder / "results/attached/summary.json").read_text())
    return content


def test_the_whole_chain_runs_and_the_server_is_left_alone(
    run: tuple[Project, "subprocess.CompletedProcess[str]"], server: tuple["subprocess.Popen[bytes]", str]
) -> None:
    project, done = run
    results = project.folder / "results/attached"
    assert {"summary.json", "report.html", "attached.zip"} <= {path.name for path in results.iterdir()}
    assert "J / output token" in done.stdout, done.stdout
    assert server[0].poll() is None


def test_energies_are_those_of_the_node(run: tuple[Project, Any], node: NodeFolder) -> None:
    truth = LiveTruth(open_node(node.folder))
    cells = summary_of(run[0])["cells"]
    assert len(cells) == 2
    for cell in cells:
        window, figure = cell["window"], cell["figures"]["energy_total_j"]
        true_j = truth.energy_j(window["start_ns"], window["end_ns"])
        assert figure["value"] == pytest.approx(true_j, rel=0.01), (cell["cell"], figure)


def test_what_cannot_be_known_of_it_is_withheld_with_its_reason(run: tuple[Project, Any]) -> None:
    for cell in summary_of(run[0])["cells"]:
        active = cell["figures"]["energy_active_j"]
        assert active["value"] is None
        assert active["reasons"], active
        assert cell["figures"]["energy_marginal_j"]["value"] is not None
    estimates = json.loads((run[0].folder / "results/derived/bench/theirs/estimates.json").read_text())
    assert estimates["windows"] == {}
    assert any("shape" in sentence for sentence in estimates["unknown"])


def test_its_archive_verifies_and_holds_no_key(run: tuple[Project, Any]) -> None:
    folder = run[0].folder
    command = [sys.executable, "-c", "from inference_energy.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "verify", "results/attached/attached.zip"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (folder / "results").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
