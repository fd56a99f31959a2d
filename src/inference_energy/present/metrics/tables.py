"""Tables of the metric family, for the report and for the terminal."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from inference_energy.present.cell_tables import BASES, cell_title
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
from inference_energy.present.tables import Table, TableCell

Cells = Sequence[dict[str, Any]]

PLAIN = Scale(1.0, "")
MILLION = Scale(1e-6, "M")
LOADS = {"goodput_requests_per_s": "good requests / s", "output_tokens_per_s": "output tokens / s"}


def metric_cells(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The summary's steady cells with the figures of the metric family beside their own."""
    metric_figures = {(cell["machine"], cell["cell"]): cell["figures"] for cell in summary["metrics"]["cells"]}
    return [
        {**cell, "figures": {**cell["figures"], **metric_figures.get((cell["machine"], cell["cell"]), {})}}
        for cell in summary["cells"]
        if cell.get("kind", "steady") == "steady"
    ]


def efficiency_table(cells: Cells) -> Table:
    """Energy per output token on each basis, and the same turned round."""
    return _by_basis(
        cells,
        [
            ("J / output token", "energy_{}_per_output_token_j"),
            ("Wh / 1k output tokens", "energy_{}_per_1k_output_tokens_wh"),
            ("tokens / J", "efficiency_{}_tokens_per_j"),
            ("M tokens / kWh", "efficiency_{}_tokens_per_kwh"),
        ],
    )


def served_table(cells: Cells) -> Table:
    """Goodput per joule, and energy-delay products, on each basis."""
    return _by_basis(
        cells,
        [
            ("good requests / J", "goodput_{}_requests_per_j"),
            ("good tokens / J", "goodput_{}_tokens_per_j"),
            ("energy-delay of a request (J s)", "energy_delay_{}_per_request_j_s"),
            ("energy-delay of a token (J s)", "energy_delay_{}_per_token_j_s"),
        ],
    )


def _by_basis(cells: Cells, headings: Sequence[tuple[str, str]]) -> Table:
    """A row for each basis of each window; figures that fail for one reason, two and two, share a cell."""
    table = Table(["basis", *[heading for heading, _ in headings]])
    for cell in cells:
        qualifiers = format_figure(cell["figures"]["energy_total_j"]).qualifiers[1:]
        table.heading(" · ".join([cell_title(cell, cells), *qualifiers]))
        for basis in BASES:
            shown = [_shown(cell, name.format(basis), MILLION if "kwh" in name else PLAIN) for _, name in headings]
            pairs = [*table.numbers(shown[:2], tagged=False), *table.numbers(shown[2:], tagged=False)]
            table.add(TableCell(basis, "head"), *pairs)
    return table


def request_table(cells: Cells) -> Table:
    """Energy of a request: mean, percentiles, and the shares of its parts."""
    names = ["energy_total_per_request_j", *[f"request_energy_{rank}_j" for rank in ("p50", "p90", "p99")]]
    shares = [f"request_energy_{part}_share" for part in ("prefill", "decode", "idle")]
    table = Table(["load", "mean (J)", "p50 (J)", "p90 (J)", "p99 (J)", "prefill (%)", "decode (%)", "cold idle (%)"])
    for cell in cells:
        amounts = [table.number(_shown(cell, name, PLAIN)) for name in names]
        split = table.numbers([_shown(cell, name, PERCENT) for name in shares[:2]])
        idle = table.number(_shown(cell, shares[2], PERCENT))
        table.add(TableCell(cell_title(cell, cells), "head"), *amounts, *split, idle)
    return table


def impact_table(cells: Cells) -> Table:
    """SCI with its two parts, water with its two, and ESS for comparison."""
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
    for cell in cells:
        shown = [_shown(cell, name, scale) for _, name, scale in headings]
        carbon = [*table.numbers(shown[:2]), table.number(shown[2]), table.number(shown[3])]
        table.add(
            TableCell(cell_title(cell, cells), "head"), *carbon, *table.numbers(shown[4:6]), table.number(shown[6])
        )
    return table


def quality_table(cells: Cells) -> Table:
    """Accuracy, and what a right answer costs; windows without graded prompts share one row."""
    names = [f"energy_{basis}_per_correct_answer_j" for basis in BASES]
    floor = "goodput_total_requests_per_kwh_at_floor"
    headings = ["accuracy (%)", "right answers", *[f"J / right answer, {basis}" for basis in BASES]]
    table = Table(["load", *headings, "good requests / kWh at the quality floor"])
    for cell in cells:
        accuracy = _shown(cell, "accuracy_share", PERCENT)
        shown = [accuracy, _shown(cell, "correct_answers", PLAIN), *[_shown(cell, name, PLAIN) for name in names]]
        one = table.number(_shown(cell, floor, PLAIN))
        table.add(TableCell(cell_title(cell, cells), "head"), *table.numbers(shown), one)
    return table


def sweep_table(sweeps: Sequence[dict[str, Any]]) -> Table:
    """Load proportionality, a row for each workload on each server."""
    headings = ["proportionality (EP)", "idle / peak power (%)", "work / J over all levels"]
    table = Table(["sweep", "levels", "full load", *headings])
    for sweep in sweeps:
        figures = sweep["figures"]
        overall = next(name for name in figures if name.startswith("overall_"))
        curve = [
            format_figure(figures["energy_proportionality"], PLAIN),
            format_figure(figures["idle_to_peak_share"], PERCENT),
            format_figure(figures[overall]),
        ]
        full = f"{significant(sweep['grid'][-1]['rate'])} {LOADS[sweep['rate']]}" if sweep["grid"] else "–"
        head, levels = TableCell(sweep_title(sweep, sweeps), "head"), TableCell(str(len(sweep["levels"])), "number")
        table.add(head, levels, TableCell(full), *table.numbers(curve))
    return table


