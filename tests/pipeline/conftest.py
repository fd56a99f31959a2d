"""Real Snakemake runs on a copy of the project, with the stub server in vLLM's place and seconds for minutes."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.conftest import unused_port

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "workflow", "scripts", "envs", "profiles", "src", "pyproject.toml", "requirements")
MACHINE = "test-machine"
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--configfile", "overlay.yaml")


def short_config(port: int) -> dict[str, Any]:
    """The default experiment with a stub server: laid over config.yaml."""
    fixed = {"distribution": "fixed", "tokens": 12}
    chat = {"prompts": {"source": "synthetic", "length": fixed}, "max_tokens": 8, "ignore_eos": True}
    tiny = {"vocab_size": 128, "model_type": "llama"}
    return {
        "experiment": "short",
        "run": ["short"],
        "sessions": {
            "short": {
                "server": "stub",
                "warmup": {
                    "workload": "short-chat",
                    "arrival": {"process": "constant", "rate_qps": 5},
                    "duration_s": 1,
                },
                "windows": ["short-low", "short-high", "short-prefill"],
            }
        },
        "windows": {
            "short-low": {
                "workload": "short-chat",
                "arrival": {"process": "poisson", "rate_qps": 8},
                "duration_s": 4,
            },
            "short-high": {
                "workload": "short-chat",
                "arrival": {"process": "closed", "concurrency": 6},
                "duration_s": 4,
            },
            "short-prefill": {
                "kind": "prefill",
                "workload": "short-prefill",
                "arrival": {"process": "closed", "concurrency": 2},
                "duration_s": 3,
            },
        },
        "workloads": {"short-chat": chat, "short-prefill": chat | {"max_tokens": 1}},
        "servers": {
            "stub": {
                "mode": "launch",
                "model": "tiny",
                "environment": "container",
                "container": ["env", f"PYTHONPATH={ROOT / 'tests' / 'fake_vllm'}", sys.executable],
                "port": port,
                "arguments": {"max-num-seqs": 8},
                "variables": {"STUB_TOKENS_PER_S": "40"},
            }
        },
        "models": {"tiny": {"source": "dummy", "architecture": tiny}},
        "idle": {"cold_s": 2, "loaded_s": 1, "post_s": 1, "settle_s": 0.2},
        "client": {"request_timeout_s": 20, "drain_s": 5},
        "metrics_interval_s": 0.2,
        "power": {"sources": ["modelled"]},
        "analysis": {"trim_start_s": 0.5},
    }


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings, the second laid over the first."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


@dataclass(frozen=True)
class Project:
    """A copy of the project that runs with its own source."""

    folder: Path
    config: dict[str, Any]

    def snakemake(
        self, *words: str, change: Mapping[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with the short configuration, changed or not."""
        self._write_overlay(change or {})
        done = subprocess.run(
            [*SNAKEMAKE, *words],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake failed\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
        return done

    @contextmanager
    def started(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Snakemake in the background, ended with the block."""
        self._write_overlay({})
        process = subprocess.Popen(
            [*SNAKEMAKE, *words], cwd=self.folder, env=self._environment(), stderr=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def _write_overlay(self, change: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(merged(self.config, change), sort_keys=False)
        (self.folder / "overlay.yaml").write_text(text)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder / "src"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "INFERENCE_ENERGY_MACHINE": MACHINE,
            "INFERENCE_ENERGY_LOCK_DIRECTORY": str(self.folder),
        }

    def would_run(self, change: Mapping[str, Any] | None = None) -> set[str]:
        """The rules that a dry run would execute, without the target rule."""
        done = self.snakemake("--dry-run", change=change)
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return set()
        table = text.rpartition("Job stats:")[2].partition("total")[0]
        return set(re.findall(r"^(\w+) +\d+$", table, re.MULTILINE)) - {"all"}

    def copy(self, target: Path) -> "Project":
        """Another place with the same files, results and Snakemake's records; times are new, as after a clone."""
        shutil.copytree(self.folder, target, copy_function=shutil.copyfile)
        return Project(target, self.config)


def processes_of(project: Project) -> list[int]:
    """Processes that work in a project's folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(project.folder):
                found.append(process.pid)
    return found


def wait_for(condition: Callable[[], object], what: str, limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Makes a copy of the project without results."""

    def make() -> Project:
        folder = tmp_path_factory.mktemp("project")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        return Project(folder, short_config(unused_port()))

    return make


@pytest.fixture(scope="session")
def finished(make_project: Callable[[], Project]) -> Project:
    """A project whose short experiment has run to its end."""
    project = make_project()
    project.snakemake()
    return project
