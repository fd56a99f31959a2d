"""environment.json: what the machine is, so that a figure can be told from one of another machine."""

from pathlib import Path
from typing import Any

from inference_energy.acquire.environment.cpu import cpu_facts, memory_facts
from inference_energy.acquire.environment.gpu import cuda_facts, gpu_facts
from inference_energy.acquire.environment.software import project_facts, python_facts
from inference_energy.acquire.environment.system import os_facts
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.contracts.tables import write_json


def capture(nvml: Any = None, root: Path = Path("/")) -> dict[str, Any]:
    """Everything there is to know, section by section, always in the same order.

    Args:
        nvml: the module to use in place of pynvml.
        root: where /etc, /proc and /sys lie.

    Returns:
        `simulated` (whether GPUs and power are), `gpus` (a list, or null), `cpu`, `memory`, `os`, `python`, `cuda`,
        `project`, and `missing`: for each null the reason, by its dotted key. It holds no user's name, no path and no
        secret.
    """
    gpus, missing = gpu_facts(nvml)
    environment: dict[str, Any] = {"simulated": simulated_node() is not None, "gpus": gpus}
    sections = {
        "cpu": cpu_facts(root),
        "memory": memory_facts(root),
        "os": os_facts(root),
        "python": python_facts(),
        "cuda": cuda_facts(nvml),
        "project": project_facts(),
    }
    for name, facts in sections.items():
        environment[name] = facts.values
        missing |= facts.missing
    environment["missing"] = dict(sorted(missing.items()))
    return environment


def write(path: Path, nvml: Any = None, root: Path = Path("/")) -> dict[str, Any]:
    """Capture and write as JSON; returns what was written."""
    environment = capture(nvml, root)
    write_json(path, environment)
    return environment