def daily_table(sweeps: Sequence[dict[str, Any]]) -> Table:
    """What a day of traffic takes."""
    names = ("daily_energy_kwh", "daily_carbon_kg", "daily_water_site_l", "daily_water_source_l")
    table = Table(["sweep", "kWh", "kg CO₂e", "L on site", "L at the source"])
    for sweep in sweeps:
        shown = [format_figure(sweep["figures"][name], PLAIN) for name in names]
        table.add(TableCell(sweep_title(sweep, sweeps), "head"), *table.numbers(shown))
    return table


def sweep_title(sweep: dict[str, Any], sweeps: Sequence[dict[str, Any]]) -> str:
    """Workload and server, with the machine where there are several."""
    text = f"{sweep['workload']} · {sweep['server']}"
    return f"{text} · {sweep['machine']}" if len({each["machine"] for each in sweeps}) > 1 else text


def left_out(sweeps: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The windows that are in no sweep though they are steady, each with the reasons."""
    return [
        (row["cell"], " ".join(sentence(each["detail"]) for each in row["reasons"]))
        for sweep in sweeps
        for row in sweep["left_out"]
    ]


def hours_table(sweeps: Sequence[dict[str, Any]]) -> Table | None:
    """What is asked in each hour of the day, and the power it takes; None where there is no day."""
    with_day = [sweep for sweep in sweeps if sweep["hours"]]
    if not with_day:
        return None
    grades = [str(sweep["figures"]["daily_energy_kwh"]["grade"]) for sweep in with_day]
    powers = [f"W, {grade}" if grade in UNTRUSTED_GRADES else "W" for grade in grades]
    table = Table(["hour", *[f"{sweep_title(sweep, sweeps)}: asked / s" for sweep in with_day], *powers])
    for hour in range(len(with_day[0]["hours"])):
        rows = [sweep["hours"][hour] for sweep in with_day]
        rates = [TableCell(significant(row["rate"]), "number") for row in rows]
        table.add(
            TableCell(f"{hour}:00", "head"), *rates, *[TableCell(significant(row["power_w"]), "number") for row in rows]
        )
    return table


def front_tables(summary: dict[str, Any], cells: Cells) -> list[tuple[str, Table]]:
    """For each pair of figures a heading and the windows that may be compared, those on the front first."""
    cells_by_name = {(cell["machine"], cell["cell"]): cell for cell in cells}
    return [
        (_front_title(front), _front_table(front, cells_by_name, cells))
        for front in summary["metrics"]["fronts"]
        if front["groups"] or front["left_out"]
    ]


def cost_table(summary: dict[str, Any]) -> Table:
    """Coefficients of the fits with their standard errors, VIF and condition number."""
    extra = {(cost["machine"], cost["server"]): cost["models"] for cost in summary["metrics"]["token_costs"]}
    table = Table(["coefficient", "value", "standard error", "VIF", "condition number"])
    for fit in summary["fits"]:
        for name, model in fit["models"].items():
            cost = extra.get((fit["machine"], fit["server"]), {}).get(name)
            if cost is None:
                continue
            table.heading(f"{model_title(model)} · {fit['server']} on {fit['machine']}")
            for term, figure in model["coefficients"].items():
                table.add(
                    TableCell(TERMS.get(term, term), "head"),
                    _with_unit(table, figure),
                    _error(cost["standard_errors"].get(term), figure),
                    _plain(cost["vif"].get(term)),
                    _plain(model.get("condition_number")),
                )
    return table


def _with_unit(table: Table, figure: dict[str, Any]) -> TableCell:
    """A figure in a column whose rows have units of their own."""
    shown, cell = format_figure(figure), table.number(format_figure(figure))
    return replace(cell, text=shown.text.replace(" ", "\u00a0")) if shown.has_value else cell


def _error(value: float | None, figure: dict[str, Any]) -> TableCell:
    if value is None:
        return TableCell("–", "number")
    shown = format_figure({**figure, "value": value, "interval_95": None, "budget": None})
    return TableCell(shown.text, "number")


def _plain(value: float | None) -> TableCell:
    return TableCell("–" if value is None else significant(value, 3), "number")


def _shown(cell: dict[str, Any], name: str, scale: Scale) -> FormattedFigure:
    return format_figure(cell["figures"].get(name), scale)


def _front_title(front: dict[str, Any]) -> str:
    ways = ["more is better" if larger else "less is better" for larger in front["larger_is_better"]]
    return " against ".join(f"{name} ({way})" for name, way in zip(front["figures"], ways, strict=True))


def _front_table(front: dict[str, Any], cells_by_name: dict[tuple[str, str], dict[str, Any]], cells: Cells) -> Table:
    table = Table(["load", *front["figures"], "on the front"])
    for group in front["groups"]:
        if len(front["groups"]) > 1:
            words = [group["workload"], *[text for text in group["known"] if text]]
            table.heading(" · ".join(dict.fromkeys(words)))
        for point in sorted(group["points"], key=lambda point: (bool(point["dominated_by"]), point["values"][0])):
            cell = cells_by_name[point["machine"], point["cell"]]
            shown = [_with_unit(table, cell["figures"][name]) for name in front["figures"]]
            better = ", ".join(each["cell"] for each in point["dominated_by"])
            verdict = TableCell(f"no: dominated by {better}", "text") if better else TableCell("yes", "good")
            table.add(TableCell(cell_title(cell, cells), "head"), *shown, verdict)
    for row in front["left_out"]:
        why = " ".join(sentence(text) for text in row["reasons"])
        table.add(TableCell(row["cell"], "head"), TableCell(f"{NOT_GIVEN}: {why}", "missing", span=3))
    return table
