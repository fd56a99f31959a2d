"""Making vLLM's own environment from the lock files in envs/, apart from the pipeline's."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from inference_energy.acquire.cache import cache_folder
from inference_energy.errors import RunError

COMPLETE = ".complete"
Say = Callable[[str], None]


def ensure_environment(kind: str, lock_folder: Path, say: Say = print) -> Path:
    """The Python of the environment made from a folder of lock files, which is made now if it is not there.

    The folder holds `requirements.lock` (hashed) and, where PyTorch comes from elsewhere, `torch.lock` with the one
    line `torch==VERSION`. An environment is known by the content of the folder, and counts only once its last step is
    done, so a broken build is never used.

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
    """Install PyTorch's CPU build from the first place that has it.

    The local version `+cpu` is on no package index but PyTorch's own. So: what pip is configured with here (a
    find-links folder, a mirror); then PyTorch's CPU index, whose address uv knows; then the ordinary package of the
    same version, whose CUDA libraries are then idle weight (several GB).

    Raises:
        RunError: none of the three has it.
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
    for place, command in attempts:
        say(f"installing {requirement} from {place}")
        try:
            _run(command, place)
        except RunError as error:
            failures.append(f"{place}: {str(error).splitlines()[-1]}")
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
