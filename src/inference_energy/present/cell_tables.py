"""What the report's sections on cells say: headlines, energy, work, devices and impact.

What the report's sections on cells say: headlines, energy, work, devices and impact.

What the checks of a cell found, in words: steadiness, power against counters, token counts, the client's lag.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.present.figures_text import FormattedFigure, format_figure, sentence, significant
from inference_energy.present.report_inputs import cell_load_text, device_label
from inference_energy.present.tables import Table, TableCell, column

Cells = Sequence[dict[str, Any]]

BASES = ("active", "total", "marginal")
"""In the order in which a single figure is chosen: where there is no cold idle, energy is given in full."""
BASIS_MEANING = {
    "total": "nothing subtracted",
    "active": "cold idle subtracted",
    "marginal": "loaded idle subtracted",
}


@dataclass(frozen=True)
class Headline:
    """One steady cell: what load, and the figures that answer for it.

    `energy` is that per output token, by basis; `main` is the basis that is shown large, with the full unit.
    """

    title: str
    where: str
    main: str
    energy: dict[str, FormattedFigure]
    others: list[tuple[str, FormattedFigure]]

    @property
    def notes(self) -> list[str]:
        """What is worth saying about the figures that are given, each sentence once."""
        places = [*self.energy.values(), *(shown for _, shown in self.others)]
        return list(dict.fromkeys(note for shown in places if shown.given for note in shown.reasons))


def footnotes(cards: Sequence[Headline]) -> list[str]:
    """Why figures that are given have no interval, each sentence once over all cards."""
    places = [shown for card in cards for shown in (*card.energy.values(), *(each for _, each in card.others))]
    return list(dict.fromkeys(shown.unbounded for shown in places if shown.unbounded))


def headlines(cells: Cells) -> list[Headline]:
    """The headline figures of each cell; figures of one kind share a unit over all cells."""
    energy = {
        basis: column(cells, "", *[energy_per_token(each) for each in BASES])[index]
        for index, basis in enumerate(BASES)
    }
    others = [
        ("mean power", column(cells, "", "power_mean_w")[0]),
        ("throughput", column(cells, "", "output_tokens_per_s")[0]),
    ]
    ranks = dict(zip(TTFT_RANKS, column(cells, "", *[f"ttft_{rank}_s" for rank in TTFT_RANKS]), strict=True))
    carbon = dict(zip(BASES, column(cells, "", *[carbon_per_1k(basis) for basis in BASES]), strict=True))
    return [
        Headline(
            title=cell_load_text(cell),
            where=where(cell),
            main=main,
            energy={
                basis: format_figure(
                    cell["figures"].get(c.name), c.scale, per="output token" if basis == main else None
                )
                for basis, c in energy.items()
            },
            others=[
                (label, format_figure(cell["figures"].get(c.name), c.scale, per=None))
                for label, c in [
                    *others,
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
    """The highest percentile of TTFT that enough requests lie beyond; p99 where there is none."""
    given = [rank for rank in TTFT_RANKS[1:] if (cell["figures"].get(f"ttft_{rank}_s") or {}).get("valid")]
    return given[-1] if given else TTFT_RANKS[-1]


def best_basis(cell: dict[str, Any]) -> str | None:
    """The first of `BASES` on which the cell's energy per output token is given; None where it is on none."""
    for basis in BASES:
        figure = cell["figures"].get(energy_per_token(basis))
        if figure and figure["valid"]:
            return basis
    return None


def energy_per_token(basis: str) -> str:
    """Name of the energy per output token on a basis."""
    return f"energy_{basis}_per_output_token_j"


def carbon_per_1k(basis: str) -> str:
    """Name of the carbon per 1000 output tokens on a basis."""
    return "carbon_per_1k_output_tokens_g" if basis == "total" else f"carbon_{basis}_per_1k_output_tokens_g"


def where(cell: dict[str, Any]) -> str:
    """Which model on which server and machine, and which cell of the experiment."""
    model, server = model_name(cell), str(cell.get("server") or "")
    parts = [model, server if server != model else "", str(cell.get("machine") or ""), str(cell["cell"])]
    return " · ".join(part for part in parts if part)


