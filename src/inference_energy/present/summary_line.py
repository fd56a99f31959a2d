"""The five lines that a run ends with: what ran, energy, carbon, what to trust, and where the report is."""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy.present.cell_tables import BASES, best_basis, carbon_per_1k, energy_per_token, model_name, verdict
from inference_energy.present.characterize import meters
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES, FormattedFigure, format_figure, scale_for
from inference_energy.present.report_inputs import all_figures, labels, steady_cells

MAX_SHOWN = 3
"""More cells than this are given as the lowest and the highest."""

WIDTH = 160
"""Longest text behind the name of a line, where its figures allow it."""


_ERROR = {"modelled": ": its error is not known"}
"""Why the figures of a grade stand without an interval, where no footnote can say it."""


def five_lines(summary: dict[str, Any], report: Path) -> str:
    """The end-of-run summary: exactly five lines, without a line break at the end.

    Energy and carbon are on one basis for all cells: the first of active, total and marginal that any cell has.

    Args:
        summary: content of summary.json.
        report: where the report lies; shown from the working directory.
    """
    cells = steady_cells(summary)
    found = {basis for cell in cells if (basis := best_basis(cell))}
    basis = next((basis for basis in BASES if basis in found), BASES[0])
    return "\n".join(
        [
            f"{'served':<9}{_served(summary, cells)}",
            f"{'energy':<9}{_figures(cells, energy_per_token(basis), 'output token')}",
            f"{'carbon':<9}{_figures(cells, carbon_per_1k(basis), '1k output tokens')}",
            f"{'trust':<9}{_trust(summary, cells)}",
            f"{'report':<9}{os.path.relpath(report)}",
        ]
    )


def _served(summary: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """Models, machines, and how the windows of steady load did in the test of steadiness."""
    models = ", ".join(dict.fromkeys(name for cell in summary["cells"] if (name := model_name(cell)))) or "no model"
    machines = ", ".join(dict.fromkeys(str(name) for name in summary.get("machines") or [])) or "no machine"
    verdicts = Counter(verdict((cell.get("checks") or {}).get("steadiness")) for cell in cells)
    tested = f"{verdicts['passed']} passed, {verdicts['not judged']} not judged, {verdicts['failed']} failed"
    return f"{models} on {machines}: {_windows(len(summary['cells']))}; test of steadiness: {tested}"


def _windows(count: int) -> str:
    return f"{count} window" + ("s" if count != 1 else "")


def _figures(cells: Sequence[dict[str, Any]], name: str, per: str) -> str:
    """The figure of each cell, or the lowest and the highest, with what was subtracted, boundary and grade."""
    named = zip(labels(cells), cells, strict=True)
    found = [(label, cell["figures"][name]) for label, cell in named if name in cell["figures"]]
    if not found:
        return f"{NOT_GIVEN}: " + ("the summary has no such figure" if cells else "no window of steady load")
    scale = scale_for([figure["value"] for _, figure in found], found[0][1]["unit"])
    given = [(load, figure) for load, figure in found if figure["valid"]]
    if not given:
        return _short(f"{NOT_GIVEN}: {format_figure(found[0][1]).why}")
    places = [(load, format_figure(figure, scale, per=per)) for load, figure in given]
    text = _joined(places)
    if len(given) > MAX_SHOWN or (len(text) > WIDTH and len(given) > 2):
        ends = [min(given, key=_value), max(given, key=_value)]
        text = _joined([(load, format_figure(figure, scale, per=per)) for load, figure in ends], " to ")
    return text


def _joined(places: Sequence[tuple[str, FormattedFigure]], between: str = "; ") -> str:
    """The figures behind their unit, which is said once; what qualifies them too, where it is the same for all."""
    same = len({_known(shown) for _, shown in places}) == 1
    texts = [f"{shown.amount} at {load}" + ("" if same else f" ({_known(shown)})") for load, shown in places]
    return f"{places[0][1].unit}: {between.join(texts)}" + (f" ({_known(places[0][1])})" if same else "")


def _value(row: tuple[str, dict[str, Any]]) -> float:
    return float(row[1]["value"])


def _known(shown: FormattedFigure) -> str:
    """Basis, boundary and grade; not the grade where the boundary says it already."""
    parts = [part for part in shown.qualifiers if part != shown.grade]
    return ", ".join(parts if f"({shown.grade})" in " ".join(parts) else shown.qualifiers)


def _trust(summary: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """How many cells have an energy and on which basis, a warning about modelled power, and the first reason."""
    found = [best_basis(cell) for cell in cells]
    counts = Counter(basis for basis in found if basis is not None)
    bases = ", ".join(f"{counts[basis]} {basis}" if len(counts) > 1 else basis for basis in BASES if counts[basis])
    text = f"{counts.total()} of {len(cells)} loads have an energy per output token" + (f" ({bases})" if bases else "")
    weak = sorted({str(figure["grade"]) for figure in all_figures(summary)} & set(UNTRUSTED_GRADES))
    text += "".join(f"; power is {grade}, not measured{_ERROR.get(grade, '')}" for grade in weak)
    against = meters(summary.get("sessions") or [])
    text += f"; calibrated against {', '.join(against)}" if against else ""
    lacking = next((cell for cell, basis in zip(cells, found, strict=True) if basis != BASES[0]), None)
    figure = lacking["figures"].get(energy_per_token(BASES[0])) if lacking else None
    if lacking is None or figure is None:
        return text
    # The reason comes last, because it is what may be cut.
    return _short(f"{text}; {lacking['cell']} has no {BASES[0]} energy: {format_figure(figure).why.rstrip('.')}")


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")
