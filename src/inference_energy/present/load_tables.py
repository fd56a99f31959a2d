"""The report's section on load: offered and sent rates, counts against the server's, and the client's own cost."""

from inference_energy.contracts.documents.windows import CellTokens, PromptLengths
from inference_energy.present.figures_text import PERCENT, Scale, format_figure, whole
from inference_energy.present.report_inputs import Windows
from inference_energy.present.tables import Table, TableCell
from inference_energy.present.window_tables import send_lag, window_title

MILLISECONDS = Scale(1000.0, "ms")


def rates_table(windows: Windows) -> Table:
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
    rates = ("offered_requests_per_s", "sent_requests_per_s", "achieved_share", "requests_per_s")
    for window in windows:
        shown = [
            format_figure(window.figures.get(name), PERCENT if name == "achieved_share" else None) for name in rates
        ]
        table.add(
            TableCell(window_title(window, windows), "head"),
            *[table.number(figure) for figure in shown],
            send_lag(window.checks.client_lag_s),
        )
    return table


def counts_table(windows: Windows) -> Table:
    """Tabulate the token and request totals of each whole window against the increase of the server's counters."""
    table = Table(["counted", "client", "server", "client − server", "because"])
    for window in windows:
        totals = window.checks.whole_cell
        table.heading(window_title(window, windows))
        if totals.tokens is None or totals.finished is None:
            table.add(TableCell("totals", "head"), TableCell(f"not compared: {totals.why}", "missing", span=4))
            continue
        for label, row in (
            ("generated tokens", totals.tokens.generated),
            ("prompt tokens", totals.tokens.prompt),
            ("cached tokens", totals.tokens.cached),
        ):
            head = TableCell(label, "head")
            if row is None:
                table.add(head, TableCell("not told by the server or in its answers", "missing", span=4))
            else:
                table.add(head, *_both_counts(row.client, row.server), _because(row))
        for finish, count in totals.finished.items():
            if count.server is None:
                continue
            same = count.client == count.server
            verdict = TableCell("agree exactly", "good") if same else TableCell("differ")
            label = f"requests: {finish.replace('_', ' ')}"
            table.add(TableCell(label, "head"), *_both_counts(count.client, count.server), verdict)
        if window.checks.prompt_lengths:
            table.add(TableCell("prompt lengths", "head"), _prompt_lengths(window.checks.prompt_lengths))
    return table


def client_table(windows: Windows) -> Table | None:
    """Tabulate the load client's share of the machine; None if no session recorded it."""
    with_client = [(window, window.client) for window in windows if window.client]
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
    for window, client in with_client:
        figures, memory = client.figures, client.peak_rss_bytes
        table.add(
            TableCell(window_title(window, windows), "head"),
            TableCell(f"{client.cpu_s:.2f}", "number"),
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


def _both_counts(client: int, server: int) -> list[TableCell]:
    difference = client - server
    text = f"{difference:+,}".replace("-", "−") if difference else "0"
    return [TableCell(whole(client), "number"), TableCell(whole(server), "number"), TableCell(text, "number")]


def _because(row: CellTokens) -> TableCell:
    if not row.difference:
        return TableCell("agree exactly", "good")
    if not row.causes:
        return TableCell("nothing recorded explains it", "bad")
    text = "; ".join(row.causes)
    if row.unexplained:
        return TableCell(f"{text}; not explained: {whole(abs(row.unexplained))}", "bad")
    return TableCell(text)


def _prompt_lengths(lengths: PromptLengths) -> TableCell:
    """Return how many prompts had the requested length."""
    if not lengths.different:
        return TableCell(f"all {whole(lengths.compared)} as asked for", "good", span=4)
    share = f"{whole(lengths.different)} of {whole(lengths.compared)} ({100 * lengths.share:.1f} %)"
    return TableCell(f"{share} other than asked for, {lengths.mean_difference:+.1f} tokens on average", span=4)
