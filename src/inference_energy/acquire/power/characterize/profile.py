"""The profile of a GPU's sensors: each number with its unit, or the reason why it cannot be trusted.

A number is {value, unit} with `interval_95`, `standard_error` or `count` where known; if `value` is null, `why` gives
the reason. `series` holds the points of the page's plots. `inference-energy characterize` writes
`<folder>/<uuid>.json`, which later runs cite.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy import __version__
from inference_energy.acquire.power.characterize.averaging_window import FEWEST_READINGS, WindowFit, fit_window
from inference_energy.acquire.power.characterize.gpu import MISSING
from inference_energy.acquire.power.characterize.measure import POLL_PERIOD_S, Characterization, StepResponse
from inference_energy.acquire.power.characterize.sensor_timing import (
    FEWEST_UPDATES,
    FEWEST_VALUES,
    Floats,
    Integers,
    Mean,
    Polls,
    Updates,
    block_mean,
    column,
    grid,
    integral_over_counter,
    intervals_s,
    stamps,
    updates_of,
)
from inference_energy.acquire.power.simulated import GRADE, simulated_node
from inference_energy.contracts.io import clock_anchor

VERSION = 1
READINGS = {"average": 0, "instant": 1}
"""Columns of the power polls."""

STAMP = 2
IDLE_BLOCK_S = {"average": 2.0, "instant": 1.0}
"""Longer than the window, so that blocks are nearly independent."""

POINTS = 400
NO_LOAD = "no step load was made"

Number = dict[str, Any]


def profile(measured: Characterization) -> dict[str, Any]:
    """The profile as it is written, JSON-able."""
    series: dict[str, Any] = {"calls_us": {name: _thinned(cost) for name, cost in measured.calls_us.items()}}
    load = measured.load
    readings: dict[str, Any] = {}
    for name, index in READINGS.items():
        if getattr(measured.gpu, f"has_{name}"):
            readings[name] = _reading(name, index, measured, series)
        else:
            readings[name] = {"why": f"this GPU or driver gives no {name} power"}
    return {
        "version": VERSION,
        "gpu": measured.facts,
        "grade": _grade(measured),
        "date": datetime.fromtimestamp(clock_anchor()["unix_ns"] / 1e9, UTC).isoformat(timespec="seconds"),
        "toolkit_version": __version__,
        "duration": _number(measured.duration_s, "s"),
        "poll_period": _number(POLL_PERIOD_S, "s"),
        "load": None if load is None else {"what": load.what, "steps_s": load.steps},
        "readings": readings,
        "counter": _counter(measured, series),
        "calls": {name: _cost(cost) for name, cost in measured.calls_us.items()},
        "polls": _poll_facts(measured.idle),
        "series": series,
    }


def _grade(measured: Characterization) -> str:
    if simulated_node() is not None:
        return GRADE
    return "counter" if measured.gpu.has_counter else "sampled"


def _reading(name: str, index: int, measured: Characterization, series: dict[str, Any]) -> dict[str, Any]:
    idle_ns, idle_mw = column(measured.idle, index)
    if not len(idle_ns):
        return {"why": "every call failed"}
    origin_ns = int(measured.idle.middle_ns[0])
    idle = updates_of(idle_ns, idle_mw)
    load = measured.load
    loaded = updates_of(*column(load.power, index)) if load else None
    parts = [part for part in (idle, loaded) if part is not None]
    intervals = np.concatenate([intervals_s(part) for part in parts])
    series.setdefault("intervals_s", {})[name] = _thinned(intervals)
    times_s, power_w = (idle.time_ns - origin_ns) / 1e9, idle.value / 1e3
    series.setdefault("idle", {})[name] = {"time_s": _rounded(times_s, 4), "power_w": _rounded(power_w, 3)}
    facts = {
        "call": "nvmlDeviceGetFieldValues" if measured.gpu.has_fields else "nvmlDeviceGetPowerUsage",
        "update_period": _spread(intervals, "s"),
        "driver_timestamp_period": _stamp_period([measured.idle, *([load.power] if load else [])]),
        "resolution": _resolution(np.concatenate([part.value for part in parts]), "W"),
        "idle_mean": _idle_mean(times_s, power_w, IDLE_BLOCK_S[name]),
        "idle_noise": _noise(power_w),
    }
    if load is None or loaded is None:
        missing = _absent(NO_LOAD)
        return {**facts, "window": missing, "delay": missing, "step": missing, "ratio_to_counter": missing}
    return {**facts, **_response(name, load, loaded, series)}


def _response(name: str, load: StepResponse, updates: Updates, series: dict[str, Any]) -> dict[str, Any]:
    """Window, delay, step and the ratio to the counter."""
    times_s, power_w = (updates.time_ns - load.origin_ns) / 1e9, updates.value / 1e3
    fit = fit_window(times_s, power_w, load.wave)
    shown = series.setdefault("step_response", {"edge_s": _rounded(load.wave.edge_s, 4)})
    shown.setdefault("busy", load.wave.busy.astype(int).tolist())
    shown[name] = {"time_s": _rounded(times_s, 4), "power_w": _rounded(power_w, 2)}
    if fit is not None and fit.why_no_window() is None:
        dense_s = np.arange(0.0, times_s[-1], 0.02)
        model_w = fit.model_w(dense_s, load.wave)
        shown[f"{name}_model"] = {"time_s": _rounded(dense_s, 3), "power_w": _rounded(model_w, 2)}
    return {**_window(fit, len(times_s)), "ratio_to_counter": _ratio(load, times_s, power_w, fit)}


def _window(fit: WindowFit | None, readings: int) -> dict[str, Number]:
    if fit is None:
        missing = _absent(f"only {readings} readings came during the load; {FEWEST_READINGS} are needed")
        return {"window": missing, "delay": missing, "step": missing}
    no_response, no_window = fit.why_no_response(), fit.why_no_window()
    step = _number(fit.step_w, "W", misfit_w=fit.misfit_w, readings=fit.readings)
    step_part = {"step": step if no_response is None else _absent(no_response)}
    if no_window is not None:
        return {"window": _absent(no_window), "delay": _absent(no_window), **step_part}
    factor = fit.coverage_factor
    return {
        "window": _number(fit.window_s, "s", error=fit.u_window_s, factor=factor, between=fit.between),
        "delay": _number(fit.delay_s, "s", error=fit.u_delay_s, factor=factor),
        **step_part,
    }


def _ratio(load: StepResponse, times_s: Floats, power_w: Floats, fit: WindowFit | None) -> Number:
    """Of the reading's trapezoid to the counter, each reading put at the middle of its window."""
    if load.counter is None:
        return _absent("this GPU has no energy counter")
    edges = updates_of(*column(load.counter, 0))
    if len(times_s) < 2 or len(edges.time_ns) < 2:
        return _absent("the reading or the counter hardly moved")
    # Where the window is not known it is short, and its place moves the energy of a whole cycle by nothing.
    shift_s = fit.delay_s + fit.window_s / 2 if fit is not None and fit.why_no_window() is None else 0.0
    counter_s = (edges.time_ns - load.origin_ns) / 1e9
    mean = integral_over_counter(times_s - shift_s, power_w, counter_s, edges.value / 1e3, load.wave.cuts_s())
    if mean is None:
        return _absent("the load made no whole cycle within the readings")
    return _mean_number(mean, "1", cycles=mean.parts, shift_s=shift_s)


