"""Which entries of calibration.json are applied to a session's channels.

An entry of a device is for that device's summed channels, one of `node` for all that are summed. It is applied where
these are exactly the channels it was made with; else the sensor is another than the one that was compared. Where the
node's entry fits, it stands for the node as a whole, and entries of devices are left.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from inference_energy.analysis.figures import reason
from inference_energy.analysis.power_series import Correction, PowerSeries
from inference_energy.contracts.calibration import KEY, NODE, Calibration, Calibrations, channel_text
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.power import Key
from inference_energy.errors import InputError

SIMULATED = "simulated"


@dataclass(frozen=True)
class AppliedCalibration:
    """What a calibration comes to for one session.

    Attributes:
        corrections: by channel.
        record: for energy.json: `sha256` of the file, `applied`, and `notes`; None without a calibration.
        notes: those that stand on the session's figures too.
    """

    corrections: dict[Key, Correction] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    notes: tuple[Reason, ...] = ()


def choose_calibration(calibrations: Calibrations | None, power: list[PowerSeries], session: str) -> AppliedCalibration:
    """Choose the entries for the channels that are summed.

    Args:
        calibrations: the file that `analysis.calibration` names; None without one.
        power: the summed channels.
        session: its name, for messages.

    Raises:
        InputError: an entry of the virtual bench would be applied to measured power, or the reverse.
    """
    if calibrations is None:
        return AppliedCalibration()
    devices = {channel.device for channel in power}
    here = {name: entry for name, entry in calibrations.entries.items() if name == NODE or name in devices}
    if power:
        _refuse_other_world(here, calibrations, any(channel.grade == SIMULATED for channel in power), session)
    chosen: dict[str, list[PowerSeries]] = {}
    notes: list[Reason] = []
    for name in sorted(here, key=lambda name: name != NODE):
        mine = [channel for channel in power if name in (NODE, channel.device)]
        why = _unfit(here[name], mine) if NODE not in chosen else "that of the node is applied, which holds it"
        if why:
            notes.append(reason("calibration_not_applied", f"The calibration of {name} was not applied: {why}."))
        else:
            chosen[name] = mine
    elsewhere = [name for name in calibrations.entries if name not in here]
    absent = [reason("calibration_elsewhere", _not_logged(elsewhere))] if elsewhere else []
    applied = [_record(name, here[name]) for name in chosen]
    return AppliedCalibration(
        corrections={
            _key(channel): Correction.of(entry) for entry in applied for channel in chosen[str(entry["name"])]
        },
        record={
            "sha256": calibrations.sha256,
            "applied": applied,
            "notes": [{"code": note.code, "detail": note.detail} for note in (*notes, *absent)],
        },
        notes=tuple(notes),
    )


def corrected(found: list[PowerSeries], corrections: dict[Key, Correction]) -> list[PowerSeries]:
    """The channels, those with a correction corrected."""
    return [replace(channel, correction=corrections.get(_key(channel))) for channel in found]


def _refuse_other_world(
    entries: dict[str, Calibration], calibrations: Calibrations, simulated: bool, session: str
) -> None:
    for name, entry in entries.items():
        if (entry.grade == SIMULATED) != simulated:
            was = "simulated" if simulated else "measured"
            raise InputError(
                f"{KEY}: {calibrations.shown}: the entry {name} is {entry.grade}, but the power of session {session} "
                f"was {was}; name a calibration of the machine of that session, or write null"
            )


def _unfit(entry: Calibration, mine: list[PowerSeries]) -> str | None:
    """Why an entry is not for these channels."""
    summed = {channel_text(*_key(channel)) for channel in mine}
    if summed == set(entry.channels):
        return None
    return f"it is of {' + '.join(sorted(entry.channels))}, but {' + '.join(sorted(summed)) or 'nothing'} is summed"


def _not_logged(names: list[str]) -> str:
    return f"The calibration has entries of {', '.join(names)}, which is not among the devices summed here."


def _record(name: str, entry: Calibration) -> dict[str, Any]:
    """An entry as energy.json holds it: the phases are counted, the meter is named."""
    content = entry.model_dump(mode="json", exclude={"phases", "meter"})
    return {"name": name, **content, "phases": len(entry.phases), "meter": entry.meter_text}


def _key(channel: PowerSeries) -> Key:
    return (channel.source, channel.device, channel.domain)
