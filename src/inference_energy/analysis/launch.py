"""Stage `launch`: did the server come up, how long did it take, and did it leave anything behind."""

from pathlib import Path
from typing import Any

from inference_energy.analysis.recorded import identity, read_session
from inference_energy.analysis.validity import invalidating, reason
from inference_energy.analysis.windows import phase_times
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.tables import read_table


def launch(*, session: Path, phases: Path) -> dict[str, Any]:
    """launch.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.

    Returns:
        `ok`, `mode`, `ready_after_s`, `command`, `server_version`, `model`, `start_ns`, `end_ns`, `stop` and `reasons`.
        An attached server is ok and has neither a command nor a time to readiness.
    """
    recorded = read_session(session)
    times = phase_times(read_table(phases, phases_contract.SCHEMA), "launch")
    started = recorded.get("launch") or {}
    mode = recorded["mode"]
    reasons: list[Reason] = []
    if mode == "attach":
        reasons.append(reason("attached", "The server was already running, so its start was not measured."))
    elif started.get("ready_after_s") is None or times is None:
        reasons.append(reason("launch_failed", "The session records no time at which the server was ready."))
    reasons += _not_stopped_cleanly(recorded.get("stop") or {})
    return {
        "version": 1,
        **identity(recorded),
        "ok": not invalidating(reasons),
        "mode": mode,
        "model": recorded.get("model"),
        "server_version": recorded["server"].get("version"),
        "ready_after_s": started.get("ready_after_s"),
        "command": started.get("command"),
        "start_ns": times[0] if times else None,
        "end_ns": times[1] if times else None,
        "stop": recorded.get("stop"),
        "reasons": [{"code": r.code, "detail": r.detail} for r in reasons],
    }


def _not_stopped_cleanly(stop: dict[str, Any]) -> list[Reason]:
    """What the guardian's last status (see acquire.server.guardian) says of processes that did not end when asked."""
    found = []
    for key, what in (("leftover_pids", "are still there"), ("killed_pids", "had to be killed")):
        if pids := stop.get(key) or []:
            listed = ", ".join(map(str, pids))
            found.append(reason("leftover_processes", f"{len(pids)} process(es) of the server {what}: {listed}."))
    return found
