"""The report's sections on windows: headlines, energy, work, devices, impact, checks, and idle power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_energy.contracts.documents.energy import DeviceEnergy
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryIdle, SummaryWindow
from inference_energy.contracts.documents.windows import (
    ClientLag,
    LevelTest,
    SteadinessVerdict,
    TokenReconciliation,
    Trend,
)
from inference_energy.contracts.figure import Figure
from inference_energy.present.figures_text import FormattedFigure, format_figure, scale_for, sentence, significant
from inference_energy.present.report_inputs import Windows, device_label, short_device
from inference_energy.present.tables import Table, TableCell, column

BASES = ("active", "total", "marginal")
"""In order of preference for a single figure: without a cold idle, only the total energy has a value."""
BASIS_MEANING = {
    "total": "nothing subtracted",
    "active": "cold idle subtracted",
    "marginal": "loaded idle subtracted",
}
TTFT_RANKS = ("p50", "p90", "p95", "p99")
READINGS = ("average", "instant")
"""Power readings whose integrals are compared with a counter."""
TRENDS = {
    "power_w": "power",
    "output_tokens_per_s": "tokens/s",
    "running_requests": "running requests",
    "requests_in_flight": "requests in flight",
    "kv_cache_use": "KV cache use",
}
NOT_CONFIGURED = ("no_factor", "no_schedule", "few_samples", "wide_bucket")
"""Reasons that are no failure of a check; they are shown beside their figures."""
IDLE = (
    ("cold", "before the server starts; subtracted by active figures"),
    ("loaded", "server up, no request; subtracted by marginal figures"),
    ("post", "after the server has gone; subtracted by none, compared with cold to find drift"),
)


@dataclass(frozen=True)
class Headline:
    """The headline figures of one steady window.

    Attributes:
        title: its load.
        subtitle: model, server, machine and window.
        main: the basis that is shown large, with the full unit.
        energy: energy per output token by basis.
        other_figures: further figures with their labels.
    """

    title: str
    subtitle: str
    main: str
    energy: dict[str, FormattedFigure]
    other_figures: list[tuple[str, FormattedFigure]]

    @property
    def notes(self) -> list[str]:
        """Notes on the figures that have a value, each sentence once."""
        figures = [*self.energy.values(), *(figure for _, figure in self.other_figures)]
        return list(dict.fromkeys(note for figure in figures if figure.has_value for note in figure.reasons))


def footnotes(cards: Sequence[Headline]) -> list[str]:
    """Return why values of the cards have no interval, each sentence once."""
    figures = [figure for card in cards for figure in (*card.energy.values(), *(f for _, f in card.other_figures))]
    return list(dict.fromkeys(figure.no_interval_reason for figure in figures if figure.no_interval_reason))


def headlines(windows: Windows) -> list[Headline]:
    """Return the headline figures of each window; figures of one kind share a unit over all windows."""
    energy = dict(zip(BASES, column(windows, "", *map(energy_per_token, BASES)), strict=True))
    carbon = dict(zip(BASES, column(windows, "", *map(carbon_per_1k, BASES)), strict=True))
    ranks = dict(zip(TTFT_RANKS, column(windows, "", *[f"ttft_{rank}_s" for rank in TTFT_RANKS]), strict=True))
    power, throughput = (column(windows, "", name)[0] for name in ("power_mean_w", "output_tokens_per_s"))
    cards = []
    for window in windows:
        main = best_basis(window) or BASES[0]
        other_columns = [
            ("mean power", power),
            ("throughput", throughput),
            *((f"TTFT {rank}", ranks[rank]) for rank in ("p50", _highest_ttft_rank(window))),
            ("carbon, 1k output tokens", carbon[main]),
        ]
        cards.append(
            Headline(
                title=window.load.text,
                subtitle=_origin(window),
                main=main,
                energy={
                    basis: format_figure(
                        window.figures.get(of_basis.name),
                        of_basis.scale,
                        per="output token" if basis == main else None,
                    )
                    for basis, of_basis in energy.items()
                },
                other_figures=[
                    (label, format_figure(window.figures.get(other.name), other.scale, per=None))
                    for label, other in other_columns
                ],
            )
        )
    return cards


def _highest_ttft_rank(window: SummaryWindow) -> str:
    """Return the highest percentile of TTFT that has a value; p99 if none has."""
    figures = {rank: window.figures.get(f"ttft_{rank}_s") for rank in TTFT_RANKS[1:]}
    return [TTFT_RANKS[-1], *(rank for rank, figure in figures.items() if figure and figure.valid)][-1]


def best_basis(window: SummaryWindow) -> str | None:
    """Return the first of `BASES` on which the window's energy per output token has a value; None if on none."""
    for basis in BASES:
        figure = window.figures.get(energy_per_token(basis))
        if figure and figure.valid:
            return basis
    return None


