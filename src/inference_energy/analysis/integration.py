"""Energy between two times, from power readings or from an energy counter.

Both interpolate linearly at the window's edges and refuse to extrapolate.
"""

import numpy as np
from numpy.typing import NDArray

from inference_energy.errors import InputError

Times = NDArray[np.int64]
Values = NDArray[np.float64]


def integrate(timestamps_ns: Times, power_w: Values, start_ns: int, end_ns: int) -> float:
    """Integrate power readings between two times by the trapezoidal rule, in J.

    The power between two readings is the line through them, also where an edge of the window cuts it.

    Args:
        timestamps_ns: times of the readings in ns, ascending.
        power_w: power at these times in W.
        start_ns: start of the window.
        end_ns: end of the window.

    Raises:
        InputError: the readings do not cover the window.
        ValueError: times that descend, a power that is not a number, or a window that ends before it starts.
    """
    times_s, power = _checked(timestamps_ns, power_w, start_ns, end_ns, "power log")
    duration_s = (end_ns - start_ns) / 1e9
    inside = (times_s > 0) & (times_s < duration_s)
    edges = np.interp([0.0, duration_s], times_s, power)
    nodes_s = np.concatenate(([0.0], times_s[inside], [duration_s]))
    nodes_w = np.concatenate((edges[:1], power[inside], edges[1:]))
    return float(np.trapezoid(nodes_w, nodes_s))


def cumulative(timestamps_ns: Times, power_w: Values, edges_ns: Times) -> Values:
    """Integrate power readings from the first edge up to each edge by the trapezoidal rule, in J.

    Args:
        timestamps_ns: times of the readings in ns, ascending; they cover the edges.
        power_w: power at these times in W.
        edges_ns: ascending, shape (edges,).
    """
    times_s, edges_s = (timestamps_ns - edges_ns[0]) / 1e9, (edges_ns - edges_ns[0]) / 1e9
    at_readings_j = np.concatenate(([0.0], np.cumsum(np.diff(times_s) * (power_w[1:] + power_w[:-1]) / 2)))
    interval = np.clip(np.searchsorted(times_s, edges_s, side="right") - 1, 0, len(times_s) - 2)
    into_s = edges_s - times_s[interval]
    slope = np.diff(power_w)[interval] / np.maximum(np.diff(times_s)[interval], 1e-12)
    energy_j = at_readings_j[interval] + into_s * (power_w[interval] + 0.5 * slope * into_s)
    return np.asarray(energy_j - energy_j[0], dtype=np.float64)


def counter_energy(timestamps_ns: Times, counter_j: Values, start_ns: int, end_ns: int) -> float:
    """Return the rise of an energy counter between two times, in J; arguments and errors are those of `integrate`."""
    times_s, counter = _checked(timestamps_ns, counter_j, start_ns, end_ns, "energy counter's log")
    # Counters run since the driver was loaded: subtracting first keeps the digits.
    at_edges = np.interp([0.0, (end_ns - start_ns) / 1e9], times_s, counter - counter[0])
    return float(at_edges[1] - at_edges[0])


def shortfall_s(timestamps_ns: Times, start_ns: int, end_ns: int) -> tuple[float, float]:
    """Return the seconds of the window before the first and after the last reading."""
    if not len(timestamps_ns):
        return (end_ns - start_ns) / 1e9, (end_ns - start_ns) / 1e9
    before_ns = max(int(timestamps_ns[0]) - start_ns, 0)
    after_ns = max(end_ns - int(timestamps_ns[-1]), 0)
    return before_ns / 1e9, after_ns / 1e9


def _checked(times_ns: Times, values: Values, start_ns: int, end_ns: int, log: str) -> tuple[Values, Values]:
    if end_ns < start_ns:
        raise ValueError("the window ends before it starts")
    if not len(times_ns):
        raise InputError(f"the {log} is empty")
    if np.any(np.diff(times_ns) < 0):
        raise ValueError(f"the {log} is not in order of time")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"the {log} has values that are not numbers")
    before_s, after_s = shortfall_s(times_ns, start_ns, end_ns)
    if before_s or after_s:
        raise InputError(
            f"the {log} does not cover the window: {before_s:.3f} s are missing at its start and {after_s:.3f} s at "
            "its end; log power from before the first request until after the last"
        )
    # Relative to the window, because floats hold days in ns only to some hundred ns.
    return (times_ns - start_ns) / 1e9, np.asarray(values, dtype=np.float64)
