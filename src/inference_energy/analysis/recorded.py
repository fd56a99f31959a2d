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


def is_closed_loop(facts: dict[str, Any]) -> bool:
    """Whether each user of a window sent the next request when the last had ended.

    There is no schedule then: `scheduled_ns` is the time at which the user was free.
    """
    return bool(facts["arrival"]["process"] == "closed")


def load_text(facts: dict[str, Any]) -> str:
    """A window's load in words, such as `Poisson 0.5 req/s, chat`; of an unknown process its name and its numbers."""
    arrival = dict(facts["arrival"])
    process = str(arrival.pop("process"))
    if process == "closed" and arrival.get("concurrency") is not None:
        users = arrival["concurrency"]
        text = f"closed loop, {users} user{'s' if users != 1 else ''}"
    elif arrival.get("rate_qps") is not None:
        text = f"{'Poisson' if process == 'poisson' else process} {arrival['rate_qps']:g} req/s"
    else:
        numbers = [f"{key} {value:g}" for key, value in arrival.items() if isinstance(value, int | float)]
        text = ", ".join([process, *numbers])
    return f"{text}, {facts['workload']}"