def energy_per_token(basis: str) -> str:
    """Return the name of the energy per output token on a basis."""
    return f"energy_{basis}_per_output_token_j"


def carbon_per_1k(basis: str) -> str:
    """Return the name of the carbon per 1000 output tokens on a basis."""
    return "carbon_per_1k_output_tokens_g" if basis == "total" else f"carbon_{basis}_per_1k_output_tokens_g"


def _origin(window: SummaryWindow) -> str:
    """Return model, server, machine and window in one line."""
    model = window.model or ""
    parts = [model, window.server if window.server != model else "", window.machine, window.cell]
    return " · ".join(part for part in parts if part)


def energy_table(windows: Windows) -> Table:
    """Tabulate the energy of each window on each basis: total, per token and per request."""
    names = ("{}_j", "{}_kwh", "{}_per_output_token_j", "{}_per_prompt_token_j", "{}_per_request_j")
    headings = ("energy", "energy", "per output token", "per prompt token", "per request")
    columns = [
        column(windows, heading, *[f"energy_{name.format(basis)}" for basis in BASES], digits=4 if index < 2 else 3)
        for index, (name, heading) in enumerate(zip(names, headings, strict=True))
    ]
    table = Table(["basis", *[by_basis[0].heading for by_basis in columns], "boundary, grade"])
    for window in windows:
        table.heading(window_title(window, windows))
        for index, basis in enumerate(BASES):
            shown = [by_basis[index].read(window) for by_basis in columns]
            qualifiers = " · ".join(shown[0].qualifiers[1:]) if shown[0].qualifiers else "–"
            table.add(TableCell(basis, "head"), *table.numbers(shown, tagged=False), TableCell(qualifiers))
    return table


def work_table(windows: Windows) -> Table:
    """Tabulate the work done in each window: time, power, requests and tokens."""
    names = {
        "duration": "duration_s",
        "mean power": "power_mean_w",
        "requests": "requests",
        "output tokens": "output_tokens",
        "prompt tokens": "prompt_tokens",
        "cached": "cached_tokens",
        "output tokens / s": "output_tokens_per_s",
        "requests / s": "requests_per_s",
    }
    columns = [column(windows, heading, name)[0] for heading, name in names.items()]
    table = Table(["load", *[each.heading for each in columns]])
    for window in windows:
        shown = [each.read(window) for each in columns]
        table.add(TableCell(window_title(window, windows), "head"), *table.numbers(shown))
    return table


def impact_table(windows: Windows) -> Table:
    """Tabulate carbon and water of each window."""
    names = {
        "carbon": "carbon_total_g",
        "per 1k output tokens": "carbon_per_1k_output_tokens_g",
        "per request": "carbon_per_request_g",
        "water, site": "water_site_l",
        "water, source": "water_source_l",
        "water, both": "water_total_l",
    }
    columns = [column(windows, heading, name)[0] for heading, name in names.items()]
    table = Table(["load", *[each.heading for each in columns], "basis, boundary, grade"])
    for window in windows:
        shown = [each.read(window) for each in columns]
        qualifiers = next((" · ".join(figure.qualifiers) for figure in shown if figure.qualifiers), "–")
        head = TableCell(window_title(window, windows), "head")
        table.add(head, *table.numbers(shown, tagged=False), TableCell(qualifiers))
    return table


def window_title(window: SummaryWindow, windows: Windows) -> str:
    """Return a window's load with its name, and its machine if there are several."""
    kind = f" ({window.kind} only)" if window.kind != "steady" else ""
    title = f"{window.load.text}{kind} · {window.cell}"
    return f"{title} · {window.machine}" if len({other.machine for other in windows}) > 1 else title


