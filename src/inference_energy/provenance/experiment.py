"""experiment.json: the plan of an experiment, which names what belongs to it and is what a summary is computed from."""

import re
from dataclasses import dataclass
from typing import Any

from inference_energy.errors import InputError

NAME = "experiment.json"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEYS = ("experiment", "analysis", "impact", "metrics", "sessions")


@dataclass(frozen=True)
class PlannedSession:
    """A session of an experiment, by names."""

    machine: str
    session: str
    server: str


def plan_of(content: Any, where: str) -> dict[str, Any]:
    """The `plan` in the content of experiment.json.

    Args:
        content: the JSON.
        where: the file's name for messages.

    Raises:
        InputError: it lacks something, or a name is none: names become paths.
    """
    plan = content.get("plan") if isinstance(content, dict) else None
    absent = [key for key in _KEYS if not isinstance(plan, dict) or key not in plan]
    if not isinstance(plan, dict) or absent:
        raise InputError(f"{where}: lacks {', '.join(f'plan.{key}' for key in absent)}; `snakemake` writes it anew")
    sessions(plan, where)
    return plan


def sessions(plan: dict[str, Any], where: str = NAME) -> list[PlannedSession]:
    """The sessions of a plan, checked as in `plan_of`."""
    found = []
    for number, entry in enumerate(plan["sessions"] if isinstance(plan["sessions"], list) else []):
        names = [entry.get(key) if isinstance(entry, dict) else None for key in ("machine", "session", "server")]
        if not all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names):
            raise InputError(f"{where}: plan.sessions[{number}]: machine, session and server must be plain names")
        found.append(PlannedSession(*map(str, names)))
    if not found:
        raise InputError(f"{where}: plan.sessions: at least one session is needed")
    return found
