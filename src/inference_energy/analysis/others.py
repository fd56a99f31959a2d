"""Other users of a GPU while it was measured: the sampler looks once a second which processes compute there.

A partitioned GPU (MIG) has only the power of the whole card, so users of its other instances count like any other.
"""

from typing import Any

from inference_energy.analysis.validity import reason
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.power import MIG, channel_facts

LOOKED_EVERY_NS = 1_000_000_000


def others_reasons(recorded_power: dict[str, Any], start_ns: int, end_ns: int) -> list[Reason]:
    """What the sampler's counts say about other processes in a stretch of time.

    Args:
        recorded_power: `power` of session.json or idle.json.
        start_ns: start of the stretch.
        end_ns: its end; a process seen within a second of either edge counts, since it was there between two looks.
    """
    found = _partitioned(recorded_power)
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


def _partitioned(recorded_power: dict[str, Any]) -> list[Reason]:
    """For each partitioned GPU, that its power is the whole card's, and what is known of who shares it."""
    cards = {
        device: facts[MIG]
        for (_, device, domain), facts in channel_facts(recorded_power.get("sources")).items()
        if domain == "gpu" and MIG in facts
    }
    found = []
    for device, card in cards.items():
        instances = card["instances"]
        shared = ", ".join(str(one["profile"]) for one in instances) or "none that can be seen from here"
        given = f"the job was given {', '.join(card['used'])}" if card["used"] else "which the job used is not known"
        told = [channel for channel in recorded_power.get("channels") or [] if channel["device"] == device]
        looked = [channel["unlisted_instances"] for channel in told if "unlisted_instances" in channel]
        unseen = sorted({uuid for unlisted in looked for uuid in unlisted})
        others = ""
        if unseen:
            others = f" Whether others computed on {', '.join(unseen)} cannot be told."
        elif not looked or not instances:
            others = " Whether others computed on it cannot be told."
        found.append(
            reason(
                "mig_card",
                f"{device} is partitioned (MIG): the energy is that of the whole card, shared by {len(instances)} "
                f"instance(s) ({shared}); {given}.{others}",
            )
        )
    return found