def devices_table(windows: Windows) -> Table:
    """Tabulate the energy of every channel, the integrals of its power over its counter, and whether it is summed.

    If the window's energy is missing, no channel's energy is given, because any of them may be the cause. The ratios
    stay, because a check compares them.
    """
    headings = ["energy (J)", "read from", "counter (J)", *[f"{name} / counter" for name in READINGS], "in the sum"]
    table = Table(["device", *headings, "source, grade"])
    for window in windows:
        if not window.devices:
            continue
        table.heading(window_title(window, windows))
        total = window.figures.get("energy_total_j")
        withheld = table.number(format_figure(total)) if total and not total.valid else None
        for device in window.devices:
            ratios = [device.ratios.get(name) for name in READINGS]
            table.add(
                TableCell(device_label(device.domain, device.device), "head"),
                withheld or _joules(device.energy_j),
                TableCell((device.reading or "–") + (", calibrated" if device.calibration else "")),
                withheld or _joules(device.counter_energy_j),
                *[TableCell("–" if ratio is None else f"{ratio:.4f}", "number") for ratio in ratios],
                TableCell("yes" if device.summed else "no", "number"),
                TableCell(f"{device.source} · {device.grade}"),
            )
    return table


def _joules(value: float | None) -> TableCell:
    return TableCell("–" if value is None else significant(value, 4), "number")


def factors(summary: SummaryDocument) -> list[tuple[str, str]]:
    """Return the carbon and water factors with their sources, or that they are not configured."""
    configured = summary.factors
    if configured is None:
        return []
    carbon, water = configured.carbon, configured.water
    rows = [
        (
            "carbon intensity",
            f"{carbon.intensity_g_per_kwh:g} g CO₂e / kWh, {carbon.basis}, zone {carbon.zone}; source: {carbon.source}",
        ),
        ("PUE", f"{configured.pue:g}; source: {configured.pue_source}"),
    ]
    for name, factor in (
        ("water, site (WUE)", water.wue_site_l_per_kwh),
        ("water, source (EWIF)", water.ewif_grid_l_per_kwh),
    ):
        rows.append((name, "not configured" if factor is None else f"{factor:g} L / kWh; source: {water.source}"))
    return rows


def checks_table(windows: Windows) -> Table:
    """Tabulate the results of each window's checks; green and red are also given in words."""
    table = Table(
        [
            "load",
            "steady: trend",
            "steady: first fifth against last half",
            "integral / counter",
            "tokens, client against server",
            "client lag",
            "figures not given, because",
        ]
    )
    for window in windows:
        table.add(
            TableCell(window_title(window, windows), "head"),
            *_steadiness(window.checks.steadiness),
            _counter_ratios(window.devices),
            _token_counts(window.checks.reconciliation),
            send_lag(window.checks.client_lag_s),
            _failures(window),
        )
    return table


def _steadiness(check: SteadinessVerdict) -> list[TableCell]:
    """Return two columns: trends over the window, and its first fifth against its last half (Geweke)."""
    if not check.judged:
        return [TableCell(f"not judged: {check.why_not_judged or 'no reason was recorded'}", span=2)]
    trends = {name: (trend.change_share, trend) for name, trend in check.trends.items()}
    levels = {name: (level.difference_share, level) for name, level in check.stationarity.items()}
    return [_test_results(trends, check.required), _test_results(levels, check.required)]


def _test_results(tests: Mapping[str, tuple[float, Trend | LevelTest]], required: bool) -> TableCell:
    if not tests:
        return TableCell("not tested")
    results = ", ".join(
        f"{TRENDS.get(name, name)} {100 * share:+.1f}\u00a0% (p\u00a0{_p_value(test.p_value)})"
        for name, (share, test) in tests.items()
    )
    if not required:
        return TableCell(f"not required: {results}")
    if any(test.exceeded for _, test in tests.values()):
        return TableCell(f"no: {results}", "bad")
    return TableCell(f"yes: {results}", "good")


def _p_value(value: float) -> str:
    return "<\u00a00.001" if value < 0.001 else f"{value:.2g}"


