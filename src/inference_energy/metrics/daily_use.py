"""Metric 6, applied: energy, carbon and water of a day of given traffic, in kWh, kg CO2e and litres.

Formula:  E_day = replicas * sum over 24 hours of P(r_h) * 1 h,  r_h = load of the hour / 3600 s / replicas
          carbon and water are the day's energy times those per joule of the sweep's windows
Takes:    a sweep (`metrics.sweep`), and a profile of an hourly day (`contracts.traffic`).
Needs:    `metrics.traffic`, or `inference-energy metrics --traffic`.
Interval: that of the powers; a card's gain counts in full. The traffic is assumed to be like the workload.
Says:     the use of servers that are always on. An hour beyond the largest level is not extrapolated.
"""

from collections.abc import Mapping

import numpy as np
from msgspec import structs

from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import blocking_reasons, scaled
from inference_energy.analysis.integration import Values
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.documents.experiment import TrafficHour
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason
from inference_energy.contracts.traffic import Traffic
from inference_energy.metrics.sweep import REQUESTS, TOKENS, Sweep, SweepRate, power_at, sweep_figure
from inference_energy.metrics.uncertainty import like

HOUR_S = 3600.0
FROM_ENERGY = {
    "daily_carbon_kg": ("carbon_total_g", 1e-3, "kgCO2e"),
    "daily_water_site_l": ("water_site_l", 1.0, "L"),
    "daily_water_source_l": ("water_source_l", 1.0, "L"),
}
"""For each daily figure: the window's figure that it follows from, the factor, and the unit."""


def daily_use(sweep: Sweep, traffic: Traffic | None, replicas: int, uncertainty: Uncertainty) -> dict[str, Figure]:
    """Return `daily_energy_kwh`, `daily_carbon_kg`, `daily_water_site_l` and `daily_water_source_l`."""
    load = np.zeros(1) if traffic is None else _load(traffic) / replicas

    def curve(idle_w: float, powers_w: Values, rates: Values) -> float:
        return replicas * float(power_at(idle_w, powers_w, rates, load).sum()) * HOUR_S / J_PER_KWH

    problems = [] if sweep.problems else _problems(sweep, traffic, load, replicas)
    rate = TOKENS if traffic is None else _rate(traffic)
    energy = sweep_figure(sweep, curve, "kWh", uncertainty, rate=rate, problems=problems)
    return {"daily_energy_kwh": energy, **_impacts(energy, sweep)}


def hourly_power(sweep: Sweep, traffic: Traffic, replicas: int) -> list[TrafficHour] | None:
    """Return load and power of all replicas in each hour; None if the day has no figure."""
    load = _load(traffic)
    if sweep.problems or _problems(sweep, traffic, load / replicas, replicas):
        return None
    powers_w = replicas * power_at(sweep.idle_w, sweep.powers_w, sweep.rates(_rate(traffic)), load / replicas)
    return [
        TrafficHour(hour=hour, rate=rate, power_w=power_w)
        for hour, (rate, power_w) in enumerate(zip(load.tolist(), powers_w.tolist(), strict=True))
    ]


def _rate(traffic: Traffic) -> SweepRate:
    return REQUESTS if traffic.unit == "requests" else TOKENS


def _load(traffic: Traffic) -> Values:
    """Return the mean load of each hour, for all replicas together [1/s]."""
    return np.array(traffic.hourly) / HOUR_S


def _problems(sweep: Sweep, traffic: Traffic | None, load: Values, replicas: int) -> list[Reason]:
    if traffic is None:
        return [
            reason("no_traffic", "No day of traffic is configured: write metrics.traffic.profile, or give --traffic.")
        ]
    rate = _rate(traffic)
    unknown = [problem for window in sweep.levels for problem in blocking_reasons(window.figures[rate.figure])]
    if unknown:
        return unknown
    most, largest = sweep.rates(rate).max(), float(load.max())
    if largest <= most:
        return []
    needed = int(np.ceil(largest * replicas / most))
    return [
        reason(
            "traffic_beyond_sweep",
            f"Hour {int(load.argmax())} asks {largest:.4g} {rate.unit}/s of each server, more than the largest level, "
            f"{most:.4g}: measure a higher one, or write metrics.traffic.replicas: {needed} (--replicas).",
        )
    ]


def _impacts(energy: Figure, sweep: Sweep) -> Mapping[str, Figure]:
    """Return carbon and water of the day; per kWh they are the same in all windows of the sweep."""
    figures = {}
    for name, (source, factor, unit) in FROM_ENERGY.items():
        impact = sweep.levels[0].figures[source] if sweep.levels else None
        energy_kwh = sweep.levels[0].figures["energy_total_kwh"].value if sweep.levels else None
        if impact is None or not energy.valid or impact.value is None or not energy_kwh:
            problems = [*blocking_reasons(energy), *(blocking_reasons(impact) if impact else ())]
            figures[name] = like(impact or energy, None, unit, reasons=problems)
            continue
        day = scaled(energy, factor * impact.value / energy_kwh, unit)
        figures[name] = structs.replace(day, boundary=impact.boundary, grade=impact.grade)
    return figures
