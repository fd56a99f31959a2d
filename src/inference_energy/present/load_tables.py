"""The report's section on load: offered and sent rates, counts against the server's, and the client's own cost."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.cell_tables import cell_title, send_lag
from inference_energy.present.figures_text import PERCENT, Scale, format_figure, whole
from inference_energy.present.tables import Table, TableCell

Cells = Sequence[dict[str, Any]]

KINDS = {"generated": "generated tokens", "prompt": "prompt tokens", "cached": "cached tokens"}
MILLISECONDS = Scale(1000.0, "ms")


def rates_table(cells: Cells) -> Table:
    """Tabulate offered, sent and ended requests per second of each window, and the send lag."""
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
        shown = [format_figure(figures.get(name), PERCENT if name == "achieved_share" else None) for name in rates]
        send_lag_cell = send_lag((cell.get("checks") or {}).get("client_lag_s"))
        table.add(
            TableCell(cell_title(cell, cells), "head"), *[table.number(figure) for figure in shown], send_lag_cell
        )
    return table


def counts_table(cells: Cells) -> Table:
    """Tabulate the token and request totals of each whole window against the increase of the server's counters."""
    table = Table(["counted", "client", "server", "client − server", "because"])
    for cell in cells:
        comparison = (cell.get("checks") or {}).get("whole_cell")
        table.heading(cell_title(cell, cells))
        if not comparison or comparison.get("why"):
            why = comparison["why"] if comparison else "the summary has no such comparison"
            table.add(TableCell("totals", "head"), TableCell(f"not compared: {why}", "missing", span=4))
            continue
        for kind, label in KINDS.items():
            row = comparison["tokens"].get(kind)
            if row is None:
                table.add(
                    TableCell(label, "head"), TableCell("not told by the server or in its answers", "missing", span=4)
                )
                continue
            table.add(TableCell(label, "head"), *_counted(row["client"], row["server"]), _because(row))
        for finish, row in comparison["finished"].items():
            if row["server"] is None:
                continue
            same = row["client"] == row["server"]
            verdict = TableCell("agree exactly", "good") if same else TableCell("differ")
            label = f"requests: {finish.replace('_', ' ')}"
            table.add(TableCell(label, "head"), *_counted(row["client"], row["server"]), verdict)
        lengths = (cell.get("checks") or {}).get("prompt_lengths")
        if lengths:
            table.add(TableCell("prompt lengths", "head"), _lengths(lengths))
    return table


def client_table(cells: Cells) -> Table | None:
    """Tabulate the load client's share of the machine; None if no session recorded it."""
    with_client = [cell for cell in cells if cell.get("client")]
    if not with_client:
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
    for cell in with_client:
        client = cell["client"]
        figures, memory = client["figures"], client["peak_rss_bytes"]
        table.add(
            TableCell(cell_title(cell, cells), "head"),
            TableCell(f"{client['cpu_s']:.2f}", "number"),
            table.number(format_figure(figures.get("cpu_s_per_1k_output_tokens"), MILLISECONDS)),
            table.number(format_figure(figures.get("share_of_busy_cpu"), PERCENT)),
            TableCell("–" if memory is None else whole(memory / 1e6), "number"),
            *table.numbers(
                [
                    format_figure(figures.get("energy_j"), Scale(1.0, "J")),
                    format_figure(figures.get("share_of_energy"), PERCENT),
                ],
            ),
        )
    return table


def _counted(client: int, server: int) -> list[TableCell]:
    difference = client - server
    text = f"{difference:+,}".replace("-", "−") if difference else "0"
    return [TableCell(whole(client), "number"), TableCell(whole(server), "number"), TableCell(text, "number")]


def _because(row: dict[str, Any]) -> TableCell:
    if not row["difference"]:
        return TableCell("agree exactly", "good")
    if not row["causes"]:
        return TableCell("nothing recorded explains it", "bad")
    text = "; ".join(row["causes"])
    if row["unexplained"]:
        return TableCell(f"{text}; not explained: {whole(abs(row['unexplained']))}", "bad")
    return TableCell(text)


def _lengths(lengths: dict[str, Any]) -> TableCell:
    """Return how many prompts had the requested length."""
    if not lengths["different"]:
        return TableCell(f"all {whole(lengths['compared'])} as asked for", "good", span=4)
    share = f"{whole(lengths['different'])} of {whole(lengths['compared'])} ({100 * lengths['share']:.1f} %)"
    return TableCell(f"{share} other than asked for, {lengths['mean_difference']:+.1f} tokens on average", span=4)
