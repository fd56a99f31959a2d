"""Bad input ends before any measurement, with one message that names the key, and leaves no partial artifact."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.conftest import MACHINE, Project

pytestmark = pytest.mark.pipeline

ATTACH = {
    "servers": {"gone": {"mode": "attach", "endpoint": "http://127.0.0.1:9", "model": "m"}},
    "sessions": {"short": {"server": "gone"}},
    "workloads": {name: {"prompts": {"form": "words"}} for name in ("short-chat", "short-prefill")},
}


@pytest.fixture(scope="module")
def project(make_project: Callable[[], Project]) -> Project:
    return make_project()


def measured(project: Project) -> list[Path]:
    """Files of measuring rules, whole or partial."""
    raw = project.folder / "results" / "raw" / MACHINE
    return [
        path
        for kind in ("idle", "sessions")
        for path in (raw / kind).rglob("*.parquet*")
        if "prompts" not in path.name and "schedule" not in path.name
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"idle": {"cold": 20}}, "idle.cold: unknown key"),
        ({"idle": {"cold_s": "20s"}}, "idle.cold_s"),
        ({"run": ["nothing"]}, "run: 'nothing'"),
        ({"metrics": {"pareto": [["tpot_p50_s", "nonsense"]]}}, "metrics.pareto: nonsense"),
        ({"analysis": {"calibration": "none.json"}}, "analysis.calibration: none.json: cannot be read"),
        ({"windows": {"short-low": {"duration_s": 0.3}}}, "windows.short-low.duration_s"),
    ],
)
def test_a_wrong_configuration_ends_with_2_before_any_rule(
    project: Project, change: Mapping[str, Any], message: str
) -> None:
    done = project.snakemake(change=change, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.folder / "results").exists()


def test_a_key_written_twice_ends_a_run_with_its_lines_though_snakemake_reads_the_file(project: Project) -> None:
    (project.folder / "twice.yaml").write_text("windows:\n  short-low: {duration_s: 3}\n  short-low: {duration_s: 4}\n")
    done = project.snakemake("twice.yaml", "--dry-run", check=False)  # after --configfile overlay.yaml
    assert done.returncode == 2
    assert "twice.yaml:3: the key `windows.short-low` is there twice, in line 2 and in line 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ATTACH, "servers.gone.endpoint"),
        ({"models": {"tiny": {"source": "local", "path": "no/such/folder"}}}, "models.tiny.path"),
        ({"power": {"modelled": {"tdp_w": None}}}, "power"),
        (
            {"servers": {"stub": {"environment": "interpreter", "interpreter": "/no/such/python"}}},
            "servers.stub.interpreter",
        ),
    ],
    ids=["endpoint", "model", "power source", "interpreter"],
)
def test_what_this_machine_lacks_ends_before_any_measurement(
    project: Project, change: Mapping[str, Any], message: str
) -> None:
    config = {**project.config, "models": {}} if "models" in change else project.config
    done = Project(project.folder, config).snakemake(change=change, check=False)
    assert done.returncode == 1
    assert message in done.stderr, done.stderr[-5000:]
    assert measured(project) == []
