"""A stub server's spec, in a folder of its own with locks of its own, so that tests do not meet each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import unused_port

from inference_energy.acquire.server.locks import DIRECTORY_VARIABLE
from inference_energy.acquire.server.settings import LaunchSpec

STUB = Path(__file__).parents[1] / "stub_server.py"


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def stub_spec(tmp_path: Path, model: Path, free_port: int) -> Callable[..., LaunchSpec]:
    """Make a spec of the stub server; keywords replace fields."""

    def make(**changes: object) -> LaunchSpec:
        fields = {
            "model": str(model),
            "served_model_name": "stub",
            "port": free_port,
            "log_path": tmp_path / "server.log",
            "status_path": tmp_path / "server.json",
            "interpreter": Path(sys.executable),
            "script": STUB,
            "ready_timeout_s": 60.0,
            "grace_s": 5.0,
        }
        return LaunchSpec(**{**fields, **changes})

    return make