def _counter(measured: Characterization, series: dict[str, Any]) -> dict[str, Any]:
    if measured.counter is None:
        return {"why": "this GPU or driver has no energy counter"}
    updates = updates_of(*column(measured.counter, 0))
    intervals = intervals_s(updates)
    series.setdefault("intervals_s", {})["counter"] = _thinned(intervals)
    values = [updates.value]
    if measured.load is not None and measured.load.counter is not None:
        values.append(updates_of(*column(measured.load.counter, 0)).value)
    return {
        "call": "nvmlDeviceGetTotalEnergyConsumption",
        "update_period": _spread(intervals, "s"),
        "resolution": _resolution(np.concatenate(values), "J"),
    }


def _spread(values: Floats, unit: str) -> Number:
    if len(values) < FEWEST_UPDATES:
        return _absent(f"only {len(values)} intervals were seen; {FEWEST_UPDATES} are needed")
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {
        "value": float(middle),
        "unit": unit,
        "statistic": "median",
        "p5": float(low),
        "p95": float(high),
        "count": len(values),
    }


def _stamp_period(polls: Sequence[Polls]) -> Number:
    """Return the period of the driver's timestamps, if they stamp the sensor's updates and not the calls."""
    stamped = [stamped_polls.values[stamped_polls.values[:, STAMP] != MISSING, STAMP] for stamped_polls in polls]
    intervals = np.concatenate([intervals_s(stamps(stamped_polls)) for stamped_polls in stamped])
    period = _spread(intervals, "s")
    if period["value"] is None:
        return _absent("the call gives no timestamps") if not sum(map(len, stamped)) else period
    if len(intervals) > 0.5 * sum(map(len, stamped)):
        return _absent("the driver's timestamp is that of the call, not that of the sensor's update")
    return period


