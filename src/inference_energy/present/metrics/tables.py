"""Tables of the metric family, for the report and for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from inference_energy.contracts.documents.experiment import (
    LoadSweep,
    MetricsDocument,
    ParetoFront,
    SummaryDocument,
    SummaryWindow,
)
from inference_energy.contracts.figure import Figure
from inference_energy.present.figures_text import (
    NOT_GIVEN,
    PERCENT,
    UNTRUSTED_GRADES,
    FormattedFigure,
    Scale,
    format_figure,
    sentence,
    significant,
)
from inference_energy.present.fits import TERMS, model_title
from inference_energy.present.report_inputs import Windows, steady_windows
from inference_energy.present.tables import Table, TableCell
from inference_energy.present.window_tables import BASES, window_title

Sweeps = Sequence[LoadSweep]

PLAIN = Scale(1.0, "")
MILLION = Scale(1e-6, "M")
LOADS = {"goodput_requests_per_s": "good requests / s", "output_tokens_per_s": "output tokens / s"}


def metric_windows(summary: SummaryDocument, metrics: MetricsDocument) -> list[SummaryWindow]:
    """Return the summary's steady windows, with the figures of the metric family added."""
    added = {(window.machine, window.cell): window.figures for window in metrics.cells}
    return [
        structs.replace(window, figures={**window.figures, **added.get((window.machine, window.cell), {})})
        for window in steady_windows(summary)
    ]


def efficiency_table(windows: Windows) -> Table:
    """Tabulate energy per output token and its inverse, on each basis."""
    return _by_basis(
        windows,
        [
            ("J / output token", "energy_{}_per_output_token_j"),
            ("Wh / 1k output tokens", "energy_{}_per_1k_output_tokens_wh"),
            ("tokens / J", "efficiency_{}_tokens_per_j"),
            ("M tokens / kWh", "efficiency_{}_tokens_per_kwh"),
        ],
    )


def served_table(windows: Windows) -> Table:
    """Tabulate goodput per joule and energy-delay products, on each basis."""
    return _by_basis(
        windows,
        [
            ("good requests / J", "goodput_{}_requests_per_j"),
            ("good tokens / J", "goodput_{}_tokens_per_j"),
            ("energy-delay of a request (J s)", "energy_delay_{}_per_request_j_s"),
            ("energy-delay of a token (J s)", "energy_delay_{}_per_token_j_s"),
        ],
    )


def _by_basis(windows: Windows, headings: Sequence[tuple[str, str]]) -> Table:
    """Tabulate figures on each basis; neighbors that are missing for one reason share a cell."""
    table = Table(["basis", *[heading for heading, _ in headings]])
    for window in windows:
        qualifiers = format_figure(window.figures["energy_total_j"]).qualifiers[1:]
        table.heading(" · ".join([window_title(window, windows), *qualifiers]))
        for basis in BASES:
            shown = [_shown(window, name.format(basis), MILLION if "kwh" in name else PLAIN) for _, name in headings]
            pairs = [*table.numbers(shown[:2], tagged=False), *table.numbers(shown[2:], tagged=False)]
            table.add(TableCell(basis, "head"), *pairs)
    return table


def request_table(windows: Windows) -> Table:
    """Tabulate energy per request: mean, percentiles, and the shares of its parts."""
    names = ["energy_total_per_request_j", *[f"request_energy_{rank}_j" for rank in ("p50", "p90", "p99")]]
    shares = [f"request_energy_{part}_share" for part in ("prefill", "decode", "idle")]
    table = Table(["load", "mean (J)", "p50 (J)", "p90 (J)", "p99 (J)", "prefill (%)", "decode (%)", "cold idle (%)"])
    for window in windows:
        amounts = [table.number(_shown(window, name, PLAIN)) for name in names]
        split = table.numbers([_shown(window, name, PERCENT) for name in shares[:2]])
        idle = table.number(_shown(window, shares[2], PERCENT))
        table.add(TableCell(window_title(window, windows), "head"), *amounts, *split, idle)
    return table


