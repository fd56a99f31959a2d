"""Tables of a report: columns with units, rows of places, and below them the reasons that the rows point to.

Tables of a report: columns with units, rows of places, and below them the reasons that the rows point to.

The idle powers of each session, side by side in one unit, with their intervals and what was odd about them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference_energy.present.figures_text import FormattedFigure, Scale, format_figure, scale_for


@dataclass(frozen=True)
class TableCell:
    """One cell: `text`, the numbers of the reasons below the table, and how it looks.

    `kind` is `number`, `text`, `missing`, `good`, `bad` or `head`; `tag` is a word beside the number, such as
    `modelled`; `span` is how many columns it takes. `tip` is shown to who points at it. `unbounded` is the number of
    the reason why it has no interval, 0 where it has one or needs none.
    """

    text: str
    kind: str = "text"
    notes: tuple[int, ...] = ()
    tag: str = ""
    span: int = 1
    tip: str = ""
    unbounded: int = 0


@dataclass(frozen=True)
class Row:
    """A row; with `group` set it is a heading over the rows that follow."""

    cells: tuple[TableCell, ...]
    group: bool = False


@dataclass
class Table:
    """A table that grows row by row and gathers its reasons.

    Each row's first cell is its heading. `columns` are the headings with their units.
    """

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def textual(self, index: int) -> bool:
        """Whether the column with this index holds words, which stand left, and not numbers."""
        kinds = {cell.kind for cell in self._column(index)}
        return bool(kinds) and kinds <= {"head", "text", "good", "bad"}

    def add(self, *cells: TableCell) -> None:
        """Add a row."""
        self.rows.append(Row(cells))

    def heading(self, text: str) -> None:
        """Add a heading over the rows that follow."""
        self.rows.append(Row((TableCell(text, "head", span=len(self.columns)),), group=True))

    def number(self, shown: FormattedFigure, *, tagged: bool = True) -> TableCell:
        """The cell of a figure; its reasons are listed below the table. `tagged`: modelled figures say so here."""
        notes = tuple(self._note(reason) for reason in shown.reasons)
        tag = shown.grade if tagged and shown.modelled and shown.given else ""
        if not shown.given:
            return TableCell("not given", "missing", notes)
        missed = self._note(shown.unbounded) if shown.unbounded else 0
        return TableCell(shown.amount.replace(" ", "\u00a0"), "number", notes, tag, tip=shown.tip, unbounded=missed)

    def numbers(self, shown: Sequence[FormattedFigure], *, tagged: bool = True) -> list[TableCell]:
        """The cells of several figures; figures all missing for the same reason share one wide cell that says it."""
        if len(shown) > 1 and not any(one.given for one in shown) and len({one.reasons for one in shown}) == 1:
            return [TableCell(f"not given: {shown[0].why}", "missing", span=len(shown))]
        return [self.number(one, tagged=tagged) for one in shown]

    @property
    def caption_notes(self) -> tuple[int, ...]:
        """Why the table's numbers have no interval, where it is one reason for all of them."""
        return _shared([cell for row in self.rows for cell in row.cells])

    def heading_notes(self, index: int) -> tuple[int, ...]:
        """Why a column's numbers have no interval, where that is one reason; empty where the caption says it."""
        return () if self.caption_notes else _shared(self._column(index))

    def cell_notes(self, cell: TableCell, index: int) -> tuple[int, ...]:
        """The numbers of the reasons that stand beside a cell."""
        said = not cell.unbounded or self.caption_notes or self.heading_notes(index)
        return cell.notes if said else (*cell.notes, cell.unbounded)

    def label(self, index: int) -> str:
        """A column's heading with its notes, for narrow pages, where it stands beside each cell."""
        notes = " ".join(str(note).translate(_RAISED) for note in self.heading_notes(index))
        return f"{self.columns[index]} {notes}".strip()

    def _column(self, index: int) -> list[TableCell]:
        found = []
        for row in self.rows:
            position = 0
            for cell in () if row.group else row.cells:
                if position == index and cell.span == 1:
                    found.append(cell)
                position += cell.span
        return found

    def _note(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


@dataclass(frozen=True)
class Column:
    """A column of figures: their name in the summary, the heading, and the unit they share over all cells."""

    name: str
    heading: str
    scale: Scale | None
    digits: int

    def read(self, cell: dict[str, Any]) -> FormattedFigure:
        """The cell's figure as it is shown."""
        return format_figure(cell["figures"].get(self.name), self.scale, digits=self.digits)


def column(cells: Sequence[dict[str, Any]], heading: str, *names: str, digits: int = 3) -> list[Column]:
    """Columns (or rows) of figures that share one unit, so that they can be compared.

    Args:
        cells: the summary's cells.
        heading: what the column is called; the unit is added to it, without what is after the slash.
        names: names of figures in the cells.
        digits: significant digits.
    """
    figures = [figure for cell in cells for name in names if (figure := cell["figures"].get(name))]
    if not figures:
        return [Column(name, heading, None, digits) for name in names]
    units = {figure["unit"] for figure in figures}
    if len(units) > 1:
        return [Column(name, heading, None, digits) for name in names]
    scale = scale_for([figure["value"] for figure in figures], units.pop())
    # What is after the slash stands in the heading already: "per request (J)", "output tokens / s".
    unit = scale.unit.split(" / ")[0]
    told = unit in heading or unit in COUNTED or unit.startswith("per ")
    return [Column(name, heading if told else f"{heading} ({unit})", scale, digits) for name in names]


def _shared(cells: Sequence[TableCell]) -> tuple[int, ...]:
    notes = {cell.unbounded for cell in cells if cell.kind == "number"}
    return tuple(notes) if len(notes) == 1 and 0 not in notes else ()


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

COUNTED = ("tokens", "requests")


IDLE = (
    ("cold", "before the server starts; subtracted by active figures", "cold_power_w"),
    ("loaded", "server up, no request; subtracted by marginal figures", "loaded_power_w"),
    ("post", "after the server has gone; subtracted by none, compared with cold to find drift", "post_power_w"),
)


@dataclass(frozen=True)
class Bar:
    """One idle power; `share`, `low` and `high` are the lengths of its bar and of its interval's ends, 0 to 1."""

    name: str
    meaning: str
    place: FormattedFigure
    share: float
    low: float
    high: float

    @property
    def notes(self) -> list[str]:
        """Why it is not given, outliers and trends, or why it has no interval."""
        return [*self.place.reasons, *([self.place.unbounded] if self.place.unbounded else [])]


@dataclass(frozen=True)
class IdleRow:
    """Idle powers of one session."""

    name: str
    bars: list[Bar]


def idle_rows(idle: Sequence[dict[str, Any]]) -> list[IdleRow]:
    """The three idle powers of each session, in one unit."""
    given = [f for row in idle for _, _, key in IDLE if (f := row.get(key)) and f["valid"] and f["value"] is not None]
    scale = scale_for([figure["value"] for figure in given], "W")
    ends = [max(figure["interval_95"] or (figure["value"],)) for figure in given]
    largest = max(ends, default=1.0) or 1.0
    return [
        IdleRow(
            name=" · ".join(str(row[key]) for key in ("session", "server", "machine") if row.get(key)),
            bars=[
                Bar(name, meaning, format_figure(row.get(key), scale), *_lengths(row.get(key), largest))
                for name, meaning, key in IDLE
            ],
        )
        for row in idle
    ]


def _lengths(figure: dict[str, Any] | None, largest: float) -> tuple[float, float, float]:
    if not figure or not figure["valid"] or figure["value"] is None:
        return 0.0, 0.0, 0.0
    value = figure["value"]
    low, high = figure["interval_95"] or (value, value)
    share, first, last = (min(max(each / largest, 0.0), 1.0) for each in (value, low, high))
    return share, first, last
