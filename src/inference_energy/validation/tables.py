"""Tables of trials: for the terminal, and in Markdown for the documentation."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from inference_energy.validation.coverage import BIAS_LIMIT, Coverage, Row
from inference_energy.validation.trial import Outcome

NO_INTERVAL = "no interval yet"


def outcome_table(title: str, rows: Sequence[tuple[str, Outcome]]) -> Table:
    """Truth / measured / interval / covered, one line a figure."""
    table = Table(title=title, title_justify="left")
    for heading, right in (
        ("", False),
        ("figure", False),
        ("truth", True),
        ("measured", True),
        ("difference", True),
        ("95 % interval", True),
        ("covered", False),
    ):
        table.add_column(heading, justify="right" if right else "left")
    last = ""
    for where, row in rows:
        table.add_row("" if where == last else where, f"{row.quantity} [{row.unit}]".replace("[", r"\["), *_cells(row))
        last = where
    return table


def _cells(row: Outcome) -> tuple[str, ...]:
    truth = "none" if row.truth is None else f"{row.truth:.5g}"
    if row.measured is None:
        return truth, f"not given: {', '.join(row.reasons)}", "", "", ""
    difference = "" if row.error is None else f"{100 * row.error:+.2f} %"
    if row.interval is None:
        return truth, f"{row.measured:.5g}", difference, NO_INTERVAL, ""
    low, high = row.interval
    return truth, f"{row.measured:.5g}", difference, f"{low:.5g} to {high:.5g}", "yes" if row.covered else "no"


def coverage_table(title: str, rows: Iterable[Row]) -> Table:
    """Bias, spread and coverage, one line a figure of a scenario."""
    table = Table(title=title, title_justify="left")
    for heading in ("scenario", "figure", "given", "bias", "spread", "covered"):
        table.add_column(heading, justify="left" if heading in ("scenario", "figure") else "right")
    last = ""
    for row in rows:
        table.add_row("" if row.scenario == last else row.scenario, row.quantity, *_coverage_cells(row))
        last = row.scenario
    return table


def coverage_markdown(rows: Iterable[Row]) -> str:
    """The same as a Markdown table."""
    lines = ["| scenario | figure | given | bias | spread | covered |", "|---|---|---|---|---|---|"]
    last = ""
    for row in rows:
        cells = _coverage_cells(row)
        lines.append(f"| {'' if row.scenario == last else row.scenario} | {row.quantity} | {' | '.join(cells)} |")
        last = row.scenario
    return "\n".join(lines)


def _coverage_cells(row: Row) -> tuple[str, str, str, str]:
    given = f"{row.given} of {row.trials}"
    if row.bias is None:
        why = ", ".join(sorted(row.withheld)) or "no truth"
        return given, f"refused: {why}", "", ""
    error = "" if row.bias_se is None else f" ± {100 * 2 * row.bias_se:.2f}"
    spread = "" if row.spread is None else f"{100 * row.spread:.2f} %"
    interval = row.coverage_interval
    covered = NO_INTERVAL
    if row.coverage is not None and interval is not None:
        covered = f"{100 * row.coverage:.1f} % ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return given, f"{100 * row.bias:+.2f}{error} %", spread, covered


def verdict(found: Coverage) -> list[str]:
    """What is wrong, one sentence each; empty where nothing is."""
    return [
        f"{row.scenario}: {row.quantity} is off by {100 * row.bias:+.2f} % on average, more than {100 * BIAS_LIMIT:g} %"
        for row in found.rows
        if row.biased and row.bias is not None
    ]
