"""The idle powers of each session, side by side in one unit, with their intervals and what was odd about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.present.formats import Place, place, scale_for

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
    place: Place
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
                Bar(name, meaning, place(row.get(key), scale), *_lengths(row.get(key), largest))
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
