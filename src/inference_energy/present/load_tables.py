"""Tables of the load: what was offered and sent, the counts against the server's, and what the client took itself.

Tables of the load: what was offered and sent, the counts against the server's, and what the client took itself.

What a load test came to, as tables for a terminal.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as Table_
from rich.text import Text

from inference_energy.present.cell_tables import cell_title, lag
from inference_energy.present.figures_text import (
    NOT_GIVEN,
    FormattedFigure,
    Scale,
    format_figure,
    scale_for,
    sentence,
    significant,
    whole,
)
from inference_energy.present.latency import PERCENT_AXIS
from inference_energy.present.tables import Table, TableCell

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
        shown = [format_figure(figures.get(name), PERCENT_AXIS if name == "achieved_share" else None) for name in rates]
        lateness = lag((cell.get("checks") or {}).get("client_lag_s"))
        table.add(TableCell(cell_title(cell, cells), "head"), *[table.number(one) for one in shown], lateness)
    return table


def counts_table(cells: Cells) -> Table:
    """Totals of each whole cell against the rise of the server's counters, to the token."""
    table = Table(["counted", "client", "server", "client − server", "because"])
    for cell in cells:
        found = (cell.get("checks") or {}).get("whole_cell")
        table.heading(cell_title(cell, cells))
        if not found or found.get("why"):
            why = found["why"] if found else "the summary has no such comparison"
            table.add(TableCell("totals", "head"), TableCell(f"not compared: {why}", "missing", span=4))
            continue
        for kind, label in KINDS.items():
            row = found["tokens"].get(kind)
            if row is None:
                table.add(
                    TableCell(label, "head"), TableCell("not told by the server or in its answers", "missing", span=4)
                )
                continue
            table.add(TableCell(label, "head"), *_counted(row["client"], row["server"]), _because(row))
        for finish, row in found["finished"].items():
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
            TableCell(cell_title(cell, cells), "head"),
            TableCell(f"{client['cpu_s']:.2f}", "number"),
            table.number(format_figure(figures.get("cpu_s_per_1k_output_tokens"), MILLISECONDS)),
            table.number(format_figure(figures.get("share_of_busy_cpu"), PERCENT_AXIS)),
            TableCell("–" if memory is None else whole(memory / 1e6), "number"),
            *table.numbers(
                [
                    format_figure(figures.get("energy_j"), Scale(1.0, "J")),
                    format_figure(figures.get("share_of_energy"), PERCENT_AXIS),
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


def _lengths(found: dict[str, Any]) -> TableCell:
    """How many prompts had the length that was asked for."""
    if not found["different"]:
        return TableCell(f"all {whole(found['compared'])} as asked for", "good", span=4)
    share = f"{whole(found['different'])} of {whole(found['compared'])} ({100 * found['share']:.1f} %)"
    return TableCell(f"{share} other than asked for, {found['mean_difference']:+.1f} tokens on average", span=4)


PERCENTILES = {"50": "p50", "90": "p90", "99": "p99", "99_9": "p99.9"}
LATENCIES = {
    "ttft_from_schedule": ("TTFT", "from schedule"),
    "ttft": ("TTFT", "from sending"),
    "tpot": ("TPOT", ""),
    "itl": ("ITL", ""),
    "e2e_from_schedule": ("end to end", "from schedule"),
    "e2e": ("end to end", "from sending"),
}
RATES = {
    "offered_requests_per_s": "offered",
    "requests_per_s": "achieved",
    "output_tokens_per_s": "output",
    "goodput_requests_per_s": "goodput",
    "goodput_share": "good requests",
}
ENERGIES = {
    "power_mean_w": "power",
    "energy_total_j": "energy",
    "energy_total_per_output_token_j": "energy per output token",
    "energy_total_per_request_j": "energy per request",
}
PERCENT = Scale(100.0, "%")
COUNTED = {"generated": "output tokens", "prompt": "prompt tokens", "cached": "cached tokens"}


def load_summary(summary: dict[str, Any]) -> RenderableType:
    """Tables of a summary as `load-test --json` writes it."""
    parts: list[RenderableType] = [_facts(summary)]
    if summary["figures"]:
        parts.append(_latencies(summary))
    why = _why(summary)
    notes = [f"{place_of}: {text}" if place_of else text for place_of, text in why]
    parts += [Text(note, style="yellow") for note in notes]
    return Group(*parts)


def plan_summary(prepared: dict[str, Any], files: dict[str, str]) -> RenderableType:
    """What was planned, as `--plan-only` says it."""
    plan, table = prepared["plan"], _grid()
    table.add_row("requests", whole(plan["requests"]) if prepared["scheduled"] else _closed(plan))
    if plan["conversations"]:
        table.add_row("conversations", whole(plan["conversations"]))
    table.add_row("prompts", whole(plan["prompts"]))
    if plan["last_arrival_s"] is not None:
        table.add_row("last request due after", f"{plan['last_arrival_s']:.1f} s")
    lengths = plan["prompt_tokens"]
    table.add_row("prompt tokens", "only the server can count them" if lengths is None else whole(lengths))
    table.add_row("output tokens", f"at most {whole(plan['most_output_tokens'])}")
    for name, path in files.items():
        table.add_row(name, path)
    return table


def _closed(plan: dict[str, Any]) -> str:
    return f"{whole(plan['requests'])} for {whole(plan['users'])} user(s), and again from the first when used up"


def _facts(summary: dict[str, Any]) -> RenderableType:
    table = _grid()
    counts = summary["requests"]
    outcomes = [f"{whole(counts[name])} {name}" for name in ("ok", "failed", "aborted", "skipped") if counts[name]]
    table.add_row("requests", f"{whole(counts['sent'])} sent: {', '.join(outcomes) or 'none ended'}")
    took = f"{summary['sent_s']:.1f} s, then {summary['drained_s']:.1f} s until the last had ended"
    table.add_row("sending", f"{took}{' (interrupted)' if summary['interrupted'] else ''}")
    for name, label in RATES.items():
        figure = summary["figures"].get(name)
        if figure is not None and not _unscheduled(figure):
            table.add_row(label, format_figure(figure, PERCENT if name == "goodput_share" else None).text)
    table.add_row("lateness of sending", _lateness(summary["lateness_s"]))
    if client := summary["client"]:
        cost = format_figure(client["figures"]["cpu_s_per_1k_output_tokens"])
        table.add_row("client's CPU time", f"{cost.text}, {significant(client['cpu_s'])} s in all")
        table.add_row("client's share", _share(client["figures"]))
    if queue := summary["figures"].get("queue_mean_s"):
        table.add_row(
            "queueing at the server",
            f"mean {format_figure(queue).text}" if queue["valid"] else format_figure(queue).why,
        )
    for label, text in _counters(summary):
        table.add_row(label, text)
    for name, figure in ((summary.get("energy") or {}).get("figures") or {}).items():
        shown = format_figure(figure)
        table.add_row(ENERGIES[name], f"{shown.text} ({', '.join(shown.qualifiers)})")
    for name, path in summary["files"].items():
        table.add_row(f"file: {name}", path)
    return table


def _latencies(summary: dict[str, Any]) -> RenderableType:
    """Percentiles, each above its 95 % interval."""
    table = Table_(box=None, padding=(0, 2, 0, 0), caption="below each: its 95 % interval", caption_justify="left")
    table.add_column("latency", no_wrap=True)
    for shown in PERCENTILES.values():
        table.add_column(shown, justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for name, (label, since) in LATENCIES.items():
        figures = [summary["figures"].get(f"{name}_p{percentile}_s") for percentile in PERCENTILES]
        if not any(figures) or _unscheduled(figures[0]):
            continue
        scale = scale_for([figure["value"] for figure in figures if figure], figures[0]["unit"])
        cells = [_cell(format_figure(figure, scale, per=None), scale) for figure in figures]
        table.add_row(_lines(label, since), *cells, whole(summary["samples"].get(name, 0)))
    return table


def _cell(shown: FormattedFigure, scale: Scale) -> Text:
    if not shown.given:
        return Text(NOT_GIVEN)
    return _lines(f"{shown.number} {scale.unit.split(' / ')[0]}", shown.interval.replace(" to ", "–"))


def _lines(first: str, second: str) -> Text:
    return Text.assemble(first, *(("\n", (second, "dim")) if second else ()))


def _share(figures: dict[str, Any]) -> str:
    """What of the machine's CPU time, and where it was measured of its energy, went into sending."""
    busy = format_figure(figures["share_of_busy_cpu"], PERCENT)
    said = [f"{busy.text} of this machine's busy CPU time" if busy.given else busy.why]
    if share := figures.get("share_of_energy"):
        energy = format_figure(share, PERCENT)
        said.append(f"{energy.text} of the energy ({energy.grade})" if energy.given else f"of the energy: {energy.why}")
    return "; ".join(said)


def _lateness(lag_s: dict[str, float] | None) -> str:
    if lag_s is None:
        return "a closed loop has no schedule"
    return ", ".join(f"{name} {significant(1000 * value)} ms" for name, value in lag_s.items())


def _counters(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Token totals against the servers' counters."""
    counters = summary["counters"]
    if counters["why"] is not None:
        yield "server's counters", counters["why"]
        return
    counts = summary["requests"]
    cut = counts["failed"] + counts["aborted"]
    for kind, label in COUNTED.items():
        row = counters["tokens"].get(kind)
        if row is None:
            continue
        text = f"{whole(row['client'])}, server {whole(row['server'])}: "
        if not row["difference"]:
            yield label, f"{text}agrees exactly"
            continue
        more = "more" if row["difference"] < 0 else "fewer"
        found = row["causes"] or ([f"{whole(cut)} request(s) that did not end well"] if cut else [])
        causes = f": {'; '.join(found)}" if found else ", and nothing recorded explains it"
        yield label, f"{text}the server counted {whole(abs(row['difference']))} {more}{causes}"


def _why(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Sentences below the tables: what is not given and why, errors, and faults."""
    for why, percentiles in _not_given(summary["figures"]).items():
        found = [f"{PERCENTILES[percentile]} of {', '.join(names)}" for percentile, names in percentiles.items()]
        yield f"not given: {'; '.join(found)}", why
    for name, label in RATES.items():
        figure = summary["figures"].get(name)
        if figure is not None and not figure["valid"] and not _unscheduled(figure):
            yield f"not given: {label}", format_figure(figure).why
    for error in summary["errors"]:
        yield f"{whole(error['count'])} failed", sentence(error["error"])
    energy = summary.get("energy") or {}
    if energy.get("why"):
        yield "energy not given", sentence(energy["why"])
    for why, named in _energies_not_given(energy.get("figures") or {}).items():
        yield f"not given: {', '.join(named)}", why
    for fault in energy.get("faults", []):
        yield "power", sentence(fault)
    if note := (summary.get("prompt_lengths") or {}).get("note"):
        yield "prompts", note
    for one in summary["counters"].get("reasons", []):
        if one["code"] == "server_restarted":
            yield "", one["detail"]


def _energies_not_given(figures: dict[str, Any]) -> dict[str, list[str]]:
    """For each reason the energies that it withholds."""
    found: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if not figure["valid"]:
            found.setdefault(format_figure(figure).why, []).append(ENERGIES[name])
    return found


def _not_given(figures: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Latencies that are not given: for each reason the percentiles, and of what.

    Where a percentile is given of none, and always for the same kind of reason, the first one's stands for all.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for percentile in PERCENTILES:
        there = [(label, figures.get(f"{name}_p{percentile}_s")) for name, (label, _) in LATENCIES.items()]
        shown = [(label, figure) for label, figure in there if figure is not None and not _unscheduled(figure)]
        missing = [(label, figure) for label, figure in shown if not figure["valid"]]
        if len({label for label, _ in missing}) > 1 and len(missing) == len(shown) and len(_codes(missing)) == 1:
            missing = [("all latencies", missing[0][1])]
        for label, figure in missing:
            names = found.setdefault(format_figure(figure).why, {}).setdefault(percentile, [])
            names += [label] if label not in names else []
    return found


def _codes(figures: list[tuple[str, dict[str, Any]]]) -> set[tuple[str, ...]]:
    """The kinds of reasons that figures have."""
    return {tuple(reason["code"] for reason in figure["reasons"]) for _, figure in figures}


def _unscheduled(figure: dict[str, Any] | None) -> bool:
    """Whether a figure is left out because a closed loop has no schedule: that is said once."""
    return figure is not None and any(reason["code"] == "no_schedule" for reason in figure["reasons"])


def _grid() -> Table_:
    table = Table_(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
