"""The metric family on a terminal: the report's tables as text."""

from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from inference_energy.present.formats import UNTRUSTED_GRADES
from inference_energy.present.metrics import tables
from inference_energy.present.tables import Table

WIDTH = 180
"""Columns of text that goes into a file or a pipe."""


def print_metrics(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print every table of the family, each with the reasons that its numbers point to.

    Args:
        summary: summary.json with its `metrics`.
        console: where to; by default standard output.
    """
    out = console or Console()
    if not out.is_terminal:
        out = Console(file=out.file, width=max(out.width, WIDTH))
    cells = tables.metric_cells(summary)
    sweeps = summary["metrics"]["sweeps"]
    grades = {figure["grade"] for cell in cells for figure in cell["figures"].values()}
    for grade in UNTRUSTED_GRADES:
        if grade in grades:
            out.print(f"Power is {grade}, not measured.", style="bold", markup=False)
    _show(out, "Work for energy", tables.efficiency_table(cells))
    _show(out, "Energy of a request (total)", tables.request_table(cells))
    _show(out, "What a token costs", tables.cost_table(summary))
    _show(out, "Load proportionality", tables.sweep_table(sweeps))
    for cell, why in tables.left_out(sweeps):
        out.print(f"  not in a sweep: {cell}: {why}", markup=False, highlight=False)
    day = tables.day_table(sweeps)
    if day:
        _show(out, "A day of traffic", day)
    _show(out, "Carbon and water (total)", tables.impact_table(cells))
    _show(out, "Quality", tables.quality_table(cells))
    for title, front in tables.front_tables(summary, cells):
        _show(out, f"Pareto front: {title}", front)


def _show(out: Console, title: str, content: Table) -> None:
    if not content.rows:
        return
    out.print()
    out.print(title, style="bold", markup=False, highlight=False)
    shown = RichTable(box=None, pad_edge=False, header_style="dim")
    for place, heading in enumerate(content.columns):
        textual = place == 0 or content.textual(place)
        shown.add_column(
            _noted(heading, content.heading_notes(place)),
            justify="left" if textual else "right",
            no_wrap=place == 0,
        )
    for row in content.rows:
        if row.group:
            shown.add_row(f"[bold]{_plain(row.cells[0].text)}[/bold]")
            continue
        texts: list[str] = []
        for cell in row.cells:
            notes = content.cell_notes(cell, len(texts))
            said = f"{_plain(cell.text)}{f' ({cell.tag})' if cell.tag else ''}"
            # What a cell over several columns says would make its column as wide as itself.
            if cell.span > 1:
                said = _plain(_footnote(content, cell.text))
            texts += [_noted(said, notes), *[""] * (cell.span - 1)]
        shown.add_row(*texts)
    out.print(shown)
    if content.caption_notes:
        out.print(f"  all numbers: note {content.caption_notes[0]}", highlight=False)
    for number, text in enumerate(content.reasons, start=1):
        out.print(f"  {number}) {text}", markup=False, highlight=False)


def _footnote(content: Table, text: str) -> str:
    """The words `not given` with a note, where a cell says a whole sentence."""
    reason = text.removeprefix("not given: ")
    if reason not in content.reasons:
        content.reasons.append(reason)
    return f"not given {content.reasons.index(reason) + 1})"


def _noted(text: str, notes: tuple[int, ...]) -> str:
    return f"{text} {','.join(map(str, notes))})" if notes else text


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
