"""Start times of a cell's requests or conversations, for every arrival process.

Processes with a rate are made from one of rate 1 by rescaling time (`plan.arrivals.rates`):

- Poisson: independent gaps, exponential with mean 1.
- Gamma: independent gaps from a gamma distribution of shape k = `burstiness` and mean 1, so with a coefficient of
  variation of 1/sqrt(k); the convention is that of `vllm bench serve`. k = 1 is Poisson, k below 1 comes in bursts.
- Constant: arrivals at k + 1/2.

Gaps are summed as they are drawn. Nothing is rescaled to a target count, which would make the count fixed and the gaps
dependent. The gamma process is the equilibrium one: it has gone on for ever when the cell begins, so that the expected
count is the integral of the rate from the first moment on. The wait for its first arrival has the density
(1 - F(x))/mean (Cox, Renewal Theory, 1962, section 5.2), drawn as a uniform part of a gap of shape k + 1, the
length-biased gap. The exponential distribution is its own equilibrium.

A trace gives the lengths of its requests besides their times.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import (
    ClosedArrival,
    ConstantArrival,
    DayArrival,
    FixedTime,
    GammaArrival,
    Kind,
    PiecewiseArrival,
    PoissonArrival,
    RampArrival,
    RateArrival,
    TraceArrival,
)
from inference_energy.errors import Notice
from inference_energy.plan.arrivals.rates import ArrivalRate, DayRate, PiecewiseRate, RampRate, SteadyRate
from inference_energy.plan.arrivals.trace_rows import Blocks
from inference_energy.plan.arrivals.traces import read_trace
from inference_energy.plan.cells import Cell
from inference_energy.plan.distributions import generator


@dataclass(frozen=True)
class Starts:
    """The starts of a cell's single requests or conversations.

    Attributes:
        count: number of starts.
        offsets_ns: when each is due, from the cell's start; None in a closed loop.
        prompt_tokens, max_tokens: lengths that a trace gives; None: from the workload.
        blocks: the blocks of tokens of each prompt, if a trace names them.
        notes: notes for the user on requests left out.
    """

    count: int
    offsets_ns: NDArray[np.int64] | None
    prompt_tokens: NDArray[np.int64] | None = None
    max_tokens: NDArray[np.int64] | None = None
    blocks: Blocks | None = None
    notes: tuple[Notice, ...] = ()


def cell_starts(cell: Cell, seed: int) -> Starts:
    """Return the starts of a cell whose arrivals are drawn, of a closed loop, or of a trace.

    Raises:
        InputError: a trace cannot be read, or has no request for this cell.
    """
    arrival = cell.arrival
    if isinstance(arrival, ClosedArrival):
        return Starts(_pool_size(arrival), None)
    if isinstance(arrival, RateArrival):
        offsets = offsets_ns(arrival, cell.duration_s, generator(seed, cell.name, "arrivals"))
        return Starts(len(offsets), offsets)
    if isinstance(arrival, TraceArrival):
        return _starts_in_trace(cell, arrival)
    raise TypeError(f"{cell.key}: a schedule file has no starts apart from its rows")


def _pool_size(arrival: ClosedArrival) -> int:
    """Return the pool's size: at least one per user, two if a user's first wait differs (see `contracts.schedule`)."""
    thinks = arrival.stagger_s > 0 or not isinstance(arrival.think, FixedTime) or arrival.think.time_s > 0
    return max(arrival.pool, arrival.concurrency * (2 if thinks else 1))


def _starts_in_trace(cell: Cell, arrival: TraceArrival) -> Starts:
    trace = read_trace(arrival, cell.duration_s, f"{cell.key}.arrival")
    return Starts(
        count=len(trace.offsets_ns),
        offsets_ns=trace.offsets_ns,
        prompt_tokens=trace.prompt_tokens if arrival.lengths else None,
        max_tokens=trace.output_tokens if arrival.lengths else None,
        blocks=trace.blocks if arrival.lengths else None,
        notes=trace.notes,
    )


def offsets_ns(arrival: RateArrival, duration_s: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Return arrivals as offsets from the cell's start in ns, sorted, from 0 and below the duration.

    Args:
        arrival: the process.
        duration_s: time in which requests are sent.
        random: the generator of the cell's arrivals.
    """
    rate, (kind, burstiness) = arrival_rate(arrival, duration_s), _unit_process(arrival)
    expected = float(rate.expected(np.array([duration_s]))[0])
    times_s = rate.time_s(unit_times(kind, burstiness, expected, random))
    return to_offsets_ns(times_s, duration_s)


def to_offsets_ns(times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.int64]:
    """Convert times in s to offsets in ns; a time that rounds to the end is put just before it."""
    return np.minimum(np.rint(times_s * 1e9).astype(np.int64), max(0, round(duration_s * 1e9) - 1))


def arrival_rate(arrival: RateArrival, duration_s: float) -> ArrivalRate:
    """Return the rate over a cell's time."""
    match arrival:
        case PoissonArrival() | GammaArrival() | ConstantArrival():
            return SteadyRate(arrival.rate_qps)
        case RampArrival():
            return RampRate(arrival, duration_s)
        case PiecewiseArrival():
            return PiecewiseRate(arrival)
        case DayArrival():
            return DayRate(arrival)


def _unit_process(arrival: RateArrival) -> tuple[Kind, float]:
    """Return the kind and the burstiness of the process of rate 1."""
    match arrival:
        case PoissonArrival() | ConstantArrival():
            return arrival.process, 1.0
        case GammaArrival():
            return "gamma", arrival.burstiness
        case _:
            return arrival.kind, arrival.burstiness


_BLOCK = 1 << 14
"""Gaps per draw; a constant, so that a longer window begins with the arrivals of a shorter one."""


def unit_times(kind: Kind, burstiness: float, until: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the arrival times of a process of rate 1, sorted, from 0 and below `until`.

    Args:
        kind: poisson, gamma or constant.
        burstiness: shape of the gamma distribution; ignored otherwise.
        until: end of the process's time, which at rate 1 is the expected number of arrivals.
        random: generator of the draws.
    """
    if kind == "constant":
        return np.arange(max(0, int(np.ceil(until - 0.5))), dtype=np.float64) + 0.5
    if kind == "poisson" or burstiness == 1.0:
        return _renewal(lambda: random.standard_exponential(_BLOCK), 0.0, until)
    # The length-biased gamma distribution of shape k and scale 1/k has shape k + 1 and the same scale.
    first = random.random() * random.standard_gamma(burstiness + 1.0) / burstiness
    later = _renewal(lambda: random.standard_gamma(burstiness, _BLOCK) / burstiness, first, until)
    return np.concatenate(([first], later)) if first < until else later


def _renewal(draw: Callable[[], NDArray[np.float64]], last: float, until: float) -> NDArray[np.float64]:
    """Return the times after `last` and below `until` that follow from drawn gaps."""
    blocks: list[NDArray[np.float64]] = []
    while last < until:
        blocks.append(last + np.cumsum(draw()))
        last = float(blocks[-1][-1])
    if not blocks:
        return np.empty(0)
    times = np.concatenate(blocks)
    return times[: np.searchsorted(times, until)]
