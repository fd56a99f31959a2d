"""The client's token counts against the server's own counters, over the same window.

A counter is read once a scrape, so its value at a window's edge is interpolated between the two scrapes around it. The
true value lies between theirs; the largest possible error of both edges is allowed on top of the tolerance. Over a
short window that may be more than the tolerance itself: then a small difference says nothing. Over the whole cell there
is no such error: see `cell_counts`.
"""

from typing import Any

from inference_energy.analysis.figures import reason
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.contracts.figure import Reason

KINDS = ("generated", "prompt", "cached")

MOST_ALLOWANCE = 2.0
"""Largest reading error, in tolerances, at which counts that lie within the tolerance are said to agree."""


def reconcile(
    client: dict[str, int], metrics: ServerMetrics, start_ns: int, end_ns: int, tolerance: float
) -> tuple[dict[str, Any], list[Reason]]:
    """Compare token counts.

    Args:
        client: tokens in the window by the client: `generated`, `prompt`, `cached`.
        metrics: of the session.
        start_ns: start of the window.
        end_ns: end of the window.
        tolerance: largest difference as a share of the server's count.

    Returns:
        Per count `client`, `server`, `difference`, `share`, `allowance` and `agrees`, and the reasons. `agrees` is
        false where the counts are further apart than the tolerance and the reading error together, true where they are
        within the tolerance and the reading error is at most `MOST_ALLOWANCE` of it, and None where neither can be
        told, which is noted. A difference in `cached` is reported and gives no reason: servers differ in what they call
        cached.
    """
    table: dict[str, Any] = {}
    reasons: list[Reason] = []
    for kind in KINDS:
        rise = metrics.rise(kind, start_ns, end_ns)
        if rise is None:
            table[kind] = None
            continue
        server, allowance = rise
        difference = client[kind] - server
        agrees = _agree(abs(difference), tolerance * abs(server), allowance)
        table[kind] = {
            "client": client[kind],
            "server": server,
            "difference": difference,
            "share": difference / server if server else None,
            "allowance": allowance,
            "agrees": agrees,
        }
        if kind == "cached" or agrees:
            continue
        if agrees is None:
            reasons.append(
                reason(
                    "tokens_unresolved",
                    f"The server's counter of {kind} tokens is read too seldom for this window: its rise of "
                    f"{server:.0f} may be off by {allowance:.0f}, so it cannot be told whether the client's count, "
                    f"{client[kind]}, is within {100 * tolerance:g} % of it.",
                )
            )
        else:
            reasons.append(
                reason(
                    "token_mismatch",
                    f"The client counted {client[kind]} {kind} tokens in the window, the server {server:.0f}: more "
                    f"apart than {100 * tolerance:g} % and the {allowance:.0f} tokens of possible reading error.",
                )
            )
    if table["generated"] is None or table["prompt"] is None:
        reasons.append(
            reason(
                "tokens_unreconciled", "The server's token counters do not cover the window, so nothing checks ours."
            )
        )
    return table, reasons


def _agree(apart: float, tolerated: float, allowance: float) -> bool | None:
    """Whether two counts agree; None where the reading error leaves it open."""
    if apart > tolerated + allowance:
        return False
    return True if apart <= tolerated and allowance <= MOST_ALLOWANCE * tolerated else None
