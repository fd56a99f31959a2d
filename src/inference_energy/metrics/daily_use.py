"""Metric 6, applied: what a day of given traffic takes, in kWh, kg CO2e and litres.

Formula:  E_day = replicas * sum over 24 hours of P(r_h) * 1 h,  r_h = asked in the hour / 3600 s / replicas
          carbon and water are the day's energy times what the sweep's windows have for a joule
Takes:    a sweep (`metrics.sweep`), and a profile of an hourly day (`contracts.traffic`).
Needs:    `metrics.traffic`, or `inference-energy metrics --traffic`.
Interval: that of the powers; a card's gain counts in full. That the traffic is like the workload is assumed.
Says:     what servers that are always on take. An hour beyond the largest level is not extrapolated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, reason, scaled
from inference_energy.analysis.integration import Values
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.traffic import Traffic
from inference_energy.metrics.sweep import REQUESTS, TOKENS, Sweep, power_at, sweep_figure
from inference_energy.metrics.uncertainty import like

J_PER_KWH = 3.6e6
HOUR_S = 3600.0
FROM_ENERGY = {
    "daily_carbon_kg": ("carbon_total_g", 1e-3, "kgCO2e"),
    "daily_water_site_l": ("water_site_l", 1.0, "L"),
    "daily_water_source_l": ("water_source_l", 1.0, "L"),
}
"""The window's figure that a daily one follows from, the factor, and the unit."""


def daily_use(sweep: Sweep, traffic: Traffic | None, replicas: int, uncertainty: Uncertainty) -> dict[str, Figure]:
    """`daily_energy_kwh`, `daily_carbon_kg`, `daily_water_site_l` and `daily_water_source_l`."""
    rate = REQUESTS if traffic is not None and traffic.unit == "requests" else TOKENS
    asked: Values = np.zeros(1) if traffic is None else np.array(traffic.hourly) / HOUR_S / replicas

    def curve(idle_w: float, powers_w: Values, rates: Values) -> float:
        return replicas * float(power_at(idle_w, powers_w, rates, asked).sum()) * HOUR_S / J_PER_KWH

    against = [] if sweep.problems else _problems(sweep, traffic, asked, replicas)
    energy = sweep_figure(sweep, curve, "kWh", uncertainty, rate=rate, more=against)
    return {"daily_energy_kwh": energy, **_from(energy, sweep)}


def hours(sweep: Sweep, traffic: Traffic, replicas: int) -> list[dict[str, Any]] | None:
    """Power of all replicas in each hour, for tables: `hour`, `rate` and `power_w`; None where there is no figure."""
    rate = REQUESTS if traffic.unit == "requests" else TOKENS
    asked = np.array(traffic.hourly) / HOUR_S
    if sweep.problems or _problems(sweep, traffic, asked / replicas, replicas):
        return None
    powers_w = replicas * power_at(sweep.idle_w, sweep.powers_w, sweep.rates(rate), asked / replicas)
    return [
        {"hour": hour, "rate": each, "power_w": power_w}
        for hour, (each, power_w) in enumerate(zip(asked.tolist(), powers_w.tolist(), strict=True))
    ]


def _problems(sweep: Sweep, traffic: Traffic | None, asked: Values, replicas: int) -> list[Reason]:
    if traffic is None:
        return [
            reason("no_traffic", "No day of traffic is configured: write metrics.traffic.profile, or give --traffic.")
        ]
    rate = REQUESTS if traffic.unit == "requests" else TOKENS
    unknown = [problem for window in sweep.levels for problem in blocking_reasons(window.figures[rate.figure])]
    if unknown:
        return unknown
    most, largest = sweep.rates(rate).max(), float(asked.max())
    if largest <= most:
        return []
    needed = int(np.ceil(largest * replicas / most))
    return [
        reason(
            "traffic_beyond_sweep",
            f"Hour {int(asked.argmax())} asks {largest:.4g} {rate.unit}/s of each server, more than the largest level, "
            f"{most:.4g}: measure a higher one, or write metrics.traffic.replicas: {needed} (--replicas).",
        )
    ]


def _from(energy: Figure, sweep: Sweep) -> Mapping[str, Figure]:
    """Carbon and water of the day: what the windows' have for each kWh, which is the same for all."""
    found = {}
    for name, (source, factor, unit) in FROM_ENERGY.items():
        own = sweep.levels[0].figures[source] if sweep.levels else None
        whole = sweep.levels[0].figures["energy_total_kwh"].value if sweep.levels else None
        if own is None or not energy.valid or not own.valid or not whole:
            found[name] = like(
                own or energy, None, unit, reasons=[*blocking_reasons(energy), *(blocking_reasons(own) if own else ())]
            )
            continue
        day = scaled(energy, factor * (own.value or 0.0) / whole, unit)
        found[name] = structs.replace(day, boundary=own.boundary, grade=own.grade)
    return found
