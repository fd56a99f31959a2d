"""Tables of trials for the terminal and in Markdown, and the page docs/validation/bench.md that is made of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.table import Table

from inference_energy import __version__
from inference_energy.validation.bench_trial import TrialOutcome
from inference_energy.validation.calibration import Comparison
from inference_energy.validation.calibration import table as calibration_table
from inference_energy.validation.coverage import BIAS_LIMIT, Coverage, CoverageRow
from inference_energy.validation.scenarios import GAIN_STD, OFFSET_STD_W, SCENARIOS

NO_INTERVAL = "no interval"

TEMPLATE = "bench.md.j2"


def outcome_table(title: str, rows: Sequence[tuple[str, TrialOutcome]]) -> Table:
    """Return a table of truth, measured value, interval and coverage, with one line for each figure."""
    table = _table(title, ("", "figure", "unit"), ("truth", "measured", "difference", "95 % interval", "covered"))
    last = ""
    for window, row in rows:
        table.add_row("" if window == last else window, row.quantity, row.unit, *_cells(row))
        last = window
    return table


def scenario_table(title: str, coverage: Coverage) -> Table:
    """Return a table of given figures, largest bias and coverage, with one line for each scenario."""
    table = _table(title, ("scenario",), ("figures given", "largest bias", "of", "covered"))
    for scenario in dict.fromkeys(row.scenario for row in coverage.rows):
        rows = [row for row in coverage.rows if row.scenario == scenario]
        worst = max((row for row in rows if row.bias is not None), key=lambda row: abs(row.bias or 0.0), default=None)
        covered, intervals = sum(row.covered for row in rows), sum(row.intervals for row in rows)
        table.add_row(
            scenario,
            f"{sum(row.given for row in rows)} of {sum(row.trials for row in rows)}",
            "" if worst is None or worst.bias is None else f"{100 * worst.bias:+.2f} %",
            "" if worst is None else worst.quantity,
            f"{covered} of {intervals}" if intervals else NO_INTERVAL,
        )
    return table


def _table(title: str, left: Iterable[str], right: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(row: TrialOutcome) -> tuple[str, str, str, str, str]:
    truth = "none" if row.truth is None else _number(row.truth)
    if row.measured is None:
        return truth, f"not given: {', '.join(dict.fromkeys(row.reasons))}", "", "", ""
    difference = "" if row.error is None else f"{100 * row.error:+.2f} %"
    if row.interval is None:
        return truth, _number(row.measured), difference, NO_INTERVAL, ""
    low, high = row.interval
    covered = "" if row.covered is None else "yes" if row.covered else "no"
    return truth, _number(row.measured), difference, f"{_number(low)} to {_number(high)}", covered


def _number(value: float) -> str:
    """Format with five digits, without an exponent for large numbers."""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.5g}"


def coverage_table(title: str, rows: Iterable[CoverageRow]) -> Table:
    """Return a table of bias, spread and coverage, with one line for each figure of a scenario."""
    table = _table(title, ("scenario", "figure"), ("given", "bias", "spread", "covered"))
    last = ""
    for row in rows:
        table.add_row("" if row.scenario == last else row.scenario, row.quantity, *_coverage_cells(row))
        last = row.scenario
    return table


def coverage_markdown(rows: Iterable[CoverageRow]) -> str:
    """Return the table of `coverage_table` in Markdown."""
    lines = ["| scenario | figure | given | bias | spread | covered |", "|---|---|---|---|---|---|"]
    last = ""
    for row in rows:
        cells = _coverage_cells(row)
        lines.append(f"| {'' if row.scenario == last else row.scenario} | {row.quantity} | {' | '.join(cells)} |")
        last = row.scenario
    return "\n".join(lines)


def _coverage_cells(row: CoverageRow) -> tuple[str, str, str, str]:
    count = f"{row.given} of {row.trials}"
    if row.bias is None:
        why = ", ".join(sorted(row.withheld)) or "no truth"
        return count, f"refused: {why}", "", ""
    error = "" if row.bias_se is None else f" ± {100 * 2 * row.bias_se:.2f}"
    spread = "" if row.spread is None else f"{100 * row.spread:.2f} %"
    interval = row.coverage_interval
    covered = NO_INTERVAL
    if row.coverage is not None and interval is not None:
        covered = f"{100 * row.coverage:.1f} % ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return count, f"{100 * row.bias:+.2f}{error} %", spread, covered


def verdict(coverage: Coverage) -> list[str]:
    """Return one sentence for each figure with too much bias."""
    return [
        f"{row.scenario}: {row.quantity} is off by {100 * row.bias:+.2f} % on average, more than {100 * BIAS_LIMIT:g} %"
        for row in coverage.rows
        if row.biased and row.bias is not None
    ]


def page(coverage: Coverage, comparisons: list[Comparison], command: str) -> str:
    """Return the page docs/validation/bench.md.

    Args:
        coverage: results of the trials.
        comparisons: residuals of the calibration.
        command: the command that makes the page.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(files("inference_energy.validation").joinpath(TEMPLATE).read_text())
    withheld: Counter[str] = Counter()
    for row in coverage.rows:
        withheld.update(row.withheld)
    errors = [row.energy_error for row in comparisons]
    rows_with_bias = [row for row in coverage.rows if row.bias is not None]
    return (
        template.render(
            command=command,
            version=__version__,
            coverage_of_trials=coverage,
            trials=coverage.seeds * len({row.scenario for row in coverage.rows}),
            scenarios=SCENARIOS,
            gain=GAIN_STD,
            offset_w=OFFSET_STD_W,
            coverage=coverage_markdown(coverage.rows),
            verdict=verdict(coverage),
            worst_bias=max((abs(row.bias) for row in rows_with_bias if row.bias is not None), default=0.0),
            has_intervals=any(row.intervals for row in coverage.rows),
            withheld=sorted(withheld.items()),
            calibration=calibration_table(comparisons),
            worst_calibration=max(abs(error) for error in errors),
            mean_calibration=sum(abs(error) for error in errors) / len(errors),
        ).rstrip()
        + "\n"
    )
