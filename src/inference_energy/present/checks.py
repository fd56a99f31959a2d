"""What the checks of a cell found, in words: steadiness, power against counters, token counts, the client's lag."""

from collections.abc import Sequence
from typing import Any

from inference_energy.present.formats import sentence
from inference_energy.present.inputs import channel_label
from inference_energy.present.sections import READINGS, cell_title
from inference_energy.present.tables import Cell, Table

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
            Cell(cell_title(cell, cells), "head"),
            *steadiness(checks.get("steadiness")),
            counters(cell.get("devices") or []),
            tokens(checks.get("reconciliation")),
            lag(checks.get("client_lag_s")),
            against(cell),
        )
    return table


def steadiness(check: dict[str, Any] | None) -> list[Cell]:
    """Two columns: the trends over the window, and how its first fifth differs from its last half (Geweke)."""
    if not check:
        return [Cell("steadiness was not checked", span=2)]
    if not check.get("judged"):
        return [Cell(f"not judged: {check.get('why_not_judged') or 'no reason was recorded'}", span=2)]
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


def counters(devices: Sequence[dict[str, Any]]) -> Cell:
    """The integrals of each device's power readings over its counter."""
    found = []
    for device in devices:
        ratios = device.get("ratios") or {}
        shown = [f"{name}\u00a0{ratio:.4f}" for name in READINGS if (ratio := ratios.get(name)) is not None]
        if shown:
            found.append(f"{channel_label(device['domain'], short_device(device['device']))}: {', '.join(shown)}")
    return Cell("; ".join(found) if found else "no device has both a counter and a power reading")


def tokens(check: dict[str, Any] | None) -> Cell:
    """How far the client's token counts are from the server's counters."""
    rows = {name: row for name, row in (check or {}).items() if row}
    if not rows:
        return Cell("not checked: the server's counters were not read")
    verdicts = [row["agrees"] for name, row in rows.items() if name != "cached"]
    found = ", ".join(
        f"{name} {100 * row['share']:+.2f}\u00a0%"
        if row.get("share") is not None
        else f"{name} {row['difference']:+.0f}"
        for name, row in rows.items()
    )
    if False in verdicts:
        return Cell(f"disagree: {found}", "bad")
    if None in verdicts:
        return Cell(f"not resolved, the server's counters are read too seldom for this window: {found}")
    return Cell(f"agree: {found}", "good")


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


def short_device(device: str) -> str:
    """A device's name without the long end of a UUID."""
    return device[:12] if device.upper().startswith("GPU-") else device


def _tested(tests: dict[str, dict[str, Any]], share: str, required: bool) -> Cell:
    if not tests:
        return Cell("not tested")
    found = ", ".join(
        f"{TRENDS.get(name, name)} {100 * test[share]:+.1f}\u00a0% (p\u00a0{_p(test.get('p_value'))})"
        for name, test in tests.items()
    )
    if not required:
        return Cell(f"not required: {found}")
    if any(test["exceeded"] for test in tests.values()):
        return Cell(f"no: {found}", "bad")
    return Cell(f"yes: {found}", "good")


def _p(value: float | None) -> str:
    if value is None:
        return "not recorded"
    return "<\u00a00.001" if value < 0.001 else f"{value:.2g}"
