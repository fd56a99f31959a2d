"""Other users of a GPU while it was measured: the sampler looks once a second which processes compute there."""

from typing import Any

from inference_energy.analysis.validity import reason
from inference_energy.contracts.figure import Reason

LOOKED_EVERY_NS = 1_000_000_000


def others_reasons(recorded_power: dict[str, Any], start_ns: int, end_ns: int) -> list[Reason]:
    """What the sampler's counts say about other processes in a stretch of time.

    Args:
        recorded_power: `power` of session.json or idle.json.
        start_ns: start of the stretch.
        end_ns: its end; a process seen within a second of either edge counts, since it was there between two looks.
    """
    found = []
    for code, key in (("foreign_process", "foreign_processes"), ("unidentified_process", "unidentified_processes")):
        for channel in recorded_power.get("channels") or []:
            seen = [
                f"{process.get('name') or 'a process'} (pid {process['pid']})"
                for process in channel.get(key) or []
                if process["first_seen_ns"] <= end_ns + LOOKED_EVERY_NS
                and process["last_seen_ns"] >= start_ns - LOOKED_EVERY_NS
            ]
            if seen:
                found.append(reason(code, f"On {channel['device']} there was also {', '.join(seen)}."))
    return found
