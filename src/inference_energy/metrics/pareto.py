"""Metric 10: no composite score. Pareto fronts of any two figures, and who dominates whom.

Rule:     a dominates b if a is surely better in one figure, and in the other surely better or exactly equal. *Surely*
          means beyond the uncertainty of the difference: |a - b| > D, with D² the sum of the squares of both 95 % half
          widths without their common part. Gain and offset of one machine's sensors err alike in both, so only the
          difference of these terms counts. The front consists of the points that none dominates.
Compares: windows of one workload whose figures have the same basis, boundary and kind of grade (measured, modelled,
          simulated). Other workloads, boundaries and kinds have separate fronts.
Order:    D is a distance of vectors, so dominance is a strict partial order: irreflexive, asymmetric and transitive.
Says:     which points are worth choosing between, not which to choose: that depends on your costs. For a single number,
          use goodput per kWh at a quality floor (`energy_per_answer`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from inference_energy.contracts.documents.experiment import (
    FrontExclusion,
    FrontGroup,
    FrontPoint,
    ParetoFront,
    WindowName,
)
from inference_energy.contracts.figure import Figure
from inference_energy.errors import InputError
from inference_energy.metrics.uncertainty import SCALE, half_width, terms_of

LARGER_IS_BETTER = ("efficiency_", "goodput_", "accuracy_", "good_", "correct_", "achieved_")
SMALLER_IS_BETTER = (
    *("energy_", "carbon_", "water_", "sci_", "embodied_", "request_energy_", "power_mean_"),
    *("ttft_", "tpot_", "itl_", "e2e_", "queue_", "failed_"),
)
RATES = ("output_tokens_per_s", "prompt_tokens_per_s", "requests_per_s")

COMMON_FACTOR = float(stats.norm.ppf(0.975))
_MODELS = ("modelled", "simulated")


@dataclass(frozen=True)
class Candidate:
    """A window that may be on a front.

    Attributes:
        machine: name of the machine.
        name: name of the window, `<session>.<window>`.
        kind: `steady`, `prefill` or `decode`; only steady windows are compared.
        workload: name of the workload.
        figures: its figures by name.
    """

    machine: str
    name: str
    kind: str
    workload: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Point:
    """A window with the two figures of a front, both with a value."""

    window: str
    machine: str
    figures: tuple[Figure, Figure]


def larger_is_better(name: str) -> bool:
    """Return whether a larger value of a figure is better.

    Raises:
        InputError: neither direction is better.
    """
    if name in RATES or name.startswith(LARGER_IS_BETTER):
        return True
    if name.startswith(SMALLER_IS_BETTER):
        return False
    raise InputError(
        f"metrics.pareto: {name}: neither more nor less of it is better; write figures such as "
        "energy_total_per_output_token_j, ttft_p90_s, output_tokens_per_s, goodput_total_requests_per_j"
    )


def surely_better(a: Figure, b: Figure, *, larger: bool, one_machine: bool) -> bool:
    """Return whether a is better than b beyond the uncertainty of their difference.

    Args:
        a: a figure with a value.
        b: another.
        larger: whether larger is better.
        one_machine: whether the same sensors measured both.
    """
    if a.value is None or b.value is None:
        return False
    lead = a.value - b.value if larger else b.value - a.value
    return lead > 0 and lead > _difference_half_width(a, b, one_machine)


def dominates(a: Point, b: Point, larger: tuple[bool, bool]) -> bool:
    """Return whether a dominates b."""
    one_machine = a.machine == b.machine
    pairs = list(zip(a.figures, b.figures, larger, strict=True))
    better = [surely_better(first, second, larger=more, one_machine=one_machine) for first, second, more in pairs]
    equal = [
        first.value == second.value and _difference_half_width(first, second, one_machine) == 0
        for first, second, _ in pairs
    ]
    return any(better) and all(sure or same for sure, same in zip(better, equal, strict=True))


def front(windows: Sequence[Candidate], names: tuple[str, str]) -> ParetoFront:
    """Return the fronts over two figures, one for each group of windows that may be compared.

    Raises:
        InputError: it is unknown which direction of a figure is better, or no window has such a figure.
    """
    larger = (larger_is_better(names[0]), larger_is_better(names[1]))
    groups: dict[tuple[str, ...], list[Point]] = {}
    left_out = []
    for window in windows:
        if window.kind != "steady":
            continue
        first, second = (window.figures.get(name) for name in names)
        reasons = [*_why_absent(names[0], first), *_why_absent(names[1], second)]
        if reasons or first is None or second is None:
            left_out.append(FrontExclusion(machine=window.machine, cell=window.name, reasons=reasons))
            continue
        groups.setdefault((window.workload, *_kind(first), *_kind(second)), []).append(
            Point(window.name, window.machine, (first, second))
        )
    lacking = [name for name in names if not any(name in window.figures for window in windows)]
    if lacking and windows:
        unknown = ", ".join(lacking)
        raise InputError(f"metrics.pareto: no window has a figure {unknown}; docs/reference/files.md lists them")
    return ParetoFront(
        figures=list(names),
        larger_is_better=list(larger),
        groups=[_group(key, points, larger) for key, points in groups.items()],
        left_out=left_out,
    )


def _group(key: tuple[str, ...], points: list[Point], larger: tuple[bool, bool]) -> FrontGroup:
    return FrontGroup(
        workload=key[0],
        known=[" · ".join(part for part in key[1:4] if part), " · ".join(part for part in key[4:7] if part)],
        points=[
            FrontPoint(
                machine=point.machine,
                cell=point.window,
                values=[figure.value for figure in point.figures],
                dominated_by=[
                    WindowName(machine=other.machine, cell=other.window)
                    for other in points
                    if other is not point and dominates(other, point, larger)
                ],
            )
            for point in points
        ],
    )


def _kind(figure: Figure) -> tuple[str, str, str]:
    """Return what two comparable figures share: basis, boundary and kind of grade."""
    basis = "" if figure.basis == "none" else figure.basis
    return basis, figure.boundary, figure.grade if figure.grade in _MODELS else ""


def _why_absent(name: str, figure: Figure | None) -> list[str]:
    if figure is None:
        return [f"There is no {name}."]
    return [] if figure.valid else [reason.detail for reason in figure.reasons]


def _difference_half_width(a: Figure, b: Figure, one_machine: bool) -> float:
    """Return D: the length of the difference of two vectors of 95 % half widths; see the module's rule."""
    (common_a, own_a), (common_b, own_b) = _half_widths(a), _half_widths(b)
    squares = [own_a**2, own_b**2]
    for name in SCALE:
        x, y = common_a.get(name, 0.0), common_b.get(name, 0.0)
        squares.append((x - y) ** 2 if one_machine else x**2 + y**2)
    return math.sqrt(sum(squares))


def _half_widths(figure: Figure) -> tuple[dict[str, float], float]:
    """Return the 95 % half widths of the terms that all figures of the machine share, and of the rest together."""
    common = {term.name: COMMON_FACTOR * term.u for term in terms_of(figure) if term.name in SCALE}
    return common, math.sqrt(max(half_width(figure) ** 2 - sum(u**2 for u in common.values()), 0.0))