def steadiness_verdict(check: SteadinessVerdict) -> str:
    """Return the joint result of both tests of a window: `passed`, `failed` or `not judged`."""
    if not check.judged:
        return "not judged"
    tests: list[Trend | LevelTest] = [*check.trends.values(), *check.stationarity.values()]
    return "failed" if any(test.exceeded for test in tests) else "passed"


def _counter_ratios(devices: Sequence[DeviceEnergy]) -> TableCell:
    """Return the integrals of each device's power readings over its counter."""
    texts = []
    for device in devices:
        ratios = [f"{name}\u00a0{r:.4f}" for name in READINGS if (r := device.ratios.get(name)) is not None]
        if ratios:
            texts.append(f"{device_label(device.domain, short_device(device.device))}: {', '.join(ratios)}")
    return TableCell("; ".join(texts) if texts else "no device has both a counter and a power reading")


def _token_counts(check: TokenReconciliation) -> TableCell:
    """Return how far the client's token counts are from the server's counters."""
    kinds = {"generated": check.generated, "prompt": check.prompt, "cached": check.cached}
    rows = {name: row for name, row in kinds.items() if row is not None}
    if not rows:
        return TableCell("not checked: the server's counters were not read")
    verdicts = [row.agrees for name, row in rows.items() if name != "cached"]
    text = ", ".join(
        f"{name} {100 * row.share:+.2f}\u00a0%" if row.share is not None else f"{name} {row.difference:+.0f}"
        for name, row in rows.items()
    )
    if False in verdicts:
        return TableCell(f"disagree: {text}", "bad")
    if None in verdicts:
        return TableCell(f"not resolved, the server's counters are read too seldom for this window: {text}")
    return TableCell(f"agree: {text}", "good")


def send_lag(check: ClientLag | None) -> TableCell:
    """Return how late the client sent requests."""
    if check is None:
        return TableCell("no schedule to be late for")
    return TableCell(f"p99 {1e3 * check.p99:.1f} ms, most {1e3 * check.max:.1f} ms")


def _failures(window: SummaryWindow) -> TableCell:
    """Return the reasons for the window's missing figures, each once, except those of `NOT_CONFIGURED`."""
    reasons = [reason for figure in window.figures.values() if not figure.valid for reason in figure.reasons]
    details = dict.fromkeys(sentence(reason.detail) for reason in reasons if reason.code not in NOT_CONFIGURED)
    return TableCell(" ".join(details), "bad") if details else TableCell("none", "good")


@dataclass(frozen=True)
class Bar:
    """One idle power; `share`, `low` and `high` are lengths from 0 to 1: of its bar, and to its interval's ends."""

    name: str
    meaning: str
    figure: FormattedFigure
    share: float
    low: float
    high: float

    @property
    def notes(self) -> list[str]:
        """Reasons for a missing value or interval, outliers and trends."""
        return [*self.figure.reasons, *([self.figure.no_interval_reason] if self.figure.no_interval_reason else [])]


@dataclass(frozen=True)
class IdleRow:
    """The idle powers of one session."""

    name: str
    bars: list[Bar]


def idle_rows(idle: Sequence[SummaryIdle]) -> list[IdleRow]:
    """Return the three idle powers of each session, in one unit."""
    figures = [(row.cold_power_w, row.loaded_power_w, row.post_power_w) for row in idle]
    valid = [(figure, figure.value) for row in figures for figure in row if figure.value is not None]
    scale = scale_for([value for _, value in valid], "W")
    largest = max((max(figure.interval_95 or (value,)) for figure, value in valid), default=1.0) or 1.0
    return [
        IdleRow(
            name=" · ".join(name for name in (row.session, row.server, row.machine) if name),
            bars=[
                Bar(name, meaning, format_figure(figure, scale), *_bar_lengths(figure, largest))
                for (name, meaning), figure in zip(IDLE, powers, strict=True)
            ],
        )
        for row, powers in zip(idle, figures, strict=True)
    ]


def _bar_lengths(figure: Figure, largest: float) -> tuple[float, float, float]:
    if figure.value is None:
        return 0.0, 0.0, 0.0
    low, high = figure.interval_95 or (figure.value, figure.value)
    share, first, last = (min(max(power_w / largest, 0.0), 1.0) for power_w in (figure.value, low, high))
    return share, first, last
