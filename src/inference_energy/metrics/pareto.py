"""Metric 10: no composite score. Pareto fronts of any two figures, and who dominates whom.

Rule:     a dominates b where a is surely better in one figure, and in the other surely better or the same number
          without any doubt. *Surely* is beyond the uncertainty of the difference: |a - b| > D, with D² the sum of the
          squares of both 95 % half widths but for what both have in common. The gain and offset of the sensors of one
          machine err alike in both, so of these only the difference of their terms counts.
          The front are the points that none dominates.
Compares: only what may be compared: windows of one workload, whose figures have the same basis, boundary and kind of
          grade (measured, modelled, simulated). Other workloads, boundaries and kinds have fronts of their own.
Order:    D is a distance of vectors, so dominance is a strict partial order: irreflexive, asymmetric and transitive.
Says:     which points are worth choosing between, not which to choose: that depends on what you pay for. If one number
          must be given, give goodput per kWh at a quality floor (`quality.energy_per_answer`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

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
class Point:
    """A window with the two figures, both given."""

    window: str
    machine: str
    figures: tuple[Figure, Figure]


def larger_is_better(name: str) -> bool:
    """Which way a figure is better.

    Raises:
        InputError: neither way is.
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
    """Whether a is better than b beyond the uncertainty of their difference.

    Args:
        a: a figure that is given.
        b: another.
        larger: whether more is better.
        one_machine: whether the same sensors measured both.
    """
    if a.value is None or b.value is None:
        return False
    ahead = a.value - b.value if larger else b.value - a.value
    return ahead > 0 and ahead > _doubt(a, b, one_machine)


def dominates(a: Point, b: Point, larger: tuple[bool, bool]) -> bool:
    """Whether a dominates b."""
    one_machine = a.machine == b.machine
    better = [
        surely_better(own, other, larger=more, one_machine=one_machine)
        for own, other, more in zip(a.figures, b.figures, larger, strict=True)
    ]
    alike = [
        own.value == other.value and _doubt(own, other, one_machine) == 0
        for own, other in zip(a.figures, b.figures, strict=True)
    ]
    return any(better) and all(sure or same for sure, same in zip(better, alike, strict=True))


def fronts(
    windows: Iterable[Mapping[str, Any]], names: tuple[str, str], figures: Mapping[tuple[str, str], Mapping[str, Figure]]
) -> dict[str, Any]:
    """The fronts over two figures, one for each group that may be compared.

    Args:
        windows: `machine`, `window`, `kind` and `workload` of each window.
        names: of the two figures.
        figures: all figures of each window, by machine and window.

    Returns:
        `figures`, `larger_is_better`, `groups` (`workload`, `known` in words, and `points`: each with its
        `dominated_by`) and `left_out`, the windows without one of the two, with the reasons.

    Raises:
        InputError: of a name it is not known which way is better, or no window has such a figure.
    """
    larger = (larger_is_better(names[0]), larger_is_better(names[1]))
    groups: dict[tuple[str, ...], list[Point]] = {}
    left_out, known = [], False
    for window in windows:
        if window["kind"] != "steady":
            continue
        own = figures[window["machine"], window["cell"]]
        found = [own.get(name) for name in names]
        known = known or all(figure is not None for figure in found)
        reasons = [text for name, figure in zip(names, found, strict=True) for text in _absent(name, figure)]
        first, second = found
        if reasons or first is None or second is None:
            left_out.append({"machine": window["machine"], "cell": window["cell"], "reasons": reasons})
            continue
        groups.setdefault((str(window["workload"]), *_kind(first), *_kind(second)), []).append(
            Point(window["cell"], window["machine"], (first, second))
        )
    lacking = [name for name in names if not any(name in own for own in figures.values())]
    if lacking and figures:
        unknown = ", ".join(lacking)
        raise InputError(f"metrics.pareto: no window has a figure {unknown}; docs/reference/files.md lists them")
    return {
        "figures": list(names),
        "larger_is_better": list(larger),
        "groups": [_group(key, points, larger) for key, points in groups.items()],
        "left_out": left_out,
    }


def _group(key: tuple[str, ...], points: list[Point], larger: tuple[bool, bool]) -> dict[str, Any]:
    return {
        "workload": key[0],
        "known": [" · ".join(part for part in key[1:4] if part), " · ".join(part for part in key[4:7] if part)],
        "points": [
            {
                "machine": point.machine,
                "cell": point.window,
                "values": [figure.value for figure in point.figures],
                "dominated_by": [
                    {"machine": other.machine, "cell": other.window}
                    for other in points
                    if other is not point and dominates(other, point, larger)
                ],
            }
            for point in points
        ],
    }


def _kind(figure: Figure) -> tuple[str, str, str]:
    """What must be the same for two figures to be compared."""
    basis = "" if figure.basis == "none" else figure.basis
    return basis, figure.boundary, figure.grade if figure.grade in _MODELS else ""


def _absent(name: str, figure: Figure | None) -> list[str]:
    if figure is None:
        return [f"There is no {name}."]
    return [] if figure.valid else [each.detail for each in figure.reasons]


def _doubt(a: Figure, b: Figure, one_machine: bool) -> float:
    """D: the length of the difference of two vectors, whose parts are 95 % half widths; see above."""
    (common_a, own_a), (common_b, own_b) = _parts(a), _parts(b)
    squares = [own_a**2, own_b**2]
    for name in SCALE:
        x, y = common_a.get(name, 0.0), common_b.get(name, 0.0)
        squares.append((x - y) ** 2 if one_machine else x**2 + y**2)
    return math.sqrt(sum(squares))


def _parts(figure: Figure) -> tuple[dict[str, float], float]:
    """The 95 % half widths of what a figure shares with all others of its machine, and of what is its own."""
    common = {term.name: COMMON_FACTOR * term.u for term in terms_of(figure) if term.name in SCALE}
    return common, math.sqrt(max(half_width(figure) ** 2 - sum(u**2 for u in common.values()), 0.0))