def impact_table(windows: Windows) -> Table:
    """Tabulate SCI and water with their parts, and ESS for comparison."""
    milli = Scale(1000.0, "m")
    headings = [
        ("SCI (mg CO₂e / 1k tokens)", "sci_per_1k_output_tokens_g", milli),
        ("SCI (mg CO₂e / request)", "sci_per_request_g", milli),
        ("operation (mg / 1k tokens)", "carbon_per_1k_output_tokens_g", milli),
        ("embodied (mg / 1k tokens)", "embodied_per_1k_output_tokens_g", milli),
        ("water on site (mL / 1k tokens)", "water_site_per_1k_output_tokens_l", milli),
        ("water at the source (mL / 1k tokens)", "water_source_per_1k_output_tokens_l", milli),
        ("for comparison only: ESS (M parameters / g)", "ess_million_parameters_per_g", PLAIN),
    ]
    table = Table(["load", *[heading for heading, *_ in headings]])
    for window in windows:
        shown = [_shown(window, name, scale) for _, name, scale in headings]
        carbon = [*table.numbers(shown[:2]), table.number(shown[2]), table.number(shown[3])]
        table.add(
            TableCell(window_title(window, windows), "head"),
            *carbon,
            *table.numbers(shown[4:6]),
            table.number(shown[6]),
        )
    return table


def quality_table(windows: Windows) -> Table:
    """Tabulate accuracy and energy per right answer."""
    names = [f"energy_{basis}_per_correct_answer_j" for basis in BASES]
    floor = "goodput_total_requests_per_kwh_at_floor"
    headings = ["accuracy (%)", "right answers", *[f"J / right answer, {basis}" for basis in BASES]]
    table = Table(["load", *headings, "good requests / kWh at the quality floor"])
    for window in windows:
        accuracy = _shown(window, "accuracy_share", PERCENT)
        shown = [accuracy, _shown(window, "correct_answers", PLAIN), *[_shown(window, name, PLAIN) for name in names]]
        one = table.number(_shown(window, floor, PLAIN))
        table.add(TableCell(window_title(window, windows), "head"), *table.numbers(shown), one)
    return table


def sweep_table(sweeps: Sweeps) -> Table:
    """Tabulate energy proportionality, a row per workload and server."""
    headings = ["proportionality (EP)", "idle / peak power (%)", "work / J over all levels"]
    table = Table(["sweep", "levels", "full load", *headings])
    for sweep in sweeps:
        figures = sweep.figures
        overall = next(name for name in figures if name.startswith("overall_"))
        curve = [
            format_figure(figures["energy_proportionality"], PLAIN),
            format_figure(figures["idle_to_peak_share"], PERCENT),
            format_figure(figures[overall]),
        ]
        full = f"{significant(sweep.grid[-1].rate)} {LOADS[sweep.rate]}" if sweep.grid else "–"
        head, levels = TableCell(sweep_title(sweep, sweeps), "head"), TableCell(str(len(sweep.levels)), "number")
        table.add(head, levels, TableCell(full), *table.numbers(curve))
    return table


def daily_table(sweeps: Sweeps) -> Table:
    """Tabulate what a day of traffic takes."""
    names = ("daily_energy_kwh", "daily_carbon_kg", "daily_water_site_l", "daily_water_source_l")
    table = Table(["sweep", "kWh", "kg CO₂e", "L on site", "L at the source"])
    for sweep in sweeps:
        shown = [format_figure(sweep.figures[name], PLAIN) for name in names]
        table.add(TableCell(sweep_title(sweep, sweeps), "head"), *table.numbers(shown))
    return table


def sweep_title(sweep: LoadSweep, sweeps: Sweeps) -> str:
    """Return workload and server, and the machine if there are several."""
    text = f"{sweep.workload} · {sweep.server}"
    return f"{text} · {sweep.machine}" if len({other.machine for other in sweeps}) > 1 else text


def left_out(sweeps: Sweeps) -> list[tuple[str, str]]:
    """Return the steady windows that are in no sweep, each with the reasons."""
    return [
        (row.cell, " ".join(sentence(reason.detail) for reason in row.reasons))
        for sweep in sweeps
        for row in sweep.left_out
    ]


