"""What all rules share: the checked configuration, the specifications, and where files lie."""

import re
from glob import glob
import sys

from inference_energy.acquire.vllm.detect import gpu_count, installed_interpreter
from inference_energy.config.read import validate
from inference_energy.errors import InputError
from inference_energy.plan.machine import machine_name
from inference_energy.plan.specs import Specs, as_text
from inference_energy.provenance.codehash import digest

try:
    CONFIG = validate(config)
except InputError as error:
    print(f"inference-energy: {error}", file=sys.stderr)
    sys.exit(2)

MACHINE = machine_name()
SPECS = Specs(
    CONFIG,
    MACHINE,
    lambda: gpu_count() > 0,
    lambda: installed_interpreter() is not None,
)

RAW = "results/raw/{machine}"
SERVER = RAW + "/servers/{server}"
SESSION = RAW + "/sessions/{session}"
DERIVED = "results/derived/{machine}/{session}"
FITS = "results/derived/{machine}/fits"
LOGS = "results/logs/{machine}"
EXPERIMENT = f"results/{CONFIG.experiment}"

# Measuring rules take the whole machine and, through the profile's `resources: gpu=1`, exclude each other, so that
# nothing of the pipeline's own disturbs a measurement.
ALL_CORES = 1000


wildcard_constraints:
    machine=r"[A-Za-z0-9_-]+",
    server=r"[A-Za-z0-9_-]+",
    session=r"[A-Za-z0-9_-]+",


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
        for machine in SPECS.machines()
        for session in CONFIG.run
    ]


def unique(paths):
    """The paths, each once, in order."""
    return list(dict.fromkeys(paths))
