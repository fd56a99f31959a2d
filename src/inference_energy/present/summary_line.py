"""The five lines that a run ends with: what ran, energy, carbon, what to trust, and where the report is."""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.contracts.figure import Figure
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES, FormattedFigure, format_figure, scale_for
from inference_energy.present.method_facts import meters
from inference_energy.present.report_inputs import Windows, all_figures, labels, steady_windows
from inference_energy.present.window_tables import (
    BASES,
    best_basis,
    carbon_per_1k,
    energy_per_token,
    steadiness_verdict,
)

MAX_SHOWN = 3
"""More windows than this are summarized by the lowest and the highest."""

WIDTH = 160
"""Longest text after the name of a line, unless its figures need more."""


_ERROR = {"modelled": ": its error is not known"}
"""Why figures of a grade have no interval, because the line has no footnotes."""


def five_lines(summary: SummaryDocument, report: Path) -> str:
    """Return the end-of-run summary: exactly five lines, without a final line break.

    Energy and carbon are on one basis for all windows: the first of active, total and marginal that any window has.

    Args:
        summary: the experiment's summary.
        report: path of the report; shown relative to the working directory.
    """
    windows = steady_windows(summary)
    bases = {basis for window in windows if (basis := best_basis(window))}
    basis = next((basis for basis in BASES if basis in bases), BASES[0])
    return "\n".join(
        [
            f"{'served':<9}{_served(summary, windows)}",
            f"{'energy':<9}{_figures(windows, energy_per_token(basis), 'output token')}",
            f"{'carbon':<9}{_figures(windows, carbon_per_1k(basis), '1k output tokens')}",
            f"{'trust':<9}{_trust(summary, windows)}",
            f"{'report':<9}{os.path.relpath(report)}",
        ]
    )


def _served(summary: SummaryDocument, windows: Windows) -> str:
    """Return models, machines, and the results of the steadiness test."""
    models = ", ".join(dict.fromkeys(window.model for window in summary.cells if window.model)) or "no model"
    machines = ", ".join(dict.fromkeys(summary.machines)) or "no machine"
    verdicts = Counter(steadiness_verdict(window.checks.steadiness) for window in windows)
    tested = f"{verdicts['passed']} passed, {verdicts['not judged']} not judged, {verdicts['failed']} failed"
    return f"{models} on {machines}: {_windows(len(summary.cells))}; test of steadiness: {tested}"


def _windows(count: int) -> str:
    return f"{count} window" + ("s" if count != 1 else "")


def _figures(windows: Windows, name: str, per: str) -> str:
    """Return the figure of each window, or the lowest and the highest, with basis, boundary and grade."""
    named = zip(labels(windows), windows, strict=True)
    figures = [(label, window.figures[name]) for label, window in named if name in window.figures]
    if not figures:
        return f"{NOT_GIVEN}: " + ("the summary has no such figure" if windows else "no window of steady load")
    scale = scale_for([figure.value for _, figure in figures], figures[0][1].unit)
    valid = [(load, figure) for load, figure in figures if figure.valid]
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


def _value(row: tuple[str, Figure]) -> float:
    return row[1].value or 0.0


def _qualifiers(shown: FormattedFigure) -> str:
    """Return basis, boundary and grade; the grade is dropped if the boundary names it."""
    parts = [part for part in shown.qualifiers if part != shown.grade]
    return ", ".join(parts if f"({shown.grade})" in " ".join(parts) else shown.qualifiers)


def _trust(summary: SummaryDocument, windows: Windows) -> str:
    """Return how many windows have an energy and on which basis, a warning about modelled power, and a reason."""
    bases_by_window = [best_basis(window) for window in windows]
    counts = Counter(basis for basis in bases_by_window if basis is not None)
    bases = ", ".join(f"{counts[basis]} {basis}" if len(counts) > 1 else basis for basis in BASES if counts[basis])
    text = f"{counts.total()} of {len(windows)} loads have an energy per output token" + (
        f" ({bases})" if bases else ""
    )
    weak = sorted({figure.grade for figure in all_figures(summary)} & set(UNTRUSTED_GRADES))
    text += "".join(f"; power is {grade}, not measured{_ERROR.get(grade, '')}" for grade in weak)
    against = meters(summary.sessions)
    text += f"; calibrated against {', '.join(against)}" if against else ""
    lacking = next((window for window, basis in zip(windows, bases_by_window, strict=True) if basis != BASES[0]), None)
    figure = lacking.figures.get(energy_per_token(BASES[0])) if lacking else None
    if lacking is None or figure is None:
        return text
    # The reason comes last, because the end may be cut.
    return _short(f"{text}; {lacking.cell} has no {BASES[0]} energy: {format_figure(figure).why.rstrip('.')}")


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")
