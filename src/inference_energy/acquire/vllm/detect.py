"""Which vLLM is on this machine already, and whether there is a GPU for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

VARIABLE = "INFERENCE_ENERGY_VLLM_PYTHON"
"""Names a Python that has vLLM, for a machine where it is not on the path."""


@cache
def gpu_count() -> int:
    """NVIDIA GPUs of this machine; 0 where the driver's library is missing or does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


@cache
def installed_interpreter() -> str | None:
    """The first Python that can import vLLM: the variable's, that of the `vllm` command, `python3` on the path."""
    return next((python for python in _candidates() if has_vllm(python)), None)


def has_vllm(python: str) -> bool:
    """Whether a Python finds vLLM, without importing it (that takes many seconds)."""
    question = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _candidates() -> Iterator[str]:
    if named := os.environ.get(VARIABLE):
        yield named
    if command := shutil.which("vllm"):
        first_line = Path(command).read_bytes().split(b"\n", 1)[0].decode(errors="replace").strip()
        if first_line.startswith("#!"):
            yield first_line.removeprefix("#!").split()[0]
    own = Path(sys.executable)
    for name in ("python3", "python"):
        found = shutil.which(name)
        if found and Path(found) != own:
            yield found
    yield str(own)
