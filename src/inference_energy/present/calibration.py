"""What the power of each session was calibrated with: sentences for the page, facts for the method."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.method import Facts


def calibration_texts(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each entry that was applied, and one for each that was not; each once.

    Args:
        sessions: those of the summary.
    """
    texts = []
    for row in sessions:
        calibration = row.get("calibration") or {}
        texts += [
            f"{row['session']}: the power of {entry['name']} is calibrated against {entry['meter']}, "
            f"{entry['date'][:10]}: {_line(entry)}."
            for entry in calibration.get("applied", [])
        ]
        texts += [f"{row['session']}: {note['detail']}" for note in calibration.get("notes", [])]
    return list(dict.fromkeys(texts))


def calibration_facts(row: dict[str, Any]) -> list[Facts]:
    """The calibration of one session, as a list of facts; none where the configuration names no file.

    Args:
        row: the session in the summary.
    """
    calibration = row.get("calibration")
    if not calibration:
        return []
    known = [
        (
            str(entry["name"]),
            f"{_line(entry)}; against {entry['meter']} ({entry['grade']}), {entry['date']}, {entry['phases']} phases, "
            f"chi² per degree of freedom {entry['chi2_per_dof']:.2g}; sum of {', '.join(entry['channels'])}",
        )
        for entry in calibration["applied"]
    ]
    missing = [("not applied", str(note["detail"])) for note in calibration["notes"]]
    return [Facts("Calibration", [*known, ("sha256 of the file", str(calibration["sha256"]))], missing)]


def meters(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """The meters behind the calibrations that were applied, each once."""
    found = [str(entry["meter"]) for row in sessions for entry in (row.get("calibration") or {}).get("applied", [])]
    return list(dict.fromkeys(found))


def _line(entry: dict[str, Any]) -> str:
    """Gain and offset with their standard uncertainties."""
    return (
        f"gain {entry['gain']:.4f}, offset {entry['offset_w']:.1f} W, standard uncertainties "
        f"{entry['u_gain']:.2g} and {entry['u_offset_w']:.2g} W"
    )
