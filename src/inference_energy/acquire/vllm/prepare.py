"""The rule `server_environment`: find or make the interpreter that runs vLLM, and describe it."""

from pathlib import Path
from typing import Any

from inference_energy.acquire.vllm.build import Say, ensure_environment
from inference_energy.acquire.vllm.describe import describe
from inference_energy.acquire.vllm.detect import VARIABLE, gpu_count, has_vllm, installed_interpreter
from inference_energy.errors import InputError


def interpreter_command(spec: dict[str, Any], envs: Path, say: Say = print) -> list[str]:
    """The words that start the interpreter which has vLLM.

    Args:
        spec: `environment` (installed, cpu, cuda, interpreter or container), and the key it needs.
        envs: the folder with one folder of lock files an environment.
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
        found = installed_interpreter()
        if found is None:
            raise InputError(
                f"servers.{server}.environment: no vLLM is installed here; name a Python that has it with "
                f"servers.{server}.interpreter or {VARIABLE}, or write environment: cuda"
            )
        return [found]
    return [str(ensure_environment(kind, envs / kind, say))]


def prepare(spec: dict[str, Any], envs: Path, say: Say = print) -> dict[str, Any]:
    """What the rule writes: the kind, the interpreter, versions and packages; for an attached server, why not.

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
            f"Python that has vLLM (servers.{spec['server']}.interpreter or {VARIABLE}), or write environment: cuda"
        )
        say(f"note: {note}")
    command = interpreter_command(spec, envs, say)
    return {"kind": spec["environment"], "command": command, "note": note, **describe(command)}