def model_name(cell: dict[str, Any]) -> str:
    """The cell's model; empty where the summary has none."""
    model = cell.get("model")
    return str((model.get("name") if isinstance(model, dict) else model) or "")


def energy_table(cells: Cells) -> Table:
    """Energy of each cell on each basis, whole and per token and request."""
    names = ("{}_j", "{}_kwh", "{}_per_output_token_j", "{}_per_prompt_token_j", "{}_per_request_j")
    headings = ("energy", "energy", "per output token", "per prompt token", "per request")
    columns = [
        column(cells, heading, *[f"energy_{name.format(basis)}" for basis in BASES], digits=4 if index < 2 else 3)
        for index, (name, heading) in enumerate(zip(names, headings, strict=True))
    ]
    table = Table(["basis", *[found[0].heading for found in columns], "boundary, grade"])
    for cell in cells:
        table.heading(cell_title(cell, cells))
        for index, basis in enumerate(BASES):
            shown = [found[index].read(cell) for found in columns]
            known = " · ".join(shown[0].qualifiers[1:]) if shown[0].qualifiers else "–"
            table.add(TableCell(basis, "head"), *table.numbers(shown, tagged=False), TableCell(known))
    return table


def work_table(cells: Cells) -> Table:
    """What was done in each cell: time, power, requests and tokens."""
    wanted = [
        ("duration", "duration_s"),
        ("mean power", "power_mean_w"),
        ("requests", "requests"),
        ("output tokens", "output_tokens"),
        ("prompt tokens", "prompt_tokens"),
        ("cached", "cached_tokens"),
        ("output tokens / s", "output_tokens_per_s"),
        ("requests / s", "requests_per_s"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in wanted]
    table = Table(["load", *[one.heading for one in columns]])
    for cell in cells:
        table.add(TableCell(cell_title(cell, cells), "head"), *table.numbers([one.read(cell) for one in columns]))
    return table


def impact_table(cells: Cells) -> Table:
    """Carbon and water of each cell."""
    wanted = [
        ("carbon", "carbon_total_g"),
        ("per 1k output tokens", "carbon_per_1k_output_tokens_g"),
        ("per request", "carbon_per_request_g"),
        ("water, site", "water_site_l"),
        ("water, source", "water_source_l"),
        ("water, both", "water_total_l"),
    ]
    columns = [column(cells, heading, name)[0] for heading, name in wanted]
    table = Table(["load", *[one.heading for one in columns], "basis, boundary, grade"])
    for cell in cells:
        shown = [one.read(cell) for one in columns]
        known = next((" · ".join(one.qualifiers) for one in shown if one.qualifiers), "–")
        table.add(TableCell(cell_title(cell, cells), "head"), *table.numbers(shown, tagged=False), TableCell(known))
    return table


def cell_title(cell: dict[str, Any], cells: Cells) -> str:
    """A cell's load with its name, and its machine where the cells are of several."""
    kind = cell.get("kind", "steady")
    text = cell_load_text(cell) + (f" ({kind} only)" if kind != "steady" else "") + f" · {cell['cell']}"
    return f"{text} · {cell['machine']}" if len({each.get("machine") for each in cells}) > 1 else text


def devices_table(cells: Cells) -> Table:
    """Energy of every channel, its counter beside the integrals of its power, and whether it is part of the sum.

    Where the window's energy is not given, neither is that of any channel: the reason may lie in each of them. The
    ratios stay, for they are what a check says.
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
"""The power readings whose integrals are compared with a counter."""


def _amount(value: float | None) -> TableCell:
    return TableCell("–" if value is None else significant(value, 4), "number")


def factors(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Carbon and water factors with their sources; what was not configured says so."""
    given = summary.get("factors")
    if not given:
        return []
    carbon, water = given["carbon"], given["water"]
    rows = [
        (
            "carbon intensity",
            f"{carbon['intensity_g_per_kwh']:g} g CO₂e / kWh, {carbon['basis']}, zone {carbon['zone']}; "
            f"source: {carbon['source']}",
        ),
        ("PUE", f"{given['pue']:g}; source: {given['pue_source']}"),
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


NOT_ASKED = ("no_factor", "no_schedule", "few_samples", "wide_bucket")
"""Reasons that take nothing from a cell that could have been had; they stand beside their figures."""


def checks_table(cells: Sequence[dict[str, Any]]) -> Table:
    """One row a cell; green and red are said in words too."""
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
            lag(checks.get("client_lag_s")),
            against(cell),
        )
    return table


def steadiness(check: dict[str, Any] | None) -> list[TableCell]:
    """Two columns: the trends over the window, and how its first fifth differs from its last half (Geweke)."""
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
    """`passed`, `failed` or `not judged`: what both tests of a window say together."""
    if not check or not check.get("judged"):
        return "not judged"
    tests = [test for kind in ("trends", "stationarity") for test in (check.get(kind) or {}).values()]
    return "failed" if any(test["exceeded"] for test in tests) else "passed"


def counters(devices: Sequence[dict[str, Any]]) -> TableCell:
    """The integrals of each device's power readings over its counter."""
    found = []
    for device in devices:
        ratios = device.get("ratios") or {}
        shown = [f"{name}\u00a0{ratio:.4f}" for name in READINGS if (ratio := ratios.get(name)) is not None]
        if shown:
            found.append(f"{device_label(device['domain'], short_device(device['device']))}: {', '.join(shown)}")
    return TableCell("; ".join(found) if found else "no device has both a counter and a power reading")


def tokens(check: dict[str, Any] | None) -> TableCell:
    """How far the client's token counts are from the server's counters."""
    rows = {name: row for name, row in (check or {}).items() if row}
    if not rows:
        return TableCell("not checked: the server's counters were not read")
    verdicts = [row["agrees"] for name, row in rows.items() if name != "cached"]
    found = ", ".join(
        f"{name} {100 * row['share']:+.2f}\u00a0%"
        if row.get("share") is not None
        else f"{name} {row['difference']:+.0f}"
        for name, row in rows.items()
    )
    if False in verdicts:
        return TableCell(f"disagree: {found}", "bad")
    if None in verdicts:
        return TableCell(f"not resolved, the server's counters are read too seldom for this window: {found}")
    return TableCell(f"agree: {found}", "good")


def lag(check: dict[str, float] | None) -> TableCell:
    """How late the client sent requests."""
    if not check:
        return TableCell("no schedule to be late for")
    return TableCell(f"p99 {1e3 * check['p99']:.1f} ms, most {1e3 * check['max']:.1f} ms")


def against(cell: dict[str, Any]) -> TableCell:
    """The reasons that took a figure from this cell, each once; what was never asked for is no failure."""
    reasons = [reason for figure in cell["figures"].values() if not figure["valid"] for reason in figure["reasons"]]
    details = dict.fromkeys(sentence(str(r["detail"])) for r in reasons if r["code"] not in NOT_ASKED)
    return TableCell(" ".join(details), "bad") if details else TableCell("none", "good")


def short_device(device: str) -> str:
    """A device's name without the long end of a UUID."""
    return device[:12] if device.upper().startswith("GPU-") else device


def _tested(tests: dict[str, dict[str, Any]], share: str, required: bool) -> TableCell:
    if not tests:
        return TableCell("not tested")
    found = ", ".join(
        f"{TRENDS.get(name, name)} {100 * test[share]:+.1f}\u00a0% (p\u00a0{_p(test.get('p_value'))})"
        for name, test in tests.items()
    )
    if not required:
        return TableCell(f"not required: {found}")
    if any(test["exceeded"] for test in tests.values()):
        return TableCell(f"no: {found}", "bad")
    return TableCell(f"yes: {found}", "good")


def _p(value: float | None) -> str:
    if value is None:
        return "not recorded"
    return "<\u00a00.001" if value < 0.001 else f"{value:.2g}"
