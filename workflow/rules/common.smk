"""What all rules share: the checked configuration, the parameters of stages, and where files lie."""

import re
import sys
import time
from glob import glob
from pathlib import Path

from inference_energy.acquire.vllm_environment import gpu_count, installed_interpreter
from inference_energy.cli.experiment import check_names
from inference_energy.config.loader import layers_of_run, read_merged
from inference_energy.errors import InputError
from inference_energy.plan.tables import machine_name
from inference_energy.provenance.code_digest import digest, file_digest
from inference_energy.stages.params import StageParams
from inference_energy.stages.registry import STAGES
from inference_energy.stages.run_state import clear_after_kill, failures, note_run

STARTED_S = time.time()
SNAKEMAKE_FOLDER = Path(".snakemake")

MACHINE = machine_name()
try:
    # The files themselves and not `config`: Snakemake keeps the last of two equal keys, and merges what does not fit.
    SETTINGS = workflow.config_settings
    CONFIG = read_merged(
        layers_of_run(SETTINGS.configfiles, alone=SETTINGS.replace_workflow_config),
        SETTINGS.config,
        quiet=not workflow.is_main_process,
    )
    check_names(CONFIG)
    for name in CONFIG.machines:
        if name != MACHINE and not Path("results/raw", name).is_dir():
            raise InputError(
                f"machines: there are no results of {name!r} (this machine is {MACHINE!r}); "
                f"copy them to results/raw/{name}/"
            )
except InputError as error:
    print(f"inference-energy: {error}", file=sys.stderr)
    sys.exit(2)

if workflow.is_main_process and (what := clear_after_kill(SNAKEMAKE_FOLDER)):
    print(f"inference-energy: {what}", file=sys.stderr)

PARAMS = StageParams(
    CONFIG,
    MACHINE,
    lambda: gpu_count() > 0,
    lambda: installed_interpreter() is not None,
)

CALIBRATION = [CONFIG.analysis.calibration] if CONFIG.analysis.calibration else []
# A shipped calibration is named, one of the user's is a file.
ESTIMATE_CALIBRATION = [
    path for path in [CONFIG.estimate.calibration] if path and path.endswith(".json")
]

EXPERIMENT = f"results/{CONFIG.experiment}"

# Measuring rules take the whole machine and, through the profile's `resources: gpu=1`, exclude each other, so that
# nothing of the pipeline's own disturbs a measurement.
ALL_CORES = 1000


wildcard_constraints:
    machine=r"[A-Za-z0-9_-]+",
    server=r"[A-Za-z0-9_-]+",
    session=r"[A-Za-z0-9_-]+",


def raw(path):
    """Where a measured file lies."""
    return f"results/raw/{{machine}}/{path}"


def derived(path):
    """Where a computed file lies."""
    return f"results/derived/{{machine}}/{path}"


def logs(path):
    """Where a log lies."""
    return f"results/logs/{{machine}}/{path}"


def folder_of(path):
    """The folder that a file lies in."""
    return str(Path(path).parent)


def server_of(wildcards):
    """The server of a session."""
    return CONFIG.sessions[wildcards.session].server


def of_server(pattern):
    """An input function: the pattern with the session's machine and server."""
    return lambda wildcards: pattern.format(
        machine=wildcards.machine, server=server_of(wildcards)
    )


def of_sessions(pattern):
    """The pattern for each machine and session of the experiment."""
    return [
        pattern.format(
            machine=machine, session=session, server=CONFIG.sessions[session].server
        )
        for machine in PARAMS.machines()
        for session in CONFIG.run
    ]


def unique(paths):
    """The paths, each once, in order."""
    return list(dict.fromkeys(paths))


def sessions_of_server(pattern):
    """An input function: the pattern for each session of the experiment on one server."""
    return lambda wildcards: [
        pattern.format(machine=wildcards.machine, session=session)
        for session in CONFIG.run
        if CONFIG.sessions[session].server == wildcards.server
    ]


def spec(stage):
    """A params function: the part of the configuration that a stage reads, as one JSON text."""
    return lambda wildcards: PARAMS.for_stage(stage, dict(wildcards.items()))


def code(stage):
    """The digest of a stage's code."""
    return digest(*STAGES[stage].digest_entries)


def inputs(stage):
    """A params function: an option of the stage's command for each file among the rule's inputs that it reads."""
    return lambda wildcards, input: [
        word
        for read in STAGES[stage].inputs
        for path in as_list(input.get(read.file.name, []))
        for word in (f"--{read.file.name.replace('_', '-')}", path)
    ]


def as_list(value):
    """The paths of a named input, which may be a single one."""
    return [value] if isinstance(value, str) else list(value)
