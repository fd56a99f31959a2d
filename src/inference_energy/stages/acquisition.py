"""The functions of the stages that measure: they read their inputs, and call what does the work.

That is imported inside, since each stage needs little of it, and what a session holds in memory disturbs it.
"""

import sys
from pathlib import Path
from typing import Any

from inference_energy.contracts.io import read_json
from inference_energy.plan.stage_configs import (
    IdleBaselineConfig,
    ModelStageConfig,
    PlanConfig,
    ServerEnvironmentConfig,
    SessionConfig,
)

Json = dict[str, Any]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environment(*, output: Path) -> None:
    """Write environment.json."""
    from inference_energy.acquire.machine_environment import write_environment

    write_environment(output)


def server_environment(*, config: ServerEnvironmentConfig) -> Json:
    """Return server_environment.json."""
    from inference_energy.acquire.vllm_environment import prepare_vllm

    return prepare_vllm(config.model_dump(), Path("envs"), _say)


def model(*, server_environment: Path, config: ModelStageConfig) -> Json:
    """Return model.json."""
    from inference_energy.acquire.model_files import prepare_model

    python = read_json(server_environment)["command"] or []
    return prepare_model(config.as_dict(), python, _say)


def prompts(*, model: Path, config: PlanConfig, output: Path) -> None:
    """Write prompts.parquet."""
    from inference_energy.contracts.schedule import PROMPTS
    from inference_energy.plan.cells import plan_files
    from inference_energy.plan.schedule import prompt_tables
    from inference_energy.plan.tables import digests, write_plan

    tables = prompt_tables(config.cells, config.seed, read_json(model)["vocabulary"])
    write_plan(output, tables, PROMPTS, digests(plan_files(config.cells)))


def schedule(*, prompts: Path, config: PlanConfig, output: Path) -> None:
    """Write schedule.parquet; notes on it go to standard error."""
    from inference_energy.contracts.schedule import SCHEDULE
    from inference_energy.plan.cells import plan_files
    from inference_energy.plan.schedule import make_schedule, schedule_notes, session_requests
    from inference_energy.plan.tables import digests, read_prompts, write_plan

    requests = session_requests(config.cells, config.seed)
    for note in schedule_notes(requests):
        _say(str(note))
    write_plan(output, [make_schedule(requests, read_prompts(prompts))], SCHEDULE, digests(plan_files(config.cells)))


def idle_baseline(
    *, server_environment: Path, model: Path, config: IdleBaselineConfig, power: Path, facts: Path, logs: Path
) -> None:
    """Measure the idle machine: power.parquet and idle.json."""
    from inference_energy.acquire.session.idle import measure_idle
    from inference_energy.acquire.session.settings import IdleSpec

    spec = config.model_dump()
    spec["client"] = spec["client"] or {}
    measure_idle(IdleSpec.from_dict(spec), read_json(server_environment), read_json(model), power, facts, logs)


def session(
    *,
    server_environment: Path,
    model: Path,
    prompts: Path,
    schedule: Path,
    config: SessionConfig,
    output: Path,
    logs: Path,
) -> None:
    """Measure a session: its raw files."""
    from inference_energy.acquire.session.run import SessionFiles, run_session
    from inference_energy.acquire.session.settings import SessionSpec

    files = SessionFiles(server_environment, model, prompts, schedule, output, logs)
    run_session(SessionSpec.from_dict(config.model_dump()), files)
