"""Stage `steady_load`: the windows after trimming, what fell into them, and whether their load can be trusted."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis import steadiness
from inference_energy.analysis.bins import bin_edges
from inference_energy.analysis.channels import Channel, read_channels, summed
from inference_energy.analysis.latency import lag_s, latency_figures
from inference_energy.analysis.reconcile import PREEMPTIONS, RUNNING, STEPS, block_means, counter_rise, reconcile
from inference_energy.analysis.recorded import identity, is_closed_loop, load_text, read_session, window_facts
from inference_energy.analysis.trapezoid import Values
from inference_energy.analysis.validity import judged, reason
from inference_energy.analysis.windows import Integers, TokenTimes, Window, snapped, trimmed_windows
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import server_metrics as metrics_contract
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.tables import read_table


def steady_load(
    *, session: Path, phases: Path, requests: Path, server_metrics: Path, power: Path, config: AnalysisConfig
) -> dict[str, Any]:
    """steady_load.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        requests: requests.parquet.
        server_metrics: server_metrics.parquet.
        power: power.parquet.
        config: trimming, limits and tolerances.

    Returns:
        `windows`: for each, `start_ns`, `end_ns`, `kind`, `load`, `counts`, `checks`, `figures` (counts, rates and
        latencies) and `reasons`, which says what stands against `energy` and against `tokens`.

    Raises:
        InputError: a file cannot be used, or a window is shorter than what is cut from it.
    """
    recorded = read_session(session)
    asked = read_table(requests, requests_contract.SCHEMA)
    metrics = read_table(server_metrics, metrics_contract.SCHEMA)
    channels = summed(read_channels(power, config.power_reading))
    windows = {
        window.name: _window(
            _on_counter(window, channels),
            window_facts(recorded, window.name),
            asked[asked["cell"] == window.name],
            metrics=metrics,
            power=channels,
            config=config,
        )
        for window in trimmed_windows(read_table(phases, phases_contract.SCHEMA), config)
    }
    return {"version": 1, **identity(recorded), "client": recorded.get("client"), "windows": windows}


def _window(
    window: Window,
    facts: dict[str, Any],
    requests: pd.DataFrame,
    *,
    metrics: pd.DataFrame,
    power: list[Channel],
    config: AnalysisConfig,
) -> dict[str, Any]:
    tokens = TokenTimes.of(requests)
    steady = _steadiness(window, requests, tokens, metrics, power, config)
    settled: list[Reason] = []
    if facts["kind"] == "steady" and steady["steady"] is False:
        window, steady, settled = _settled(window, steady, requests, tokens, metrics, power, config)
    counts, finished = _counts(window, requests, tokens)
    no_schedule = _no_schedule(facts, counts)
    lag = None if no_schedule else lag_s(requests[_inside(requests["scheduled_ns"], window)])
    table, token_reasons = reconcile(
        {"generated": counts["output_tokens"], "prompt": counts["prompt_tokens"], "cached": counts["cached_tokens"]},
        metrics,
        window.start_ns,
        window.end_ns,
        config.token_tolerance,
    )
    known = all(r.code != "tokens_unreconciled" for r in token_reasons)
    token_reasons += _request_reasons(counts, config, reconciled=known)
    run_reasons = _lag_reasons(lag, config)
    steady_reasons = _steady_reasons(steady) if facts["kind"] == "steady" else []
    preemptions = counter_rise(metrics, PREEMPTIONS, window.start_ns, window.end_ns)
    notes = list(settled)
    if preemptions and preemptions[0] > 0:
        notes.append(reason("preemptions", f"About {preemptions[0]:.0f} preemptions in the window."))
    trends = [*(r for r in steady_reasons if r.code == "not_steady"), *settled]
    figures = _count_figures(window, counts, [*run_reasons, *token_reasons], no_schedule, trends)
    figures |= latency_figures(finished, run_reasons, [*notes, *trends], no_schedule)
    steps = counter_rise(metrics, STEPS, window.start_ns, window.end_ns)
    return {
        "kind": facts["kind"],
        "load": {**facts, "text": load_text(facts)},
        "start_ns": window.start_ns,
        "end_ns": window.end_ns,
        "duration_s": window.duration_s,
        "counts": {
            **counts,
            "scheduled": None if no_schedule else counts["scheduled"],
            "engine_steps": steps[0] if steps else None,
        },
        "checks": {
            "steadiness": {**steady, "required": facts["kind"] == "steady"},
            "reconciliation": table,
            "client_lag_s": lag,
            "preemptions": preemptions[0] if preemptions else None,
        },
        "bins": _bins(window, tokens, finished),
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
        "reasons": {
            "energy": _dicts([*run_reasons, *steady_reasons, *notes]),
            "tokens": _dicts([*run_reasons, *token_reasons]),
        },
    }


def _counts(window: Window, requests: pd.DataFrame, tokens: TokenTimes) -> tuple[dict[str, Any], pd.DataFrame]:
    """What fell into the window, and the requests that ended well in it."""
    start_ns, end_ns = window.start_ns, window.end_ns
    sent = _inside(requests["sent_ns"], window)
    cut_off = (requests["status"] == "aborted") & requests["sent_ns"].lt(end_ns).fillna(False)
    cut_off &= requests["end_ns"].ge(start_ns).fillna(True)
    ok = requests["status"] == "ok"
    finished = requests[ok & _inside(requests["last_token_ns"].fillna(requests["end_ns"]), window)]
    inside = tokens.first_inside(start_ns, end_ns) | (tokens.completion_inside(start_ns, end_ns) > 0)
    no_usage = requests["completion_tokens"].isna() | requests["prompt_tokens"].isna()
    cached_known = requests["cached_tokens"].notna()[tokens.first_inside(start_ns, end_ns)]
    counts = {
        "output_tokens": int(tokens.completion_inside(start_ns, end_ns).sum()),
        "prompt_tokens": int(tokens.prompt_inside(start_ns, end_ns).sum()),
        "cached_tokens": int(tokens.cached_inside(start_ns, end_ns).sum()),
        "cached_tokens_known": bool(cached_known.all()) if len(cached_known) else False,
        "scheduled": int(_inside(requests["scheduled_ns"], window).sum()),
        "started": int(sent.sum()),
        "finished": len(finished),
        "failed": int(((requests["status"] == "failed") & _inside(requests["end_ns"], window)).sum()),
        "aborted": int(cut_off.sum()),
        "without_usage": int((ok & no_usage & (inside | _inside(requests["end_ns"], window))).sum()),
    }
    return counts, finished


def _bins(window: Window, tokens: TokenTimes, finished: pd.DataFrame) -> dict[str, list[int]]:
    """What fell into each bin of the window, under the names of the figures."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    spans = [(int(a), int(b)) for a, b in pairwise(edges_ns.tolist())]
    ends_ns = finished["last_token_ns"].fillna(finished["end_ns"]).to_numpy(dtype=np.int64)
    return {
        "output_tokens": [int(tokens.completion_inside(a, b).sum()) for a, b in spans],
        "prompt_tokens": [int(tokens.prompt_inside(a, b).sum()) for a, b in spans],
        "cached_tokens": [int(tokens.cached_inside(a, b).sum()) for a, b in spans],
        "requests": np.histogram(ends_ns, bins=edges_ns)[0].tolist(),
    }


