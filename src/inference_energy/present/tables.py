"""Tables of a report: columns with units, rows of figures, and numbered reasons below, to which the cells point."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference_energy.contracts.documents.experiment import SummaryWindow
from inference_energy.present.figures_text import FormattedFigure, Scale, format_figure, scale_for

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: what it shows.
        kind: `number`, `text`, `missing`, `good`, `bad` or `head`.
        notes: numbers of the reasons below the table.
        tag: a word beside the number, such as `modelled`.
        span: how many columns it takes.
        tooltip: shown on hover.
        no_interval_note: number of the reason for a missing interval; 0 if it has one or needs none.
    """

    text: str
    kind: str = "text"
    notes: tuple[int, ...] = ()
    tag: str = ""
    span: int = 1
    tooltip: str = ""
    no_interval_note: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a table, or with `group` a heading over the rows below."""

    cells: tuple[TableCell, ...]
    group: bool = False


@dataclass
class Table:
    """A table that grows row by row and collects its reasons.

    The first cell of each row is its heading. `columns` are the headings with their units.
    """

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def textual(self, index: int) -> bool:
        """Return whether a column holds words, which are left-aligned, rather than numbers."""
        kinds = {cell.kind for cell in self._column(index)}
        return bool(kinds) and kinds <= {"head", "text", "good", "bad"}

    def add(self, *cells: TableCell) -> None:
        """Add a row."""
        self.rows.append(Row(cells))

    def heading(self, text: str) -> None:
        """Add a heading over the rows below."""
        self.rows.append(Row((TableCell(text, "head", span=len(self.columns)),), group=True))

    def number(self, shown: FormattedFigure, *, tagged: bool = True) -> TableCell:
        """Return the cell of a figure and list its reasons below the table.

        Args:
            shown: the figure.
            tagged: whether the cell names an untrusted grade.
        """
        notes = tuple(self._note(reason) for reason in shown.reasons)
        tag = shown.grade if tagged and shown.untrusted and shown.has_value else ""
        if not shown.has_value:
            return TableCell("not given", "missing", notes)
        no_interval = self._note(shown.no_interval_reason) if shown.no_interval_reason else 0
        text = shown.text_without_unit.replace(" ", "\u00a0")
        return TableCell(text, "number", notes, tag, tooltip=shown.tooltip, no_interval_note=no_interval)

    def numbers(self, shown: Sequence[FormattedFigure], *, tagged: bool = True) -> list[TableCell]:
        """Return the cells of several figures; if all are missing for one reason, one wide cell gives it."""
        if len(shown) > 1 and not any(figure.has_value for figure in shown) and len({f.reasons for f in shown}) == 1:
            return [TableCell(f"not given: {shown[0].why}", "missing", span=len(shown))]
        return [self.number(figure, tagged=tagged) for figure in shown]

    @property
    def caption_notes(self) -> tuple[int, ...]:
        """The reason that none of the table's numbers has an interval, if one holds for all."""
        return _shared([cell for row in self.rows for cell in row.cells])

    def heading_notes(self, index: int) -> tuple[int, ...]:
        """Return the reason that none of a column's numbers has an interval; empty if the caption gives it."""
        return () if self.caption_notes else _shared(self._column(index))

    def cell_notes(self, cell: TableCell, index: int) -> tuple[int, ...]:
        """Return the numbers of the reasons to show beside a cell."""
        noted_elsewhere = not cell.no_interval_note or self.caption_notes or self.heading_notes(index)
        return cell.notes if noted_elsewhere else (*cell.notes, cell.no_interval_note)

    def label(self, index: int) -> str:
        """Return a column's heading with its notes, which narrow pages repeat beside each cell."""
        notes = " ".join(str(note).translate(_RAISED) for note in self.heading_notes(index))
        return f"{self.columns[index]} {notes}".strip()

    def _column(self, index: int) -> list[TableCell]:
        cells = []
        for row in self.rows:
            position = 0
            for cell in () if row.group else row.cells:
                if position == index and cell.span == 1:
                    cells.append(cell)
                position += cell.span
        return cells

    def _note(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


@dataclass(frozen=True)
class Column:
    """A column of figures: their name in the summary, the heading, and the unit that all windows share."""

    name: str
    heading: str
    scale: Scale | None
    digits: int

    def read(self, window: SummaryWindow) -> FormattedFigure:
        """Format the window's figure."""
        return format_figure(window.figures.get(self.name), self.scale, digits=self.digits)


def column(windows: Sequence[SummaryWindow], heading: str, *names: str, digits: int = 3) -> list[Column]:
    """Return columns (or rows) of figures in one unit, so that they can be compared.

    Args:
        windows: the summary's windows.
        heading: the heading, to which the part of the unit before the slash is added.
        names: names of the windows' figures.
        digits: significant digits.
    """
    figures = [figure for window in windows for name in names if (figure := window.figures.get(name))]
    if not figures:
        return [Column(name, heading, None, digits) for name in names]
    units = {figure.unit for figure in figures}
    if len(units) > 1:
        return [Column(name, heading, None, digits) for name in names]
    scale = scale_for([figure.value for figure in figures], units.pop())
    # The heading already has the part after the slash: "per request (J)", "output tokens / s".
    unit = scale.unit.split(" / ")[0]
    unit_in_heading = unit in heading or unit in COUNTED or unit.startswith("per ")
    return [Column(name, heading if unit_in_heading else f"{heading} ({unit})", scale, digits) for name in names]


def _shared(cells: Sequence[TableCell]) -> tuple[int, ...]:
    notes = {cell.no_interval_note for cell in cells if cell.kind == "number"}
    return tuple(notes) if len(notes) == 1 and 0 not in notes else ()


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

COUNTED = ("tokens", "requests")


def print_whole(table: "rich.table.Table") -> None:
    """Print a table on the terminal with no name or number cut off.

    Columns that may be wrapped are, down to their longest word. Where even that is wider than the terminal, lines are
    longer than it.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    unbounded = console.options.update(max_width=10_000)
    least = 1
    for column in table.columns:
        sizes = [Measurement.get(console, unbounded, cell) for cell in (column.header, *column.cells)]
        column.overflow = "fold"
        least += 3 + max(size.maximum if column.no_wrap else size.minimum for size in sizes)
    Console(width=max(console.width, least)).print(table)
