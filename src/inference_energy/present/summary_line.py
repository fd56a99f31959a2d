"""The five lines that a run ends with: what ran, energy, carbon, what to trust, and where the report is."""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy.present.cell_tables import BASES, best_basis, carbon_per_1k, energy_per_token, model_name, verdict
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES, FormattedFigure, format_figure, scale_for
from inference_energy.present.method_facts import meters
from inference_energy.present.report_inputs import all_figures, labels, steady_cells

MAX_SHOWN = 3
"""More windows than this are summarized by the lowest and the highest."""

WIDTH = 160
"""Longest text after the name of a line, unless its figures need more."""


_ERROR = {"modelled": ": its error is not known"}
"""Why figures of a grade have no interval, because the line has no footnotes."""


def five_lines(summary: dict[str, Any], report: Path) -> str:
    """Return the end-of-run summary: exactly five lines, without a final line break.

    Energy and carbon are on one basis for all windows: the first of active, total and marginal that any window has.

    Args:
        summary: content of summary.json.
        report: path of the report; shown relative to the working directory.
    """
    cells = steady_cells(summary)
    bases = {basis for cell in cells if (basis := best_basis(cell))}
    basis = next((basis for basis in BASES if basis in bases), BASES[0])
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
    """Return models, machines, and the results of the steadiness test."""
    models = ", ".join(dict.fromkeys(name for cell in summary["cells"] if (name := model_name(cell)))) or "no model"
    machines = ", ".join(dict.fromkeys(str(name) for name in summary.get("machines") or [])) or "no machine"
    verdicts = Counter(verdict((cell.get("checks") or {}).get("steadiness")) for cell in cells)
    tested = f"{verdicts['passed']} passed, {verdicts['not judged']} not judged, {verdicts['failed']} failed"
    return f"{models} on {machines}: {_windows(len(summary['cells']))}; test of steadiness: {tested}"


def _windows(count: int) -> str:
    return f"{count} window" + ("s" if count != 1 else "")


def _figures(cells: Sequence[dict[str, Any]], name: str, per: str) -> str:
    """Return the figure of each window, or the lowest and the highest, with basis, boundary and grade."""
    named = zip(labels(cells), cells, strict=True)
    figures = [(label, cell["figures"][name]) for label, cell in named if name in cell["figures"]]
    if not figures:
        return f"{NOT_GIVEN}: " + ("the summary has no such figure" if cells else "no window of steady load")
    scale = scale_for([figure["value"] for _, figure in figures], figures[0][1]["unit"])
    valid = [(load, figure) for load, figure in figures if figure["valid"]]
    if not valid:
        return _short(f"{NOT_GIVEN}: {format_figure(figures[0][1]).why}")
    formatted = [(load, format_figure(figure, scale, per=per)) for load, figure in valid]
    text = _joined(formatted)
    if len(valid) > MAX_SHOWN or (len(text) > WIDTH and len(valid) > 2):
        ends = [min(valid, key=_value), max(valid, key=_value)]
        text = _joined([(load, format_figure(figure, scale, per=per)) for load, figure in ends], " to ")
    return text


def _joined(figures: Sequence[tuple[str, FormattedFigure]], between: str = "; ") -> str:
    """Return the figures after their unit, and their qualifiers once if all share them."""
    texts = [f"{figure.text_without_unit} at {load}" for load, figure in figures]
    qualifiers = [f" ({_qualifiers(figure)})" for _, figure in figures]
    unit = figures[0][1].unit
    if len(set(qualifiers)) == 1:
        return f"{unit}: {between.join(texts)}{qualifiers[0]}"
    return f"{unit}: {between.join(text + qualifier for text, qualifier in zip(texts, qualifiers, strict=True))}"


def _value(row: tuple[str, dict[str, Any]]) -> float:
    return float(row[1]["value"])


def _qualifiers(shown: FormattedFigure) -> str:
    """Return basis, boundary and grade; the grade is dropped if the boundary names it."""
    parts = [part for part in shown.qualifiers if part != shown.grade]
    return ", ".join(parts if f"({shown.grade})" in " ".join(parts) else shown.qualifiers)


def _trust(summary: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """Return how many windows have an energy and on which basis, a warning about modelled power, and a reason."""
    bases_by_cell = [best_basis(cell) for cell in cells]
    counts = Counter(basis for basis in bases_by_cell if basis is not None)
    bases = ", ".join(f"{counts[basis]} {basis}" if len(counts) > 1 else basis for basis in BASES if counts[basis])
    text = f"{counts.total()} of {len(cells)} loads have an energy per output token" + (f" ({bases})" if bases else "")
    weak = sorted({str(figure["grade"]) for figure in all_figures(summary)} & set(UNTRUSTED_GRADES))
    text += "".join(f"; power is {grade}, not measured{_ERROR.get(grade, '')}" for grade in weak)
    against = meters(summary.get("sessions") or [])
    text += f"; calibrated against {', '.join(against)}" if against else ""
    lacking = next((cell for cell, basis in zip(cells, bases_by_cell, strict=True) if basis != BASES[0]), None)
    figure = lacking["figures"].get(energy_per_token(BASES[0])) if lacking else None
    if lacking is None or figure is None:
        return text
    # The reason comes last, because the end may be cut.
    return _short(f"{text}; {lacking['cell']} has no {BASES[0]} energy: {format_figure(figure).why.rstrip('.')}")


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")