def _settled(
    window: Window,
    steady: dict[str, Any],
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: pd.DataFrame,
    power: list[Channel],
    config: AnalysisConfig,
) -> tuple[Window, dict[str, Any], list[Reason]]:
    """The steady part of a window that is not steady as a whole; the window as it was where there is none."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    cuts = [steadiness.mser5(values) for values in _second_by_second(edges_ns, tokens, power).values()]
    longest = max((cut for cut in cuts if cut), default=0)
    if not longest:
        return window, steady, []
    shorter = _on_counter(Window(window.name, int(edges_ns[longest]), window.end_ns), power)
    again = _steadiness(shorter, requests, tokens, metrics, power, config)
    if not again["steady"]:
        return window, steady, []
    cut_s = (shorter.start_ns - window.start_ns) / 1e9
    note = reason(
        "steady_from", f"The first {cut_s:.0f} s of the window were still settling and were cut off (MSER-5)."
    )
    return shorter, again, [note]


def _on_counter(window: Window, power: list[Channel]) -> Window:
    """The window between two readings at which the first counter had just moved, where there is one."""
    counted = [channel.counter_moved_ns for channel in power if channel.counted]
    return snapped(window, counted[0]) if counted else window


def _second_by_second(edges_ns: Integers, tokens: TokenTimes, power: list[Channel]) -> dict[str, Values]:
    """Power and token rate in each bin."""
    lengths_s = np.diff(edges_ns) / 1e9
    spans = [(int(a), int(b)) for a, b in pairwise(edges_ns.tolist())]
    generated = np.array([tokens.completion_inside(a, b).sum() for a, b in spans], dtype=np.float64)
    found: dict[str, Values] = {"output_tokens_per_s": generated / lengths_s}
    if power and all(channel.covers(int(edges_ns[0]), int(edges_ns[-1])) for channel in power):
        energy_j = np.sum([channel.energies_j(edges_ns) for channel in power], axis=0)
        found["power_w"] = np.asarray(energy_j / lengths_s, dtype=np.float64)
    return found


def _no_schedule(facts: dict[str, Any], counts: dict[str, Any]) -> list[Reason]:
    """The reason for which nothing can be said of a schedule; empty in an open loop."""
    if is_closed_loop(facts):
        return [reason("no_schedule", "In a closed loop a request is sent when the last has ended: nothing is due.")]
    if not counts["scheduled"] and counts["started"]:
        return [reason("no_schedule", "The requests have no time at which they were due.")]
    return []


def _inside(times_ns: "pd.Series[int]", window: Window) -> "pd.Series[bool]":
    return ((times_ns >= window.start_ns) & (times_ns < window.end_ns)).fillna(False).astype(bool)


def _steadiness(
    window: Window,
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: pd.DataFrame,
    power: list[Channel],
    config: AnalysisConfig,
) -> dict[str, Any]:
    edges = steadiness.block_edges(window.start_ns, window.end_ns)
    blocks = [(int(a), int(b)) for a, b in pairwise(edges.tolist())]
    lengths_s = np.diff(edges) / 1e9
    covered = bool(power) and all(channel.covers(window.start_ns, window.end_ns) for channel in power)
    power_w = (
        [
            sum(channel.energy_j(a, b) for channel in power) / float(s)
            for (a, b), s in zip(blocks, lengths_s, strict=True)
        ]
        if covered
        else None
    )
    rates = [int(tokens.completion_inside(a, b).sum()) / float(s) for (a, b), s in zip(blocks, lengths_s, strict=True)]
    running = block_means(metrics, RUNNING, edges)
    series = {
        "power_w": power_w,
        "output_tokens_per_s": rates,
        "running_requests": running,
        "requests_in_flight": requests_in_flight(requests, blocks),
    }
    bins = _second_by_second(bin_edges(window.start_ns, window.end_ns), tokens, power)
    return steadiness.judge(series, len(blocks), config.steadiness, bins)


def requests_in_flight(requests: pd.DataFrame, blocks: list[tuple[int, int]]) -> list[float]:
    """Mean number of requests between their sending and their end, for each block.

    A server asked for more than it can do runs a full batch at steady power, while those that wait grow in number:
    only this series shows it.
    """
    was_sent = requests["sent_ns"].notna()
    sent = requests.loc[was_sent, "sent_ns"].to_numpy(dtype=np.int64)
    ended = requests.loc[was_sent, "end_ns"].fillna(blocks[-1][1]).to_numpy(dtype=np.int64)
    return [
        float(np.maximum(np.minimum(ended, end_ns) - np.maximum(sent, start_ns), 0).sum() / (end_ns - start_ns))
        for start_ns, end_ns in blocks
    ]


def _steady_reasons(steady: dict[str, Any]) -> list[Reason]:
    if not steady["judged"]:
        return [
            reason("steadiness_not_judged", f"Whether the load was steady is not known: {steady['why_not_judged']}.")
        ]
    words = {
        "power_w": "power",
        "output_tokens_per_s": "generated tokens/s",
        "running_requests": "running requests",
        "requests_in_flight": "requests in flight, which wait if they do not run,",
    }
    return [
        reason(
            "not_steady",
            f"Over the window {words[name]} changed by {100 * t['change_share']:+.0f} % of the mean "
            f"(p = {t['p_value']:.3f}); at most {100 * t['limit']:g} % is steady.",
        )
        for name, t in steady["trends"].items()
        if t["exceeded"]
    ] + [
        reason(
            "not_steady",
            f"The first fifth of the window had {100 * t['difference_share']:+.0f} % other {words[name]} than its last "
            f"half (p = {t['p_value']:.3f}); at most {100 * t['limit']:g} % is steady.",
        )
        for name, t in steady["stationarity"].items()
        if t["exceeded"]
    ]


def _request_reasons(counts: dict[str, Any], config: AnalysisConfig, *, reconciled: bool) -> list[Reason]:
    found = []
    ended = counts["finished"] + counts["failed"]
    if not reconciled and counts["aborted"] > config.max_failed_share * (ended + counts["aborted"]):
        # With the server's counters, their tokens would be missed there.
        found.append(
            reason(
                "token_counts_missing",
                f"{counts['aborted']} request(s) were cut off and gave no token counts, and the server's counters "
                "could not be read.",
            )
        )
    if ended and counts["failed"] / ended > config.max_failed_share:
        found.append(
            reason("failed_requests", f"{counts['failed']} of {ended} requests that ended in the window failed.")
        )
    if counts["aborted"]:
        found.append(
            reason(
                "aborted_requests",
                f"{counts['aborted']} request(s) of the window were cut off at the end of the drain; their tokens are "
                "not counted.",
            )
        )
    if counts["without_usage"]:
        found.append(
            reason("token_counts_missing", f"The server gave no token counts for {counts['without_usage']} request(s).")
        )
    return found


def _lag_reasons(lag: dict[str, float] | None, config: AnalysisConfig) -> list[Reason]:
    if lag is None or lag["p99"] <= config.max_client_lag_s:
        return []
    return [
        reason(
            "client_lag",
            f"The client sent 1 % of the requests {lag['p99']:.3f} s or more after schedule; at most "
            f"{config.max_client_lag_s:g} s is allowed.",
        )
    ]


def _count_figures(
    window: Window,
    counts: dict[str, Any],
    reasons: list[Reason],
    no_schedule: list[Reason],
    trends: list[Reason],
) -> dict[str, Figure]:
    """Counts and rates; `no_schedule` is against the offered rate, `trends` are notes on the rates."""
    late = [r for r in reasons if r.code == "client_lag"]
    unknown = []
    if counts["prompt_tokens"] and not counts["cached_tokens_known"]:
        unknown.append(reason("cached_tokens_unknown", "The responses do not say how many prompt tokens were cached."))

    def counted(count: str, unit: str, against: list[Reason]) -> Figure:
        return judged(counts[count], unit, boundary="client", grade="counted", reasons=against)

    def rate(count: str, unit: str, against: list[Reason], notes: list[Reason]) -> Figure:
        per_s = counts[count] / window.duration_s
        return judged(per_s, unit, boundary="client", grade="counted", reasons=against, notes=notes)

    return {
        "output_tokens": counted("output_tokens", "token", reasons),
        "prompt_tokens": counted("prompt_tokens", "token", reasons),
        "cached_tokens": counted("cached_tokens", "token", [*reasons, *unknown]),
        "requests": counted("finished", "request", late),
        "output_tokens_per_s": rate("output_tokens", "token/s", reasons, trends),
        "prompt_tokens_per_s": rate("prompt_tokens", "token/s", reasons, trends),
        "requests_per_s": rate("finished", "request/s", late, trends),
        "offered_requests_per_s": rate("scheduled", "request/s", no_schedule, []),
    }


def _dicts(reasons: list[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "detail": r.detail} for r in reasons]
