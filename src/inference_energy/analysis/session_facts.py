"""What session.json says, read the same way by every stage."""

from pathlib import Path
from typing import Any

from inference_energy.contracts.io import read_json
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


def load_description(facts: dict[str, Any]) -> str:
    """A window's load in words, such as `Poisson 0.5 req/s, chat`; of an unknown process its name and its numbers."""
    return f"{_arrival_text(dict(facts['arrival']))}, {facts['workload']}"


def _arrival_text(arrival: dict[str, Any]) -> str:
    match arrival:
        case {"process": "closed", "concurrency": int(users)}:
            return f"closed loop, {users} user{'s' if users != 1 else ''}"
        case {"process": "gamma", "rate_qps": rate, "burstiness": shape}:
            return f"gamma {rate:g} req/s, burstiness {shape:g}"
        case {"process": process, "rate_qps": int() | float() as rate}:
            return f"{'Poisson' if process == 'poisson' else process} {rate:g} req/s"
        case {"process": "ramp", "from_qps": first, "to_qps": last}:
            return f"ramp {first:g} to {last:g} req/s"
        case {"process": "piecewise", "steps": steps}:
            return f"steps of {', '.join(format(step['rate_qps'], 'g') for step in steps)} req/s"
        case {"process": "day", "mean_qps": mean, "amplitude": amplitude}:
            return f"day of {mean:g} req/s ± {amplitude:.0%}"
        case {"process": "trace", "format": name, "time_scale": scale}:
            return f"{name} trace" + (f", time × {scale:g}" if scale != 1 else "")
        case {"process": "schedule"}:
            return "replayed schedule"
    process = str(arrival.pop("process"))
    return ", ".join(
        [process, *(f"{key} {value:g}" for key, value in arrival.items() if isinstance(value, int | float))]
    )
