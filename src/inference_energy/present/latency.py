"""Tables of latency: percentiles with their intervals, and the limits that requests kept or broke."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.formats import Scale, place, scale_for, whole
from inference_energy.present.sections import cell_title
from inference_energy.present.tables import Cell, Table

Cells = Sequence[dict[str, Any]]

RANKS = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9"}
LATENCIES = {
    "ttft": "TTFT from send",
    "ttft_from_schedule": "TTFT from schedule",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "end to end from send",
    "e2e_from_schedule": "end to end from schedule",
    "queue": "queueing in the server",
    "failed_ttft": "failed: TTFT",
    "failed_e2e": "failed: until the failure",
}
LIMITS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "longest time between tokens", "e2e_s": "end to end"}
PERCENT = Scale(100.0, "%")


def latency_table(cells: Cells) -> Table:
    """A row for each latency of a cell; one unit for each latency over all cells."""
    present = [name for name in LATENCIES if any(_figures(cell, name) for cell in cells)]
    ranks = [rank for rank in RANKS if any(_name(latency, rank) in c["figures"] for c in cells for latency in present)]
    scales = {name: _scale(cells, name) for name in present}
    table = Table(["latency", *[RANKS[rank] for rank in ranks], "mean"])
    for cell in cells:
        table.heading(cell_title(cell, cells))
        for name in present:
            if not _figures(cell, name):
                continue
            scale = scales[name]
            shown = [place(cell["figures"].get(_name(name, rank)), scale) for rank in ranks]
            unit = scale.unit.split(" / ")[0] if scale else ""
            label = f"{LATENCIES[name]} ({unit})" if unit else LATENCIES[name]
            mean = cell["figures"].get(f"{name}_mean_s")
            table.add(
                Cell(label, "head"), *table.numbers(shown), table.number(place(mean, scale)) if mean else Cell("–")
            )
    return table


def limits_table(cells: Cells) -> Table | None:
    """How many requests kept all limits, and how many broke each; None where no limit is configured."""
    limited = [cell for cell in cells if (cell.get("checks") or {}).get("limits")]
    if not limited:
        return None
    names = [name for name in LIMITS if any(name in cell["checks"]["limits"] for cell in limited)]
    scale = scale_for([_value(cell, "energy_active_per_good_request_j") for cell in limited], "J/request")
    bounds = limited[0]["checks"]["limits"]
    table = Table(
        [
            "load",
            "good requests (%)",
            "goodput, requests / s",
            f"active energy per good request ({scale.unit.split(' / ')[0]})",
            *[f"{LIMITS[name]} over {bounds[name]['limit']:g} s" for name in names],
        ]
    )
    for cell in limited:
        figures, limits = cell["figures"], cell["checks"]["limits"]
        table.add(
            Cell(cell_title(cell, cells), "head"),
            table.number(place(figures.get("goodput_share"), PERCENT)),
            table.number(place(figures.get("goodput_requests_per_s"))),
            table.number(place(figures.get("energy_active_per_good_request_j"), scale)),
            *[_over(limits[name]) for name in names],
        )
    return table


def _over(row: dict[str, Any]) -> Cell:
    if row["over"] is None:
        return Cell("not known")
    return Cell(f"{whole(row['over'])} of {whole(row['of'])}", "number")


def _figures(cell: dict[str, Any], latency: str) -> list[dict[str, Any]]:
    """A latency's percentiles; a cell without a schedule has none from it."""
    found = [figure for rank in RANKS if (figure := cell["figures"].get(_name(latency, rank)))]
    unscheduled = all(any(r["code"] == "no_schedule" for r in figure.get("reasons") or ()) for figure in found)
    return [] if unscheduled else found


def _scale(cells: Cells, latency: str) -> Scale | None:
    found = [figure for cell in cells for figure in _figures(cell, latency)]
    return scale_for([figure["value"] for figure in found], found[0]["unit"]) if found else None


def _name(latency: str, rank: str) -> str:
    return f"{latency}_{rank}_s"


def _value(cell: dict[str, Any], name: str) -> float | None:
    figure = cell["figures"].get(name)
    return figure["value"] if figure else None
