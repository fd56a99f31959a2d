"""Stage `summary`: everything about an experiment that people read, in one JSON object."""

from dataclasses import dataclass
from typing import Any

from inference_energy import __version__
from inference_energy.errors import InputError


@dataclass(frozen=True)
class SessionParts:
    """The derived files of one session, and its session.json."""

    session: dict[str, Any]
    launch: dict[str, Any]
    warmup: dict[str, Any]
    steady: dict[str, Any]
    energy: dict[str, Any]
    carbon: dict[str, Any]


def match_parts(**kinds: list[dict[str, Any]]) -> list[SessionParts]:
    """Sort derived files, given in any order, into sessions.

    Args:
        kinds: lists under the names of the fields of `SessionParts`.

    Raises:
        InputError: a session lacks one of its files, or has one twice.
    """
    sessions: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, contents in kinds.items():
        for content in contents:
            parts = sessions.setdefault((content["machine"], content["session"]), {})
            if kind in parts:
                raise InputError(f"the {kind} file of session {content['session']} is given twice")
            parts[kind] = content
    for (machine, session), parts in sessions.items():
        absent = [kind for kind in kinds if kind not in parts]
        if absent:
            raise InputError(f"session {session} of {machine} lacks its file(s): {', '.join(absent)}")
    return [SessionParts(**parts) for parts in sessions.values()]


def in_order(parts: list[SessionParts], sessions: list[dict[str, str]]) -> list[SessionParts]:
    """The parts in the order of a plan's `sessions` ({machine, session}).

    Raises:
        InputError: the plan has a session whose files are not given.
    """
    given = {(p.energy["machine"], p.energy["session"]): p for p in parts}
    absent = [s["session"] for s in sessions if (s["machine"], s["session"]) not in given]
    if absent:
        raise InputError(f"the files of session(s) {', '.join(absent)} are not given")
    return [given[s["machine"], s["session"]] for s in sessions]


def summary(
    experiment: str,
    sessions: list[SessionParts],
    fits: list[dict[str, Any]],
    estimates: list[dict[str, Any]] | None = None,
    metrics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """summary.json of an experiment.

    Args:
        experiment: its name.
        sessions: the parts of each session, in the order of the result.
        fits: fit.json of each server and machine, in any order.
        estimates: estimates.json of each session, in any order; None: of an experiment without them.
        metrics: metrics.json; None leaves `metrics` out.

    Raises:
        InputError: the estimates are not those of the sessions.
    """
    servers = list(dict.fromkeys((parts.energy["machine"], parts.energy["server"]) for parts in sessions))
    fits = sorted(fits, key=lambda fit: servers.index((fit["machine"], fit["server"])))
    return {
        "version": 1,
        "experiment": experiment,
        "machines": list(dict.fromkeys(parts.energy["machine"] for parts in sessions)),
        "toolkit": {"version": __version__},
        "factors": sessions[0].carbon["factors"] if sessions else None,
        "cells": [_cell(parts, name) for parts in sessions for name in parts.energy["windows"]],
        "idle": [_idle(parts) for parts in sessions],
        "sessions": [_session(parts) for parts in sessions],
        "fits": fits,
        **({} if estimates is None else {"estimates": _estimates(sessions, estimates)}),
        "notes": _notes(sessions, fits),
        **({} if metrics is None else {"metrics": metrics}),
    }


def _estimates(sessions: list[SessionParts], estimates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the sessions."""
    given = {(content["machine"], content["session"]): content for content in estimates}
    wanted = [(parts.energy["machine"], parts.energy["session"]) for parts in sessions]
    if sorted(given) != sorted(wanted):
        raise InputError("the estimates that are given are not those of the sessions, one each")
    return [given[key] for key in wanted]


def _cell(parts: SessionParts, name: str) -> dict[str, Any]:
    energy, load, carbon = (part["windows"][name] for part in (parts.energy, parts.steady, parts.carbon))
    return {
        "cell": f"{parts.energy['session']}.{name}",
        "machine": parts.energy["machine"],
        "session": parts.energy["session"],
        "window": {"name": name, "start_ns": energy["start_ns"], "end_ns": energy["end_ns"]},
        "server": parts.energy["server"],
        "model": parts.session.get("model"),
        "kind": energy["kind"],
        "load": load["load"],
        "figures": {**energy["figures"], **load["figures"], **carbon["figures"]},
        "devices": energy["devices"],
        "counts": load["counts"],
        "checks": load["checks"],
        "client": _client(load["client"], energy["client"]),
    }


def _client(cost: dict[str, Any] | None, energy: dict[str, Any]) -> dict[str, Any] | None:
    """What the load client took, with its modelled energy among its figures; None where it was not recorded."""
    return None if cost is None else {**cost, "figures": {**cost["figures"], **energy}}


def _idle(parts: SessionParts) -> dict[str, Any]:
    return {
        "machine": parts.energy["machine"],
        "session": parts.energy["session"],
        "server": parts.energy["server"],
        **parts.energy["idle"],
    }


def _session(parts: SessionParts) -> dict[str, Any]:
    return {
        "machine": parts.energy["machine"],
        "session": parts.energy["session"],
        "server": parts.energy["server"],
        "launch": {key: parts.launch[key] for key in ("ok", "mode", "ready_after_s", "server_version", "reasons")},
        "warmup": {key: parts.warmup[key] for key in ("requests", "failed", "throughput", "reasons")},
        "client": parts.session.get("client"),
        "calibration": parts.energy["calibration"],
    }


def _calibrated(calibration: dict[str, Any] | None) -> list[str]:
    if calibration is None:
        return []
    applied = [
        f"the power of {entry['name']} is calibrated against {entry['meter']}, {entry['date'][:10]}."
        for entry in calibration["applied"]
    ]
    return [*applied, *(str(note["detail"]) for note in calibration["notes"])]


def _notes(sessions: list[SessionParts], fits: list[dict[str, Any]]) -> list[str]:
    """Sentences that hold for whole sessions or servers, each once."""
    notes = [parts.energy["boundary_note"] for parts in sessions if parts.energy["boundary_note"]]
    for parts in sessions:
        name = parts.energy["session"]
        if parts.energy["grade"] in ("modelled", "simulated"):
            notes.append(f"{name}: power is {parts.energy['grade']}, not measured.")
        notes += [f"{name}: {sentence}" for sentence in _calibrated(parts.energy["calibration"])]
        notes += [f"{name}: {r['detail']}" for part in (parts.launch, parts.warmup) for r in part["reasons"]]
    for fit in fits:
        excluded = [entry["cell"] for entry in fit["excluded"]]
        if excluded:
            notes.append(f"{fit['server']}: left out of the fit: {', '.join(excluded)}.")
    return list(dict.fromkeys(notes))
