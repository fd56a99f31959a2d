"""The metric family on a terminal: the report's tables as text."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from inference_energy.contracts.documents.experiment import MetricsDocument, SummaryDocument
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES
from inference_energy.present.metrics import tables
from inference_energy.present.tables import Row, Table

WIDTH = 240
"""Columns of text in a file or a pipe."""
MAX_HEADING = 20
"""Longer headings are broken into lines."""


def print_metrics(summary: SummaryDocument, metrics: MetricsDocument, console: Console | None = None) -> None:
    """Print every table of the metric family, each with its numbered reasons.

    Args:
        summary: the experiment's summary.
        metrics: its metrics.
        console: the console; by default standard output.
    """
    out = console or Console()
    if not out.is_terminal:
        out = Console(file=out.file, width=max(out.width, WIDTH))
    windows = tables.metric_windows(summary, metrics)
    sweeps = metrics.sweeps
    grades = {figure.grade for window in windows for figure in window.figures.values()}
    for grade in UNTRUSTED_GRADES:
        if grade in grades:
            out.print(f"Power is {grade}, not measured.", style="bold", markup=False)
    _show(out, "Work for energy", tables.efficiency_table(windows))
    _show(out, "Goodput for energy, and energy-delay products", tables.served_table(windows))
    _show(out, "Energy of a request, total", tables.request_table(windows))
    _show(out, "What a token costs", tables.cost_table(summary, metrics))
    _show(out, "Load proportionality", tables.sweep_table(sweeps))
    for cell, why in tables.left_out(sweeps):
        out.print(f"  not in a sweep: {cell}: {why}", markup=False, highlight=False)
    _show(out, "A day of traffic", tables.daily_table(sweeps))
    hours = tables.hours_table(sweeps)
    if hours:
        _show(out, "The day, hour by hour", hours)
    _show(out, "Carbon and water, total", tables.impact_table(windows))
    _show(out, "Quality", tables.quality_table(windows))
    for title, front in tables.front_tables(metrics, windows):
        _show(out, f"Pareto front: {title}", front)


def _show(out: Console, title: str, content: Table) -> None:
    """Print one table, whose groups have columns of the same widths."""
    if not content.rows:
        return
    rows = [[_texts(content, row)] if row.group else _texts(content, row) for row in content.rows]
    tags = {cell.tag for row in content.rows for cell in row.cells if cell.kind == "number"} - {""}
    out.print()
    out.print(", ".join([title, *sorted(tags)]), style="bold", markup=False, highlight=False)
    headings = [_noted(heading, content.heading_notes(index)) for index, heading in enumerate(content.columns)]
    widths = [
        max(_least(heading), *[len(texts[index]) for texts in rows if len(texts) > 1])
        for index, heading in enumerate(headings)
    ]
    shown = _empty(content, headings, widths, heads=True)
    for texts in rows:
        if len(texts) == 1:
            _flush(out, shown)
            out.print(texts[0][0], style="italic", markup=False, highlight=False)
            shown = _empty(content, headings, widths, heads=False)
        else:
            shown.add_row(*texts)
    _flush(out, shown)
    if content.caption_notes:
        out.print(f"  all numbers: note {content.caption_notes[0]}", highlight=False)
    for number, text in enumerate(content.reasons, start=1):
        out.print(f"  {number}) {text}", markup=False, highlight=False)


def _least(heading: str) -> int:
    """Return the columns that a heading needs; a long one is broken between words."""
    return max(min(len(heading), MAX_HEADING), *map(len, heading.split()))


def _empty(content: Table, headings: Sequence[str], widths: Sequence[int], *, heads: bool) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="dim", show_header=heads)
    for index, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        left = index == 0 or content.textual(index)
        shown.add_column(Text(heading), justify="left" if left else "right", width=width, no_wrap=index == 0)
    return shown


def _flush(out: Console, shown: RichTable) -> None:
    # The header is printed alone if a group's heading comes first.
    if shown.row_count or shown.show_header:
        out.print(shown)


def _texts(content: Table, row: Row) -> list[Any]:
    """Return the row's cells as text, one per column."""
    texts: list[str] = []
    for cell in row.cells:
        if row.group:
            return [cell.text]
        # The text of a cell over several columns would widen its first column.
        if cell.span > 1:
            texts += [_footnote(content, cell.text), *[""] * (cell.span - 1)]
        else:
            texts.append(_noted(cell.text, content.cell_notes(cell, len(texts))))
    return texts


def _footnote(content: Table, text: str) -> str:
    """Return the words `not given` with a note in place of a whole sentence."""
    reason = text.removeprefix(f"{NOT_GIVEN}: ")
    if reason not in content.reasons:
        content.reasons.append(reason)
    return f"{NOT_GIVEN} {content.reasons.index(reason) + 1})"


def _noted(text: str, notes: tuple[int, ...]) -> str:
    return f"{text} {','.join(map(str, notes))})" if notes else text
