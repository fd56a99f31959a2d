"""Synthetic sessions are built by the tests of the analysis; results are built once and copied."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
sys.path.insert(0, str(Path(__file__).parent))

import archived

from inference_energy.plan.stage_configs import ExperimentSettings
from inference_energy.provenance import verify as verify_module
from inference_energy.stages import registry
from inference_energy.stages.chain import Chain


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with results; not to be changed."""
    return archived.build_project(tmp_path_factory.mktemp("master"))


@pytest.fixture(scope="session")
def master_zip(master: Path) -> Path:
    """An archive of it; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        _set_variables(patch)
        return archived.pack(master, master / "master.zip")


@pytest.fixture(scope="session")
def master_chain(master: Path) -> Chain:
    """Its results, computed."""
    plan = json.loads((master / archived.PLAN).read_text())["plan"]
    chain = Chain(master / "results" / "raw", ExperimentSettings.model_validate(plan))
    chain.result(registry.SUMMARY)
    return chain


@pytest.fixture
def computed_once(master_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is checked beside the figures: neither these nor the report are made again."""
    monkeypatch.setattr(verify_module, "report_difference", lambda *_: None)
    monkeypatch.setattr(verify_module, "Chain", lambda *_: master_chain)


@pytest.fixture
def project(master: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(master, tmp_path / "project", ignore=shutil.ignore_patterns("*.zip")))


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_variables(monkeypatch)


def _set_variables(patch: pytest.MonkeyPatch) -> None:
    """A fixed time, and none of the secrets of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().endswith(("_TOKEN", "_API_KEY", "_PASSWORD", "_SECRET")):
            patch.delenv(name)
    patch.setenv("SOURCE_DATE_EPOCH", "1780000000")
