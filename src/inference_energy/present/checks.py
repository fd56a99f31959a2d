"""What the checks of a cell found, in words: steadiness, token counts against the server's, the client's lag."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.formats import sentence
from inference_energy.present.sections import cell_title
from inference_energy.present.tables import Cell, Table

TRENDS = {
    "power_w": "power",
    "output_tokens_per_s": "tokens/s",
    "running_requests": "running requests",
    "requests_in_flight": "requests in flight",
}


NOT_ASKED = ("no_factor", "no_schedule")


def checks_table(cells: Sequence[dict[str, Any]]) -> Table:
    """One row a cell; green and red are said in words too."""
    table = Table(["load", "steady", "tokens, client against server", "client lag", "figures not given, because"])
    for cell in cells:
        checks = cell.get("checks") or {}
        table.add(
            Cell(cell_title(cell, cells), "head"),
            steady(checks.get("steadiness")),
            tokens(checks.get("reconciliation")),
            lag(checks.get("client_lag_s")),
            against(cell),
        )
    return table


def steady(check: dict[str, Any] | None) -> Cell:
    """Whether the window was steady, with the trends that were found."""
    if not check:
        return Cell("not checked")
    if not check.get("judged"):
        return Cell(f"not judged: {check.get('why_not_judged') or 'no reason was recorded'}")
    trends = check.get("trends") or {}
    found = ", ".join(
        f"{TRENDS.get(name, name)} {100 * trend['change_share']:+.1f}\u00a0%" for name, trend in trends.items()
    )
    if not check.get("required", True):
        return Cell(f"not required: {found}")
    if any(trend["exceeded"] for trend in trends.values()):
        return Cell(f"no: {found}", "bad")
    return Cell(f"yes: {found}", "good")


def tokens(check: dict[str, Any] | None) -> Cell:
    """How far the client's token counts are from the server's counters."""
    rows = {name: row for name, row in (check or {}).items() if row}
    if not rows:
        return Cell("not checked: the server's counters were not read")
    agree = all(row["agrees"] for name, row in rows.items() if name != "cached")
    found = ", ".join(
        f"{name} {100 * row['share']:+.2f}\u00a0%"
        if row.get("share") is not None
        else f"{name} {row['difference']:+.0f}"
        for name, row in rows.items()
    )
    return Cell(f"{'agree' if agree else 'disagree'}: {found}", "good" if agree else "bad")


def lag(check: dict[str, float] | None) -> Cell:
    """How late the client sent requests."""
    if not check:
        return Cell("no schedule to be late for")
    return Cell(f"p99 {1e3 * check['p99']:.1f} ms, most {1e3 * check['max']:.1f} ms")


def against(cell: dict[str, Any]) -> Cell:
    """The reasons that took a figure from this cell, each once; what was never asked for is no failure."""
    reasons = [reason for figure in cell["figures"].values() if not figure["valid"] for reason in figure["reasons"]]
    details = dict.fromkeys(sentence(str(r["detail"])) for r in reasons if r["code"] not in NOT_ASKED)
    return Cell(" ".join(details), "bad") if details else Cell("none", "good")
