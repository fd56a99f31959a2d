"""A sweep: windows of one workload on one server at different rates, from no load to the highest sustained rate.

The rate is goodput if `analysis.slo` defines it, else generated tokens per second. Power without load is the loaded
idle power, because a server that waits for requests is not off. Levels beyond full load, where goodput falls again, are
left out, and so are windows without a power or a rate.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from inference_energy.analysis.figures import blocking_reasons, make_figure
from inference_energy.analysis.integration import Values
from inference_energy.analysis.uncertainty.budget import Term, merged
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import Grade, weakest
from inference_energy.contracts.reason_codes import deduplicated, reason
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import LOAD, SCALE, bounded, fluctuation, scale_of, terms_of

MIN_LEVELS = 3
"""Fewest levels with load for a curve, besides the idle server."""
MAX_GAP = 0.5
"""Largest distance between neighboring levels, as a share of full load."""
STEP = 1e-6
"""Relative step of the numerical derivatives."""

Curve = Callable[[float, Values, Values], float]
"""A metric as a function of the idle power [W], and the powers [W] and rates [1/s] of the levels, in any order."""


@dataclass(frozen=True)
class SweepRate:
    """A measure of load: the figure of its rate, and the binned count behind the rate."""

    figure: str
    count: str
    unit: str


GOOD = SweepRate("goodput_requests_per_s", "good_requests", "request")
TOKENS = SweepRate("output_tokens_per_s", "output_tokens", "token")
REQUESTS = SweepRate("requests_per_s", "requests", "request")


@dataclass(frozen=True)
class Sweep:
    """The levels in order of their rate.

    Attributes:
        machine: name of the machine.
        server: name of the server.
        workload: name of the workload.
        rate: the measure of load.
        levels: its windows.
        left_out: names of the windows that are left out, with the reasons.
        problems: why there is no curve.
    """

    machine: str
    server: str
    workload: str
    rate: SweepRate
    levels: tuple[WindowInputs, ...]
    left_out: tuple[tuple[str, tuple[Reason, ...]], ...]
    problems: tuple[Reason, ...]

    def rates(self, rate: SweepRate | None = None) -> Values:
        """Return the levels' rates, by the sweep's own measure of load or another."""
        name = (rate or self.rate).figure
        return np.array([window.figures[name].value or 0.0 for window in self.levels], dtype=np.float64)

    @property
    def powers_w(self) -> Values:
        """The levels' mean powers."""
        return np.array([window.figures["power_mean_w"].value or 0.0 for window in self.levels], dtype=np.float64)

    @property
    def idles(self) -> list[WindowInputs]:
        """One level of each session, because each session has its own loaded idle."""
        return list({window.session: window for window in self.levels}.values())

    @property
    def idle_w(self) -> float:
        """Mean power of the loaded server without requests, over sessions."""
        return float(np.mean([window.idle["loaded"].value or 0.0 for window in self.idles]))


def sweeps(windows: Iterable[WindowInputs]) -> list[Sweep]:
    """Return one sweep per workload and server, in the order in which they first occur."""
    groups: dict[tuple[str, str, str], list[WindowInputs]] = {}
    for window in windows:
        if window.kind == "steady":
            groups.setdefault((window.machine, window.server, window.workload), []).append(window)
    return [_sweep(windows_of_sweep) for windows_of_sweep in groups.values()]


def sweep_figure(
    sweep: Sweep,
    curve: Curve,
    unit: str,
    uncertainty: Uncertainty,
    *,
    rate: SweepRate | None = None,
    problems: Iterable[Reason] = (),
) -> Figure:
    """Return a metric of a sweep with its interval, or the reasons that it has no value.

    Args:
        sweep: the levels.
        curve: the metric.
        unit: its unit.
        uncertainty: stated uncertainties of the sensors.
        rate: a measure of load other than the sweep's own.
        problems: further problems, besides those of the sweep.
    """
    powers = [window.figures["power_mean_w"] for window in sweep.levels]
    idles = [window.idle["loaded"] for window in sweep.idles]
    boundary = powers[0].boundary if powers else "nothing"
    grade: Grade = weakest([power.grade for power in (*powers, *idles)]) if powers else "sampled"
    reasons = [*sweep.problems, *problems]
    if reasons:
        return make_figure(None, unit, boundary=boundary, grade=grade, basis="total", reasons=reasons)
    rates = sweep.rates(rate)
    notes = [*(note for power in (*powers, *idles) for note in power.reasons), _interpolated(sweep)]
    value = curve(sweep.idle_w, sweep.powers_w, rates)
    figure = make_figure(value, unit, boundary=boundary, grade=grade, basis="total", notes=deduplicated(notes))
    if any(power.budget is None for power in (*powers, *idles)):
        return figure
    return bounded(figure, _terms(sweep, curve, rate or sweep.rate, uncertainty))


def power_at(idle_w: float, powers_w: Values, rates: Values, targets: Values) -> Values:
    """Return the power at some rates, linearly interpolated between the levels."""
    order = np.argsort(rates, kind="stable")
    known_rates = np.concatenate(([0.0], rates[order]))
    return np.asarray(np.interp(targets, known_rates, np.concatenate(([idle_w], powers_w[order]))), dtype=np.float64)


