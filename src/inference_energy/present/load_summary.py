"""Terminal tables of a load test: rates, latencies with intervals, energy, and the reasons for missing figures."""

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inference_energy.contracts.documents.by_hand import LoadTestDocument, PlanFacts
from inference_energy.contracts.documents.windows import CellTokens, ClientLag
from inference_energy.contracts.figure import Figure
from inference_energy.present.figures_text import (
    NOT_GIVEN,
    PERCENT,
    FormattedFigure,
    Scale,
    format_figure,
    scale_for,
    sentence,
    significant,
    whole,
)

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


COUNTED = {"generated": "output tokens", "prompt": "prompt tokens", "cached": "cached tokens"}


def load_summary(summary: LoadTestDocument) -> RenderableType:
    """Return the tables of a load test."""
    energies = (summary.energy and summary.energy.figures) or {}
    parts: list[RenderableType] = [_facts(summary, energies)]
    if summary.figures:
        parts.append(_latencies(summary.figures, summary.samples))
    notes = [f"{subject}: {text}" if subject else text for subject, text in _notes(summary, energies)]
    parts += [Text(note, style="yellow") for note in notes]
    return Group(*parts)


def plan_summary(plan: PlanFacts, files: dict[str, str]) -> RenderableType:
    """Return the table that `--plan-only` prints."""
    table = _grid()
    table.add_row("requests", _closed(plan) if plan.last_arrival_s is None else whole(plan.requests))
    if plan.conversations:
        table.add_row("conversations", whole(plan.conversations))
    table.add_row("prompts", whole(plan.prompts))
    if plan.last_arrival_s is not None:
        table.add_row("last request due after", f"{plan.last_arrival_s:.1f} s")
    lengths = plan.prompt_tokens
    table.add_row("prompt tokens", "only the server can count them" if lengths is None else whole(lengths))
    table.add_row("output tokens", f"at most {whole(plan.most_output_tokens)}")
    for name, path in files.items():
        table.add_row(name, path)
    return table


def _closed(plan: PlanFacts) -> str:
    return f"{whole(plan.requests)} for {whole(plan.users)} user(s), and again from the first when used up"


def _facts(summary: LoadTestDocument, energies: Mapping[str, Figure]) -> RenderableType:
    table, figures = _grid(), summary.figures
    counts = {name: getattr(summary.requests, name) for name in ("ok", "failed", "aborted", "skipped")}
    outcomes = [f"{whole(count)} {name}" for name, count in counts.items() if count]
    table.add_row("requests", f"{whole(summary.requests.sent)} sent: {', '.join(outcomes) or 'none ended'}")
    took = f"{summary.sent_s:.1f} s, then {summary.drained_s:.1f} s until the last had ended"
    table.add_row("sending", f"{took}{' (interrupted)' if summary.interrupted else ''}")
    for name, label in RATES.items():
        figure = figures.get(name)
        if figure is not None and not _unscheduled(figure):
            table.add_row(label, format_figure(figure, PERCENT if name == "goodput_share" else None).text)
    table.add_row("lateness of sending", _lateness(summary.lateness_s))
    if client := summary.client:
        cost = format_figure(client.figures["cpu_s_per_1k_output_tokens"])
        table.add_row("client's CPU time", f"{cost.text}, {significant(client.cpu_s)} s in all")
        table.add_row("client's share", _share(client.figures))
    if queue := figures.get("queue_mean_s"):
        table.add_row(
            "queueing at the server",
            f"mean {format_figure(queue).text}" if queue.valid else format_figure(queue).why,
        )
    for label, text in _counters(summary):
        table.add_row(label, text)
    for name, figure in energies.items():
        shown = format_figure(figure)
        table.add_row(ENERGIES[name], f"{shown.text} ({', '.join(shown.qualifiers)})")
    for name, path in summary.files.items():
        table.add_row(f"file: {name}", path)
    return table


