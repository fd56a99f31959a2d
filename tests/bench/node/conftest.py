"""A node in a folder, and Python processes that see it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_energy.bench.config import Node
from inference_energy.bench.live.cli_wrapper import bench_environment
from inference_energy.bench.live.node import VARIABLE, NodeFolder, make_node

Make = Callable[..., NodeFolder]
Run = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a node of these settings, in a folder of its own."""
    return lambda **settings: make_node(tmp_path / "node", Node.parse(settings))


@pytest.fixture
def here(make: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a node that this process sees."""

    def make_here(**settings: Any) -> NodeFolder:
        made = make(**settings)
        monkeypatch.setenv(VARIABLE, str(made.folder))
        return made

    return make_here


@pytest.fixture
def python() -> Run:
    """Run Python code on a node, as the wrapper would; returns what it prints."""

    def run(made: NodeFolder | None, code: str, **variables: str) -> str:
        environment = dict(os.environ) if made is None else bench_environment(made, os.environ)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
