"""Tables of the load: what was offered and sent, the counts against the server's, and what the client took itself."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.checks import lag
from inference_energy.present.formats import Scale, place, whole
from inference_energy.present.latency import PERCENT
from inference_energy.present.sections import cell_title
from inference_energy.present.tables import Cell, Table

Cells = Sequence[dict[str, Any]]

KINDS = {"generated": "generated tokens", "prompt": "prompt tokens", "cached": "cached tokens"}
MILLISECONDS = Scale(1000.0, "ms")


def rates_table(cells: Cells) -> Table:
    """Offered, sent and ended requests a second of each cell, and how late they were sent."""
    table = Table(
        [
            "load",
            "offered, requests / s",
            "sent, requests / s",
            "sent of offered (%)",
            "ended, requests / s",
            "sent late",
        ]
    )
    for cell in cells:
        figures = cell["figures"]
        rates = ("offered_requests_per_s", "sent_requests_per_s", "achieved_share", "requests_per_s")
        shown = [place(figures.get(name), PERCENT if name == "achieved_share" else None) for name in rates]
        lateness = lag((cell.get("checks") or {}).get("client_lag_s"))
        table.add(Cell(cell_title(cell, cells), "head"), *[table.number(one) for one in shown], lateness)
    return table


def counts_table(cells: Cells) -> Table:
    """Totals of each whole cell against the rise of the server's counters, to the token."""
    table = Table(["counted", "client", "server", "client − server", "because"])
    for cell in cells:
        found = (cell.get("checks") or {}).get("whole_cell")
        table.heading(cell_title(cell, cells))
        if not found or found.get("why"):
            why = found["why"] if found else "the summary has no such comparison"
            table.add(Cell("totals", "head"), Cell(f"not compared: {why}", "missing", span=4))
            continue
        for kind, label in KINDS.items():
            row = found["tokens"].get(kind)
            if row is None:
                table.add(Cell(label, "head"), Cell("not told by the server or in its answers", "missing", span=4))
                continue
            table.add(Cell(label, "head"), *_counted(row["client"], row["server"]), _because(row))
        for finish, row in found["finished"].items():
            if row["server"] is None:
                continue
            same = row["client"] == row["server"]
            verdict = Cell("agree exactly", "good") if same else Cell("differ")
            label = f"requests: {finish.replace('_', ' ')}"
            table.add(Cell(label, "head"), *_counted(row["client"], row["server"]), verdict)
        lengths = (cell.get("checks") or {}).get("prompt_lengths")
        if lengths:
            table.add(Cell("prompt lengths", "head"), _lengths(lengths))
    return table


def client_table(cells: Cells) -> Table | None:
    """What the load client took of the machine; None where no session recorded it."""
    known = [cell for cell in cells if cell.get("client")]
    if not known:
        return None
    headings = [
        "load",
        "CPU time (s)",
        "CPU per 1k output tokens (ms)",
        "of the machine's busy CPU time (%)",
        "memory (MB)",
        "its energy (J), modelled",
        "of the node's energy (%), modelled",
    ]
    table = Table(headings)
    for cell in known:
        client = cell["client"]
        figures, memory = client["figures"], client["peak_rss_bytes"]
        table.add(
            Cell(cell_title(cell, cells), "head"),
            Cell(f"{client['cpu_s']:.2f}", "number"),
            table.number(place(figures.get("cpu_s_per_1k_output_tokens"), MILLISECONDS)),
            table.number(place(figures.get("share_of_busy_cpu"), PERCENT)),
            Cell("–" if memory is None else whole(memory / 1e6), "number"),
            *table.numbers(
                [place(figures.get("energy_j"), Scale(1.0, "J")), place(figures.get("share_of_energy"), PERCENT)],
            ),
        )
    return table


def _counted(client: int, server: int) -> list[Cell]:
    difference = client - server
    text = f"{difference:+,}".replace("-", "−") if difference else "0"
    return [Cell(whole(client), "number"), Cell(whole(server), "number"), Cell(text, "number")]


def _because(row: dict[str, Any]) -> Cell:
    if not row["difference"]:
        return Cell("agree exactly", "good")
    if not row["causes"]:
        return Cell("nothing recorded explains it", "bad")
    text = "; ".join(row["causes"])
    if row["unexplained"]:
        return Cell(f"{text}; not explained: {whole(abs(row['unexplained']))}", "bad")
    return Cell(text)


def _lengths(found: dict[str, Any]) -> Cell:
    """How many prompts had the length that was asked for."""
    if not found["different"]:
        return Cell(f"all {whole(found['compared'])} as asked for", "good", span=4)
    share = f"{whole(found['different'])} of {whole(found['compared'])} ({100 * found['share']:.1f} %)"
    return Cell(f"{share} other than asked for, {found['mean_difference']:+.1f} tokens on average", span=4)
