"""Facts of session.json that every stage reads: the session's names, and the load of a window in words."""

from pathlib import Path
from typing import Any, TypedDict

from inference_energy.contracts.documents.document import VERSION, read_document
from inference_energy.contracts.documents.session import SessionDocument, WindowPlan
from inference_energy.errors import InputError


class SessionNames(TypedDict):
    """The keys that every derived document of a session begins with."""

    version: int
    session: str
    machine: str
    server: str


def read_session(path: Path) -> SessionDocument:
    """Read session.json.

    Raises:
        InputError: the file is missing or is not the session.json of a recorded session.
    """
    return read_document(path, SessionDocument)


def session_names(session: SessionDocument) -> SessionNames:
    """Return the keys that every derived document of the session begins with."""
    return {
        "version": VERSION,
        "session": session.session,
        "machine": session.machine,
        "server": session.server.name,
    }


def window_plan(session: SessionDocument, window: str) -> WindowPlan:
    """Return the load that a window asked for.

    Raises:
        InputError: session.json does not describe it.
    """
    plan = session.windows.get(window)
    if plan is None:
        raise InputError(f"session.json describes no window {window!r}, but phases.parquet has it")
    return plan


def is_closed_loop(plan: WindowPlan) -> bool:
    """Return whether each user of a window sent the next request when the last had ended.

    There is no schedule then: `scheduled_ns` is the time at which the user was free.
    """
    return bool(plan.arrival["process"] == "closed")


def describe_load(plan: WindowPlan) -> str:
    """Return a window's load in words, such as `Poisson 0.5 req/s, chat`; for an unknown process its numbers."""
    return f"{_describe_arrival(dict(plan.arrival))}, {plan.workload}"


def _describe_arrival(arrival: dict[str, Any]) -> str:
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
    numbers = [f"{key} {value:g}" for key, value in arrival.items() if isinstance(value, int | float)]
    return ", ".join([process, *numbers])
