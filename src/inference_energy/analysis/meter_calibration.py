"""The entries of a calibration that apply to the power of a session.

An entry applies to exactly the channels that it was made with: with others its gain and offset mean nothing. The entry
of the node, which covers everything, has priority over those of single devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from inference_energy.analysis.power_series import Correction, PowerSeries
from inference_energy.contracts.calibration import KEY, NODE, Calibration, Calibrations, channel_text
from inference_energy.contracts.documents.energy import CalibrationEntry, CalibrationRecord
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.power import Key
from inference_energy.contracts.reason_codes import reason
from inference_energy.errors import InputError

SIMULATED = "simulated"


@dataclass(frozen=True)
class AppliedCalibration:
    """The calibration of one session.

    Attributes:
        corrections: correction of each channel that has one.
        record: record for energy.json; None without a calibration.
        notes: notes for the session's figures.
    """

    corrections: dict[Key, Correction] = field(default_factory=dict)
    record: CalibrationRecord | None = None
    notes: tuple[Reason, ...] = ()


def choose_calibration(
    calibrations: Calibrations | None, power: Sequence[PowerSeries], session: str
) -> AppliedCalibration:
    """Choose the entries for the summed channels.

    Args:
        calibrations: the file that `analysis.calibration` names; None without one.
        power: the summed channels.
        session: name of the session, for messages.

    Raises:
        InputError: an entry of the virtual bench would be applied to measured power, or the reverse.
    """
    if calibrations is None:
        return AppliedCalibration()
    devices = {channel.device for channel in power}
    present = {name: entry for name, entry in calibrations.entries.items() if name == NODE or name in devices}
    if power:
        _refuse_other_world(present, calibrations, any(channel.grade == SIMULATED for channel in power), session)
    chosen: dict[str, list[PowerSeries]] = {}
    notes: list[Reason] = []
    for name in sorted(present, key=lambda name: name != NODE):
        channels = [channel for channel in power if name in (NODE, channel.device)]
        why = (
            _mismatch(present[name], channels) if NODE not in chosen else "that of the node is applied, which holds it"
        )
        if why:
            notes.append(reason("calibration_not_applied", f"The calibration of {name} was not applied: {why}."))
        else:
            chosen[name] = channels
    elsewhere = [name for name in calibrations.entries if name not in present]
    absent = [reason("calibration_elsewhere", _not_logged(elsewhere))] if elsewhere else []
    applied = [_entry_record(name, present[name]) for name in chosen]
    return AppliedCalibration(
        corrections={channel.key: Correction.from_entry(entry) for entry in applied for channel in chosen[entry.name]},
        record=CalibrationRecord(sha256=calibrations.sha256, applied=applied, notes=[*notes, *absent]),
        notes=tuple(notes),
    )


def corrected(channels: Sequence[PowerSeries], corrections: dict[Key, Correction]) -> list[PowerSeries]:
    """Return the channels, each with its correction where it has one."""
    return [replace(channel, correction=corrections.get(channel.key)) for channel in channels]


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


def _mismatch(entry: Calibration, channels: Sequence[PowerSeries]) -> str | None:
    """Return why an entry does not apply to these channels."""
    names = {channel_text(*channel.key) for channel in channels}
    if names == set(entry.channels):
        return None
    return f"it is of {' + '.join(sorted(entry.channels))}, but {' + '.join(sorted(names)) or 'nothing'} is summed"


def _not_logged(names: list[str]) -> str:
    return f"The calibration has entries of {', '.join(names)}, which is not among the devices summed here."


def _entry_record(name: str, entry: Calibration) -> CalibrationEntry:
    """Return an entry as energy.json holds it: the number of its phases, and its meter in words."""
    return CalibrationEntry(
        name=name,
        gain=entry.gain,
        offset_w=entry.offset_w,
        u_gain=entry.u_gain,
        u_offset_w=entry.u_offset_w,
        covariance_w=entry.covariance_w,
        chi2_per_dof=entry.chi2_per_dof,
        channels=list(entry.channels),
        grade=entry.grade,
        date=entry.date,
        toolkit_version=entry.toolkit_version,
        phases=len(entry.phases),
        meter=entry.meter_text,
    )
