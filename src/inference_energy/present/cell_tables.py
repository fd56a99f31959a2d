"""The report's sections on windows: headlines, energy, work, devices, impact, checks, and idle power."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.present.figures_text import FormattedFigure, format_figure, scale_for, sentence, significant
from inference_energy.present.report_inputs import cell_load_text, device_label, short_device
from inference_energy.present.tables import Table, TableCell, column

Cells = Sequence[dict[str, Any]]

BASES = ("active", "total", "marginal")
"""In order of preference for a single figure: without a cold idle, only the total energy has a value."""
BASIS_MEANING = {
    "total": "nothing subtracted",
    "active": "cold idle subtracted",
    "marginal": "loaded idle subtracted",
}


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


def headlines(cells: Cells) -> list[Headline]:
    """Return the headline figures of each window; figures of one kind share a unit over all windows."""
    energy = {basis: column(cells, "", *map(energy_per_token, BASES))[index] for index, basis in enumerate(BASES)}
    other_columns = [
        ("mean power", column(cells, "", "power_mean_w")[0]),
        ("throughput", column(cells, "", "output_tokens_per_s")[0]),
    ]
    ranks = dict(zip(TTFT_RANKS, column(cells, "", *[f"ttft_{rank}_s" for rank in TTFT_RANKS]), strict=True))
    carbon = dict(zip(BASES, column(cells, "", *[carbon_per_1k(basis) for basis in BASES]), strict=True))
    return [
        Headline(
            title=cell_load_text(cell),
            subtitle=_origin(cell),
            main=main,
            energy={
                basis: format_figure(
                    cell["figures"].get(c.name), c.scale, per="output token" if basis == main else None
                )
                for basis, c in energy.items()
            },
            other_figures=[
                (label, format_figure(cell["figures"].get(c.name), c.scale, per=None))
                for label, c in [
                    *other_columns,
                    *((f"TTFT {rank}", ranks[rank]) for rank in ("p50", _highest(cell))),
                    ("carbon, 1k output tokens", carbon[main]),
                ]
            ],
        )
        for cell in cells
        for main in (best_basis(cell) or BASES[0],)
    ]


TTFT_RANKS = ("p50", "p90", "p95", "p99")


def _highest(cell: dict[str, Any]) -> str:
    """Return the highest percentile of TTFT that has a value; p99 if none has."""
    valid_ranks = [rank for rank in TTFT_RANKS[1:] if (cell["figures"].get(f"ttft_{rank}_s") or {}).get("valid")]
    return valid_ranks[-1] if valid_ranks else TTFT_RANKS[-1]


def best_basis(cell: dict[str, Any]) -> str | None:
    """Return the first of `BASES` on which the window's energy per output token has a value; None if on none."""
    for basis in BASES:
        figure = cell["figures"].get(energy_per_token(basis))
        if figure and figure["valid"]:
            return basis
    return None


def energy_per_token(basis: str) -> str:
    """Return the name of the energy per output token on a basis."""
    return f"energy_{basis}_per_output_token_j"


def carbon_per_1k(basis: str) -> str:
    """Return the name of the carbon per 1000 output tokens on a basis."""
    return "carbon_per_1k_output_tokens_g" if basis == "total" else f"carbon_{basis}_per_1k_output_tokens_g"


def _origin(cell: dict[str, Any]) -> str:
    """Return model, server, machine and window in one line."""
    model, server = model_name(cell), str(cell.get("server") or "")
    parts = [model, server if server != model else "", str(cell.get("machine") or ""), str(cell["cell"])]
    return " · ".join(part for part in parts if part)


def model_name(cell: dict[str, Any]) -> str:
    """Return the window's model; empty if the summary has none."""
    model = cell.get("model")
    return str((model.get("name") if isinstance(model, dict) else model) or "")


def energy_table(cells: Cells) -> Table:
    """Tabulate the energy of each window on each basis: total, per token and per request."""
    names = ("{}_j", "{}_kwh", "{}_per_output_token_j", "{}_per_prompt_token_j", "{}_per_request_j")
    headings = ("energy", "energy", "per output token", "per prompt token", "per request")
    columns = [
        column(cells, heading, *[f"energy_{name.format(basis)}" for basis in BASES], digits=4 if index < 2 else 3)
        for index, (name, heading) in enumerate(zip(names, headings, strict=True))
    ]
    table = Table(["basis", *[column_group[0].heading for column_group in columns], "boundary, grade"])
    for cell in cells:
        table.heading(cell_title(cell, cells))
        for index, basis in enumerate(BASES):
            shown = [column_group[index].read(cell) for column_group in columns]
            qualifiers = " · ".join(shown[0].qualifiers[1:]) if shown[0].qualifiers else "–"
            table.add(TableCell(basis, "head"), *table.numbers(shown, tagged=False), TableCell(qualifiers))
    return table


