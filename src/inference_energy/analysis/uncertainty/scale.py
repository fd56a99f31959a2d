"""Gain and offset of the sensors: as stated, or as a calibration leaves them.

A calibrated device has, instead of the stated terms,

    u^2 = (E u_gain)^2 + (T u_offset)^2 + 2 E T cov(gain, offset)        `calibration`
    u   = E' u_meter                                                     `meter`

with E the energy as the sensor gave it, E' = gain E + offset T as calibrated, and T the time. Where the same sensor's
idle is subtracted the offset cancels, so E is that above idle and T is 0. The meter's own gain is in no scatter of the
comparison and common to all that was compared with it. Source: JCGM 100:2008 (GUM), 5.2 and H.3.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from inference_energy.analysis.channels import Channel
from inference_energy.analysis.correction import Correction
from inference_energy.analysis.uncertainty.budget import Term, merged
from inference_energy.analysis.uncertainty.sensors import gain_term, offset_term
from inference_energy.config.analysis import Uncertainty


def corrections_of(power: Iterable[Channel]) -> dict[str, Correction]:
    """The corrections of channels that have one, by the channels' names."""
    return {channel.name: channel.correction for channel in power if channel.correction is not None}


def scale_terms(
    energies_j: Mapping[str, float], duration_s: float, corrections: Mapping[str, Correction], config: Uncertainty
) -> tuple[Term, ...]:
    """The terms of a sum of energies in J.

    Args:
        energies_j: the parts by channel, as calibrated, less what is subtracted from each.
        duration_s: the time over which offsets count; 0 for energies above idle.
        corrections: of the calibrated ones among the channels.
        config: what is stated.
    """
    stated = {name: energy_j for name, energy_j in energies_j.items() if name not in corrections}
    found = [gain_term(stated, config), offset_term(len(stated), duration_s, config)] if stated else []
    entries: dict[str, list[str]] = {}
    for name in energies_j:
        if name in corrections:
            entries.setdefault(corrections[name].entry, []).append(name)
    if not entries:
        return tuple(found)
    parts = []
    for names in entries.values():
        own = corrections[names[0]]
        raw_j = sum(corrections[name].raw_j(energies_j[name], duration_s) for name in names)
        u2 = (raw_j * own.u_gain) ** 2 + (duration_s * own.u_offset_w) ** 2 + 2 * raw_j * duration_s * own.covariance_w
        parts.append(Term("calibration", "B", math.sqrt(max(u2, 0.0)), own.dof, ""))
    bases = "; ".join(dict.fromkeys(corrections[names[0]].basis for names in entries.values()))
    found += [replace(term, basis=f"comparison with {bases}") for term in merged(parts)]
    metered_j = sum(energies_j[name] for names in entries.values() for name in names)
    text = f"{100 * config.meter_gain:g} % of the calibrated energy, stated for the meter"
    return (*found, Term("meter", "B", config.meter_gain * abs(metered_j), math.inf, text))