def _resolution(values: Integers, unit: str) -> Number:
    step = grid(values)
    if step is None:
        return _absent(f"fewer than {FEWEST_VALUES} different values were seen")
    return {"value": step / 1e3, "unit": unit, "statistic": "grid on which all values lie"}


def _idle_mean(times_s: Floats, power_w: Floats, block_s: float) -> Number:
    if len(power_w) < FEWEST_UPDATES:
        return _absent(f"only {len(power_w)} updates came at idle; {FEWEST_UPDATES} are needed")
    return _mean_number(block_mean(times_s, power_w, block_s), "W", block_s=block_s)


def _noise(power_w: Floats) -> Number:
    if len(power_w) < FEWEST_UPDATES:
        return _absent(f"only {len(power_w)} updates came at idle; {FEWEST_UPDATES} are needed")
    deviation = float(power_w.std(ddof=1))
    return {"value": deviation, "unit": "W", "statistic": "standard deviation", "count": len(power_w)}


def _cost(latency_us: Floats) -> dict[str, Number]:
    median, p99 = np.quantile(latency_us, [0.5, 0.99])
    return {
        "median": {"value": float(median) / 1e6, "unit": "s", "count": len(latency_us)},
        "p99": {"value": float(p99) / 1e6, "unit": "s", "count": len(latency_us)}
        if len(latency_us) >= 100
        else _absent(f"only {len(latency_us)} calls were made; 100 are needed"),
    }


def _poll_facts(idle: Polls) -> dict[str, Any]:
    late = {f"p{share}": _number(float(np.quantile(idle.late_us, share / 100)) / 1e6, "s") for share in (50, 99)}
    late["max"] = _number(float(idle.late_us.max()) / 1e6, "s")
    return {"lateness": late, "polls": len(idle.late_us), "failed": idle.failed, "skipped": idle.skipped}


def _absent(why: str) -> Number:
    return {"value": None, "why": why}


def _number(value: float, unit: str, *, error: float | None = None, factor: float = 2.0, **more: Any) -> Number:
    number: Number = {"value": value, "unit": unit}
    if error is not None:
        number |= {"standard_error": error, "interval_95": [value - factor * error, value + factor * error]}
    return {**number, **more}


def _mean_number(mean: Mean, unit: str, **more: Any) -> Number:
    number: Number = {"value": mean.value, "unit": unit, **more}
    if mean.interval_95 is None:
        number["interval_why"] = f"only {mean.parts} independent part(s)"
    else:
        number["interval_95"] = list(mean.interval_95)
    return number


def _thinned(values: Floats) -> list[float]:
    """At most `POINTS` values at even ranks, smallest and largest among them: enough to draw the distribution."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, max(0, len(ordered) - 1), min(len(ordered), POINTS)).round().astype(int))
    return _rounded(ordered[ranks], 6) if len(ordered) else []


def _rounded(values: Floats, digits: int) -> list[float]:
    rounded: list[float] = np.round(values, digits).tolist()
    return rounded


PROFILES = Path("results/characterisation")


def profile_path(folder: Path, uuid: str) -> Path:
    """Return the path of a GPU's profile."""
    return folder / f"{uuid.replace('/', '_')}.json"


def profiles_of(gpus: Sequence[str], folder: Path = PROFILES) -> dict[str, dict[str, str]]:
    """Return `file`, below the folder of results, and `sha256` of each GPU's profile, by UUID."""
    profiles = {}
    for uuid in gpus:
        path = profile_path(folder, uuid)
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            profiles[uuid] = {"file": f"{folder.name}/{path.name}", "sha256": digest}
    return profiles


def averaging_windows_s(gpus: Sequence[str], folder: Path = PROFILES) -> dict[str, float]:
    """Return the averaging time of average power [s] by UUID, for GPUs whose profile gives it."""
    windows_s = {}
    for uuid in gpus:
        try:
            window = json.loads(profile_path(folder, uuid).read_text())["readings"]["average"]["window"]
            windows_s[uuid] = float(window["value"])
        except (OSError, ValueError, KeyError, TypeError):  # none, of another version, or without this number
            continue
    return windows_s
