"""The arrivals of a cell: one interface for all processes that are drawn."""

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import (
    ConstantArrival,
    DayArrival,
    GammaArrival,
    Kind,
    PiecewiseArrival,
    PoissonArrival,
    RampArrival,
    RateArrival,
)
from inference_energy.plan.arrivals.day import DayRate
from inference_energy.plan.arrivals.piecewise import PiecewiseRate
from inference_energy.plan.arrivals.ramp import RampRate
from inference_energy.plan.arrivals.rate import Rate, SteadyRate
from inference_energy.plan.arrivals.unit import unit_times


def offsets_ns(arrival: RateArrival, duration_s: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Offsets from the cell's start in ns, sorted, from 0 and below the duration.

    Args:
        arrival: the process.
        duration_s: how long requests are sent.
        random: the generator named after the cell's arrivals.
    """
    rate, (kind, burstiness) = rate_of(arrival, duration_s), _unit_of(arrival)
    expected = float(rate.expected(np.array([duration_s]))[0])
    times_s = rate.time_s(unit_times(kind, burstiness, expected, random))
    return to_offsets_ns(times_s, duration_s)


def to_offsets_ns(times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.int64]:
    """Times in s as offsets in ns; what rounding puts on the end stays just before it."""
    return np.minimum(np.rint(times_s * 1e9).astype(np.int64), max(0, round(duration_s * 1e9) - 1))


def rate_of(arrival: RateArrival, duration_s: float) -> Rate:
    """The rate over the time of a cell."""
    match arrival:
        case PoissonArrival() | GammaArrival() | ConstantArrival():
            return SteadyRate(arrival.rate_qps)
        case RampArrival():
            return RampRate(arrival, duration_s)
        case PiecewiseArrival():
            return PiecewiseRate(arrival)
        case DayArrival():
            return DayRate(arrival)


def _unit_of(arrival: RateArrival) -> tuple[Kind, float]:
    match arrival:
        case PoissonArrival() | ConstantArrival():
            return arrival.process, 1.0
        case GammaArrival():
            return "gamma", arrival.burstiness
        case _:
            return arrival.kind, arrival.burstiness