def _sweep(windows: list[WindowInputs]) -> Sweep:
    rate = GOOD if all(GOOD.figure in window.figures for window in windows) else TOKENS
    used, left_out = [], []
    for window in windows:
        figures = (window.figures["power_mean_w"], window.figures[rate.figure], window.figures["output_tokens_per_s"])
        problems = [problem for figure in figures for problem in blocking_reasons(figure)]
        if not problems and not window.figures[rate.figure].value:
            problems = [reason("no_requests", "No request kept all limits in the window.")]
        if problems:
            left_out.append((window.full_name, deduplicated(problems)))
        else:
            used.append(window)
    used.sort(key=lambda window: (_value(window, rate.figure), _value(window, "output_tokens_per_s")))
    if used and rate is GOOD:
        full = _value(used[-1], "output_tokens_per_s")
        beyond = [window for window in used if _value(window, "output_tokens_per_s") > full]
        used = [window for window in used if window not in beyond]
        text = "Beyond full load: more was asked than could be served within the limits, and goodput fell."
        left_out += [(window.full_name, (reason("beyond_full_load", text),)) for window in beyond]
    first = windows[0]
    return Sweep(first.machine, first.server, first.workload, rate, tuple(used), tuple(left_out), _problems(used, rate))


def _problems(used: list[WindowInputs], rate: SweepRate) -> tuple[Reason, ...]:
    rates = [_value(window, rate.figure) for window in used]
    if len(set(rates)) < MIN_LEVELS:
        text = (
            f"{len(set(rates))} usable level(s) of this workload: measure at least {MIN_LEVELS}, from little to full."
        )
        return (reason("no_load_sweep", text),)
    absent = deduplicated(problem for window in used for problem in blocking_reasons(window.idle["loaded"]))
    if absent:
        return (*absent, reason("no_load_sweep", "Without the power of the idle server the curve has no beginning."))
    if len({window.figures["power_mean_w"].boundary for window in used}) > 1:
        return (reason("mixed_boundaries", "The levels measured different parts of the machine."),)
    shares = np.array([0.0, *rates]) / max(rates)
    widest = int(np.argmax(np.diff(shares)))
    if shares[widest + 1] - shares[widest] > MAX_GAP:
        text = (
            f"Nothing was measured between {shares[widest]:.0%} and {shares[widest + 1]:.0%} of full load: add a level."
        )
        return (reason("load_gap", text),)
    return ()


def _interpolated(sweep: Sweep) -> Reason:
    count = len(sweep.levels)
    text = f"Power is measured at {count} levels and without load; between them it was taken to lie on straight lines."
    return reason("interpolated_levels", text)


def _terms(sweep: Sweep, curve: Curve, rate: SweepRate, uncertainty: Uncertainty) -> tuple[Term, ...]:
    by_idle, by_power, by_rate = _derivatives(curve, sweep.idle_w, sweep.powers_w, sweep.rates(rate))
    terms: list[Term] = []
    parts: dict[str, float] = {}
    for window, per_watt, per_rate in zip(sweep.levels, by_power.tolist(), by_rate.tolist(), strict=True):
        terms += [term.scaled(per_watt) for term in terms_of(window.figures["power_mean_w"], *SCALE, LOAD)]
        energy_j, counts = window.bins.get("energy_total_j"), window.bins.get(rate.count)
        if energy_j is not None and counts is not None:
            # Power and rate of a window fluctuate together.
            terms += fluctuation(per_watt * energy_j + per_rate * counts, window.lengths_s)
        for name, whole_j in window.devices.energies_j.items():
            parts[name] = parts.get(name, 0.0) + per_watt * whole_j / window.duration_s
    for window in sweep.idles:
        share = by_idle / len(sweep.idles)
        terms += [term.scaled(share) for term in terms_of(window.idle["loaded"], *SCALE)]
        for name, power_w in window.devices.idle_w["loaded"].items():
            parts[name] = parts.get(name, 0.0) + share * power_w
    corrections = {name: share for window in sweep.levels for name, share in window.devices.corrections.items()}
    return merged([*terms, *scale_of(parts, float(by_power.sum()) + by_idle, corrections, uncertainty)])


def _derivatives(curve: Curve, idle_w: float, powers_w: Values, rates: Values) -> tuple[float, Values, Values]:
    """Return the derivatives of the metric by the idle power, each power and each rate, by central differences."""
    at = np.concatenate(([idle_w], powers_w, rates))
    count = len(powers_w)

    def metric(values: Values) -> float:
        return curve(float(values[0]), values[1 : count + 1], values[count + 1 :])

    slopes = np.zeros(len(at))
    for index, value in enumerate(at.tolist()):
        step = np.zeros(len(at))
        step[index] = STEP * max(abs(value), 1e-9)
        slopes[index] = (metric(at + step) - metric(at - step)) / (2 * step[index])
    return float(slopes[0]), slopes[1 : count + 1], slopes[count + 1 :]


def _value(window: WindowInputs, name: str) -> float:
    return float(window.figures[name].value or 0.0)
