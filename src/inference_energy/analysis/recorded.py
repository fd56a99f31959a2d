"""What session.json says, read the same way by every stage."""

from pathlib import Path
from typing import Any

from inference_energy.contracts.tables import read_json
from inference_energy.errors import InputError


def read_session(path: Path) -> dict[str, Any]:
    """session.json, checked for what every stage needs.

    Raises:
        InputError: a key is missing.
    """
    session = read_json(path)
    absent = [key for key in ("session", "machine", "server", "windows", "power") if key not in session]
    if absent:
        raise InputError(f"{path}: lacks {', '.join(absent)}; it must be the session.json of a recorded session")
    return dict(session)


def identity(session: dict[str, Any]) -> dict[str, str]:
    """`session`, `machine` and `server` (the server's name), which every derived file carries."""
    return {"session": session["session"], "machine": session["machine"], "server": server_name(session)}


def server_name(session: dict[str, Any]) -> str:
    """The name of the server in the configuration."""
    return str(session["server"]["name"])


def window_facts(session: dict[str, Any], window: str) -> dict[str, Any]:
    """Kind, workload and arrival of a window.

    Raises:
        InputError: session.json does not describe it.
    """
    facts = session["windows"].get(window)
    if facts is None:
        raise InputError(f"session.json describes no window {window!r}, but phases.parquet has it")
    return dict(facts)


def load_text(facts: dict[str, Any]) -> str:
    """A window's load in words, such as `Poisson 0.5 req/s, chat`."""
    arrival = facts["arrival"]
    process = arrival["process"]
    if process == "closed":
        users = arrival["concurrency"]
        return f"closed loop, {users} user{'s' if users != 1 else ''}, {facts['workload']}"
    name = {"poisson": "Poisson", "constant": "constant"}.get(process, process)
    return f"{name} {arrival['rate_qps']:g} req/s, {facts['workload']}"