def work_table(cells: Cells) -> Table:
    """Tabulate the work done in each window: time, power, requests and tokens."""
    headings = [
        ("duration", "duration_s"),
        ("mean power", "power_mean_w"),
        ("requests", "requests"),
        ("output tokens", "output_tokens"),
        ("prompt tokens", "prompt_tokens"),
        ("cached", "cached_tokens"),
        ("output tokens / s", "output_tokens_per_s"),
        ("requests / s", "requests_per_s"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in headings]
    table = Table(["load", *[column.heading for column in columns]])
    for cell in cells:
        table.add(TableCell(cell_title(cell, cells), "head"), *table.numbers([column.read(cell) for column in columns]))
    return table


def impact_table(cells: Cells) -> Table:
    """Tabulate carbon and water of each window."""
    headings = [
        ("carbon", "carbon_total_g"),
        ("per 1k output tokens", "carbon_per_1k_output_tokens_g"),
        ("per request", "carbon_per_request_g"),
        ("water, site", "water_site_l"),
        ("water, source", "water_source_l"),
        ("water, both", "water_total_l"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in headings]
    table = Table(["load", *[column.heading for column in columns], "basis, boundary, grade"])
    for cell in cells:
        shown = [column.read(cell) for column in columns]
        qualifiers = next((" · ".join(column.qualifiers) for column in shown if column.qualifiers), "–")
        table.add(
            TableCell(cell_title(cell, cells), "head"), *table.numbers(shown, tagged=False), TableCell(qualifiers)
        )
    return table


def cell_title(cell: dict[str, Any], cells: Cells) -> str:
    """Return a window's load with its name, and its machine if there are several."""
    kind = cell.get("kind", "steady")
    text = cell_load_text(cell) + (f" ({kind} only)" if kind != "steady" else "") + f" · {cell['cell']}"
    return f"{text} · {cell['machine']}" if len({other.get("machine") for other in cells}) > 1 else text


def devices_table(cells: Cells) -> Table:
    """Tabulate the energy of every channel, the integrals of its power over its counter, and whether it is summed.

    If the window's energy is missing, no channel's energy is given, because any of them may be the cause. The ratios
    stay, because a check compares them.
    """
    headings = ["energy (J)", "read from", "counter (J)", *[f"{name} / counter" for name in READINGS], "in the sum"]
    table = Table(["device", *headings, "source, grade"])
    for cell in cells:
        if not cell.get("devices"):
            continue
        table.heading(cell_title(cell, cells))
        total = cell["figures"].get("energy_total_j")
        withheld = table.number(format_figure(total)) if total and not total["valid"] else None
        for device in cell["devices"]:
            ratios = device.get("ratios") or {}
            table.add(
                TableCell(device_label(device["domain"], device["device"]), "head"),
                withheld or _amount(device.get("energy_j")),
                TableCell(str(device.get("reading") or "–") + (", calibrated" if device.get("calibration") else "")),
                withheld or _amount(device.get("counter_energy_j")),
                *[TableCell("–" if (r := ratios.get(name)) is None else f"{r:.4f}", "number") for name in READINGS],
                TableCell("yes" if device.get("summed") else "no", "number"),
                TableCell(f"{device.get('source', '')} · {device['grade']}"),
            )
    return table


READINGS = ("average", "instant")
"""Power readings whose integrals are compared with a counter."""


def _amount(value: float | None) -> TableCell:
    return TableCell("–" if value is None else significant(value, 4), "number")


def factors(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the carbon and water factors with their sources, or that they are not configured."""
    configured = summary.get("factors")
    if not configured:
        return []
    carbon, water = configured["carbon"], configured["water"]
    rows = [
        (
            "carbon intensity",
            f"{carbon['intensity_g_per_kwh']:g} g CO₂e / kWh, {carbon['basis']}, zone {carbon['zone']}; "
            f"source: {carbon['source']}",
        ),
        ("PUE", f"{configured['pue']:g}; source: {configured['pue_source']}"),
    ]
    for name, key in (("water, site (WUE)", "wue_site_l_per_kwh"), ("water, source (EWIF)", "ewif_grid_l_per_kwh")):
        value = water.get(key)
        rows.append((name, "not configured" if value is None else f"{value:g} L / kWh; source: {water['source']}"))
    return rows


TRENDS = {
    "power_w": "power",
    "output_tokens_per_s": "tokens/s",
    "running_requests": "running requests",
    "requests_in_flight": "requests in flight",
    "kv_cache_use": "KV cache use",
}


NOT_CONFIGURED = ("no_factor", "no_schedule", "few_samples", "wide_bucket")
"""Reasons that are no failure of a check; they are shown beside their figures."""


def checks_table(cells: Sequence[dict[str, Any]]) -> Table:
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
    for cell in cells:
        checks = cell.get("checks") or {}
        table.add(
            TableCell(cell_title(cell, cells), "head"),
            *steadiness(checks.get("steadiness")),
            counters(cell.get("devices") or []),
            tokens(checks.get("reconciliation")),
            send_lag(checks.get("client_lag_s")),
            _failures(cell),
        )
    return table


def steadiness(check: dict[str, Any] | None) -> list[TableCell]:
    """Return two columns: trends over the window, and its first fifth against its last half (Geweke)."""
    if not check:
        return [TableCell("steadiness was not checked", span=2)]
    if not check.get("judged"):
        return [TableCell(f"not judged: {check.get('why_not_judged') or 'no reason was recorded'}", span=2)]
    required = bool(check.get("required", True))
    return [
        _tested(check.get("trends") or {}, "change_share", required),
        _tested(check.get("stationarity") or {}, "difference_share", required),
    ]


def verdict(check: dict[str, Any] | None) -> str:
    """Return the joint result of both tests of a window: `passed`, `failed` or `not judged`."""
    if not check or not check.get("judged"):
        return "not judged"
    tests = [test for kind in ("trends", "stationarity") for test in (check.get(kind) or {}).values()]
    return "failed" if any(test["exceeded"] for test in tests) else "passed"


def counters(devices: Sequence[dict[str, Any]]) -> TableCell:
    """Return the integrals of each device's power readings over its counter."""
    texts = []
    for device in devices:
        ratios = device.get("ratios") or {}
        shown = [f"{name}\u00a0{ratio:.4f}" for name in READINGS if (ratio := ratios.get(name)) is not None]
        if shown:
            texts.append(f"{device_label(device['domain'], short_device(device['device']))}: {', '.join(shown)}")
    return TableCell("; ".join(texts) if texts else "no device has both a counter and a power reading")


def tokens(check: dict[str, Any] | None) -> TableCell:
    """Return how far the client's token counts are from the server's counters."""
    rows = {name: row for name, row in (check or {}).items() if row}
    if not rows:
        return TableCell("not checked: the server's counters were not read")
    verdicts = [row["agrees"] for name, row in rows.items() if name != "cached"]
    text = ", ".join(
        f"{name} {100 * row['share']:+.2f}\u00a0%"
        if row.get("share") is not None
        else f"{name} {row['difference']:+.0f}"
        for name, row in rows.items()
    )
    if False in verdicts:
        return TableCell(f"disagree: {text}", "bad")
    if None in verdicts:
        return TableCell(f"not resolved, the server's counters are read too seldom for this window: {text}")
    return TableCell(f"agree: {text}", "good")


def send_lag(check: dict[str, float] | None) -> TableCell:
    """Return how late the client sent requests."""
    if not check:
        return TableCell("no schedule to be late for")
    return TableCell(f"p99 {1e3 * check['p99']:.1f} ms, most {1e3 * check['max']:.1f} ms")


def _failures(cell: dict[str, Any]) -> TableCell:
    """Return the reasons for the window's missing figures, each once, except those of `NOT_CONFIGURED`."""
    reasons = [reason for figure in cell["figures"].values() if not figure["valid"] for reason in figure["reasons"]]
    details = dict.fromkeys(sentence(str(r["detail"])) for r in reasons if r["code"] not in NOT_CONFIGURED)
    return TableCell(" ".join(details), "bad") if details else TableCell("none", "good")


def _tested(tests: dict[str, dict[str, Any]], share: str, required: bool) -> TableCell:
    if not tests:
        return TableCell("not tested")
    text = ", ".join(
        f"{TRENDS.get(name, name)} {100 * test[share]:+.1f}\u00a0% (p\u00a0{_p(test.get('p_value'))})"
        for name, test in tests.items()
    )
    if not required:
        return TableCell(f"not required: {text}")
    if any(test["exceeded"] for test in tests.values()):
        return TableCell(f"no: {text}", "bad")
    return TableCell(f"yes: {text}", "good")


def _p(value: float | None) -> str:
    if value is None:
        return "not recorded"
    return "<\u00a00.001" if value < 0.001 else f"{value:.2g}"


IDLE = (
    ("cold", "before the server starts; subtracted by active figures", "cold_power_w"),
    ("loaded", "server up, no request; subtracted by marginal figures", "loaded_power_w"),
    ("post", "after the server has gone; subtracted by none, compared with cold to find drift", "post_power_w"),
)


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


def idle_rows(idle: Sequence[dict[str, Any]]) -> list[IdleRow]:
    """Return the three idle powers of each session, in one unit."""
    valid = [f for row in idle for _, _, key in IDLE if (f := row.get(key)) and f["valid"] and f["value"] is not None]
    scale = scale_for([figure["value"] for figure in valid], "W")
    ends = [max(figure["interval_95"] or (figure["value"],)) for figure in valid]
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
    share, first, last = (min(max(power_w / largest, 0.0), 1.0) for power_w in (value, low, high))
    return share, first, last