def _latencies(figures: Mapping[str, Figure], samples: Mapping[str, int]) -> RenderableType:
    """Return the table of percentiles, each above its 95 % interval."""
    table = Table(box=None, padding=(0, 2, 0, 0), caption="below each: its 95 % interval", caption_justify="left")
    table.add_column("latency", no_wrap=True)
    for shown in PERCENTILES.values():
        table.add_column(shown, justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for name, (label, since) in LATENCIES.items():
        row = [figures.get(f"{name}_p{percentile}_s") for percentile in PERCENTILES]
        present = [figure for figure in row if figure is not None]
        if not present or _unscheduled(row[0]):
            continue
        scale = scale_for([figure.value for figure in present], present[0].unit)
        cells = [_cell(format_figure(figure, scale, per=None), scale) for figure in row]
        table.add_row(_lines(label, since), *cells, whole(samples.get(name, 0)))
    return table


def _cell(shown: FormattedFigure, scale: Scale) -> Text:
    if not shown.has_value:
        return Text(NOT_GIVEN)
    return _lines(f"{shown.number} {scale.unit.split(' / ')[0]}", shown.interval.replace(" to ", "–"))


def _lines(first: str, second: str) -> Text:
    return Text.assemble(first, *(("\n", (second, "dim")) if second else ()))


def _share(figures: Mapping[str, Figure]) -> str:
    """Return the client's share of the machine's CPU time and, if measured, of its energy."""
    busy = format_figure(figures["share_of_busy_cpu"], PERCENT)
    parts = [f"{busy.text} of this machine's busy CPU time" if busy.has_value else busy.why]
    if share := figures.get("share_of_energy"):
        energy = format_figure(share, PERCENT)
        parts.append(
            f"{energy.text} of the energy ({energy.grade})" if energy.has_value else f"of the energy: {energy.why}"
        )
    return "; ".join(parts)


def _lateness(lag_s: ClientLag | None) -> str:
    if lag_s is None:
        return "a closed loop has no schedule"
    return ", ".join(f"{name} {significant(1000 * getattr(lag_s, name))} ms" for name in ("p50", "p99", "max"))


def _counters(summary: LoadTestDocument) -> Iterator[tuple[str, str]]:
    """Yield token totals against the servers' counters."""
    counters = summary.counters
    if counters.why is not None:
        yield "server's counters", counters.why
        return
    for kind, label in COUNTED.items():
        row: CellTokens | None = getattr(counters.tokens, kind)
        if row is None:
            continue
        text = f"{whole(row.client)}, server {whole(row.server)}: "
        if not row.difference:
            yield label, f"{text}agrees exactly"
            continue
        more = "more" if row.difference < 0 else "fewer"
        causes_text = f": {'; '.join(row.causes)}" if row.causes else ", and nothing recorded explains it"
        if row.causes and row.unexplained:
            causes_text += f", which can explain {whole(row.explained)}"
        yield label, f"{text}the server counted {whole(abs(row.difference))} {more}{causes_text}"


def _notes(summary: LoadTestDocument, energies: Mapping[str, Figure]) -> Iterator[tuple[str, str]]:
    """Yield the notes below the tables: missing figures with their reasons, errors, and faults."""
    figures = summary.figures
    for why, percentiles in _not_given(figures).items():
        parts = [f"{PERCENTILES[percentile]} of {', '.join(names)}" for percentile, names in percentiles.items()]
        yield f"not given: {'; '.join(parts)}", why
    for name, label in RATES.items():
        figure = figures.get(name)
        if figure is not None and not figure.valid and not _unscheduled(figure):
            yield f"not given: {label}", format_figure(figure).why
        for reason in figure.reasons if figure is not None else ():
            if reason.code == "ended_in_drain":
                yield label, reason.detail
    for error in summary.errors:
        yield f"{whole(error.count)} failed", sentence(error.error)
    if summary.energy and summary.energy.why:
        yield "energy not given", sentence(summary.energy.why)
    for why, named in _energies_not_given(energies).items():
        yield f"not given: {', '.join(named)}", why
    for fault in summary.energy.faults if summary.energy else ():
        yield "power", sentence(fault)
    if summary.prompt_lengths and summary.prompt_lengths.note:
        yield "prompts", summary.prompt_lengths.note
    for reason in summary.counters.reasons or ():
        if reason.code == "server_restarted":
            yield "", reason.detail


def _energies_not_given(figures: Mapping[str, Figure]) -> dict[str, list[str]]:
    """Return the names of the missing energies by reason."""
    names_by_reason: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if not figure.valid:
            names_by_reason.setdefault(format_figure(figure).why, []).append(ENERGIES[name])
    return names_by_reason


def _not_given(figures: Mapping[str, Figure]) -> dict[str, dict[str, list[str]]]:
    """Return the missing latencies: by reason and percentile, their names.

    If a percentile is missing for all latencies, and for one kind of reason, the first reason stands for all.
    """
    percentiles_by_reason: dict[str, dict[str, list[str]]] = {}
    for percentile in PERCENTILES:
        there = [(label, figures.get(f"{name}_p{percentile}_s")) for name, (label, _) in LATENCIES.items()]
        shown = [(label, figure) for label, figure in there if figure is not None and not _unscheduled(figure)]
        missing = [(label, figure) for label, figure in shown if not figure.valid]
        if len({label for label, _ in missing}) > 1 and len(missing) == len(shown) and len(_codes(missing)) == 1:
            missing = [("all latencies", missing[0][1])]
        for label, figure in missing:
            names = percentiles_by_reason.setdefault(format_figure(figure).why, {}).setdefault(percentile, [])
            names += [label] if label not in names else []
    return percentiles_by_reason


def _codes(figures: list[tuple[str, Figure]]) -> set[tuple[str, ...]]:
    """Return the combinations of reason codes of figures."""
    return {tuple(reason.code for reason in figure.reasons) for _, figure in figures}


def _unscheduled(figure: Figure | None) -> bool:
    """Return whether a figure is missing because a closed loop has no schedule."""
    return figure is not None and any(reason.code == "no_schedule" for reason in figure.reasons)


def _grid() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