def hours_table(sweeps: Sweeps) -> Table | None:
    """Tabulate the load in each hour of the day and the power it takes; None without a day of traffic."""
    with_day = [(sweep, sweep.hours) for sweep in sweeps if sweep.hours]
    if not with_day:
        return None
    grades = [sweep.figures["daily_energy_kwh"].grade for sweep, _ in with_day]
    powers = [f"W, {grade}" if grade in UNTRUSTED_GRADES else "W" for grade in grades]
    table = Table(["hour", *[f"{sweep_title(sweep, sweeps)}: asked / s" for sweep, _ in with_day], *powers])
    for hour in range(len(with_day[0][1])):
        rows = [hours[hour] for _, hours in with_day]
        rates = [TableCell(significant(row.rate), "number") for row in rows]
        table.add(
            TableCell(f"{hour}:00", "head"), *rates, *[TableCell(significant(row.power_w), "number") for row in rows]
        )
    return table


def front_tables(metrics: MetricsDocument, windows: Windows) -> list[tuple[str, Table]]:
    """Return a title and a table for each pair of figures, with the windows on the front first."""
    windows_by_name = {(window.machine, window.cell): window for window in windows}
    return [
        (_front_title(front), _front_table(front, windows_by_name, windows))
        for front in metrics.fronts
        if front.groups or front.left_out
    ]


def cost_table(summary: SummaryDocument, metrics: MetricsDocument) -> Table:
    """Tabulate the coefficients of the fits with their standard errors, VIF and condition number."""
    extra = {(cost.machine, cost.server): cost.models for cost in metrics.token_costs}
    table = Table(["coefficient", "value", "standard error", "VIF", "condition number"])
    for fit in summary.fits:
        for name, model in fit.models.items():
            cost = extra.get((fit.machine, fit.server), {}).get(name)
            if cost is None:
                continue
            table.heading(f"{model_title(model)} · {fit.server} on {fit.machine}")
            for term, figure in model.coefficients.items():
                table.add(
                    TableCell(TERMS.get(term, term), "head"),
                    _with_unit(table, figure),
                    _error(cost.standard_errors.get(term), figure),
                    _plain(cost.vif.get(term)),
                    _plain(model.condition_number),
                )
    return table


def _with_unit(table: Table, figure: Figure) -> TableCell:
    """Return the cell of a figure with its unit, for a column whose rows have different units."""
    shown = format_figure(figure)
    cell = table.number(shown)
    return replace(cell, text=shown.text.replace(" ", "\u00a0")) if shown.has_value else cell


def _error(value: float | None, figure: Figure) -> TableCell:
    if value is None:
        return TableCell("–", "number")
    shown = format_figure(structs.replace(figure, value=value, interval_95=None, budget=None))
    return TableCell(shown.text, "number")


def _plain(value: float | None) -> TableCell:
    return TableCell("–" if value is None else significant(value, 3), "number")


def _shown(window: SummaryWindow, name: str, scale: Scale) -> FormattedFigure:
    return format_figure(window.figures.get(name), scale)


def _front_title(front: ParetoFront) -> str:
    ways = ["more is better" if larger else "less is better" for larger in front.larger_is_better]
    return " against ".join(f"{name} ({way})" for name, way in zip(front.figures, ways, strict=True))


def _front_table(
    front: ParetoFront, windows_by_name: Mapping[tuple[str, str], SummaryWindow], windows: Windows
) -> Table:
    table = Table(["load", *front.figures, "on the front"])
    for group in front.groups:
        if len(front.groups) > 1:
            words = [group.workload, *[text for text in group.known if text]]
            table.heading(" · ".join(dict.fromkeys(words)))
        for point in sorted(group.points, key=lambda point: (bool(point.dominated_by), point.values[0] or 0.0)):
            window = windows_by_name[point.machine, point.cell]
            shown = [_with_unit(table, window.figures[name]) for name in front.figures]
            better = ", ".join(other.cell for other in point.dominated_by)
            verdict = TableCell(f"no: dominated by {better}", "text") if better else TableCell("yes", "good")
            table.add(TableCell(window_title(window, windows), "head"), *shown, verdict)
    for row in front.left_out:
        why = " ".join(sentence(text) for text in row.reasons)
        table.add(TableCell(row.cell, "head"), TableCell(f"{NOT_GIVEN}: {why}", "missing", span=3))
    return table
