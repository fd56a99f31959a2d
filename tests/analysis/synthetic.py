"""A recorded session with known truth, written as acquisition writes it.

Power is constant in every phase (with a ripple of +-0.4 W that cancels in the integral), NVML's average is that of the
last second, a window's level follows from P0 T + a prompt + b generated over its trimmed part, counters are exact
integrals, and the server's metrics count the
same tokens as the client. What the analysis must find, over windows from counter reading to counter reading, is in the
`Truth` that `build_session` returns.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from inference_energy.acquire.server.guardian import GuardianStatus
from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.io import write_json, write_table
from inference_energy.stages.chain import recompute_summary

ORIGIN_NS = 5_000_000_000_000
UNIX_NS = 1_780_000_000_000_000_000
ANCHOR = {"monotonic_ns": ORIGIN_NS, "unix_ns": UNIX_NS}
INTERVAL_S = 0.1
SCRAPE_S = 1.0
TRIM_START_S = 5.0
TRIM_END_S = 0.0


@dataclass(frozen=True)
class Source:
    """A channel of the log. `counter`: in rows of its own, in the same row as power (derived), or none."""

    name: str = "nvml"
    grade: str = "counter"
    device: str = "GPU-0"
    domain: str = "gpu"
    share: float = 1.0
    counter: str | None = "own"


GPU = (Source(), Source(domain="gpu_memory", share=0.3, counter=None))
NODE = (*GPU, Source("rapl", "counter", "package-0", "cpu_package", 0.4, "same"))
NODE += (
    Source("rapl", "counter", "dram-0", "dram", 0.1, "same"),
    Source("rapl", "counter", "psys", "psys", 0.6, "same"),
)
MODELLED_CPU = (Source("modelled", "modelled", "cpu", "cpu", 1.0, "same"),)


@dataclass(frozen=True)
class WindowSpec:
    """One window to simulate."""

    name: str = "chat"
    kind: str = "steady"
    workload: str = "chat"
    process: str = "poisson"
    rate_qps: float | None = 4.0
    concurrency: int | None = None
    duration_s: float = 80.0
    prompt_tokens: tuple[int, int] = (200, 300)
    completion_tokens: tuple[int, int] = (100, 150)
    cached_share: float = 0.0


@dataclass(frozen=True)
class Truth:
    """What went in: idle powers in W and, for each window, its trimmed times, tokens, power and energy."""

    folder: Path
    cold_w: float | None
    loaded_w: float
    post_w: float
    windows: dict[str, dict] = field(default_factory=dict)


LOW_HIGH = (WindowSpec("low", rate_qps=1.0), WindowSpec("high", rate_qps=8.0))
DESIGNED = (
    *LOW_HIGH,
    WindowSpec("prefill", "prefill", "prefill", "closed", None, 2, 25.0, (1500, 2000), (1, 1)),
    WindowSpec("decode", "decode", "decode", "closed", None, 8, 25.0, (16, 16), (300, 400)),
)


def build_session(
    root: Path,
    *,
    machine: str = "bench",
    session: str = "base",
    server: str = "small",
    windows: tuple[WindowSpec, ...] = LOW_HIGH,
    sources: tuple[Source, ...] = GPU,
    cold_w: float | None = 70.0,
    loaded_w: float = 120.0,
    post_w: float = 72.0,
    energy_model: tuple[float, float, float] = (300.0, 0.006, 0.08),
    mode: str = "launch",
    make_power: Callable[[list[tuple[int, int, float]], tuple[Source, ...]], pd.DataFrame] | None = None,
    seed: int = 1,
) -> Truth:
    """Write raw/{machine}/sessions/{session} and raw/{machine}/idle/{server} below `root`.

    Args:
        root: the folder of raw results.
        windows: the load.
        sources: the channels; each has its share of the level of power.
        cold_w: level before the server starts; None: an attached server, where it is missing.
        energy_model: P0 in W, J per uncached prompt token, J per generated token, for shares that are summed to 1.
        make_power: rows of power.parquet from (start, end, W) of each phase; None for those of an ideal sensor.
    """
    rng = np.random.default_rng(seed)
    here = root / machine / "sessions" / session
    clock = ORIGIN_NS
    rows: list[dict] = []
    levels: list[tuple[int, int, float]] = []
    sent: list[dict] = []
    asked: dict[str, list[dict]] = {}
    truth = Truth(here, cold_w, loaded_w, post_w)

    def phase(name: str, duration_s: float, level_w: float, cell: str | None = None) -> tuple[int, int]:
        nonlocal clock
        start_ns, clock = clock, clock + round(duration_s * 1e9)
        rows.append({"phase": name, "cell": cell, "start_ns": start_ns, "end_ns": clock})
        levels.append((start_ns, clock, level_w))
        return start_ns, clock

    if mode == "launch":
        phase("launch", 12.0, 200.0)
    phase("loaded_idle", 20.0, loaded_w)
    warm = WindowSpec("warmup", rate_qps=4.0, process="constant", duration_s=12.0)
    start_ns, _ = phase("warmup", warm.duration_s, 350.0, "warmup")
    phase("drain", 4.0, 350.0, "warmup")
    sent += _requests(warm, start_ns, rng, len(sent))
    for spec in windows:
        start_ns = clock
        own = asked[spec.name] = _requests(spec, start_ns, rng, len(sent))
        sent += own
        inside = (start_ns + round(TRIM_START_S * 1e9), start_ns + round((spec.duration_s - TRIM_END_S) * 1e9))
        truth.windows[spec.name] = _window_truth(own, inside, energy_model)
        level_w = truth.windows[spec.name]["power_w"]
        phase("window", spec.duration_s, level_w, spec.name)
        last = max([r["end_ns"] for r in own], default=clock)
        phase("drain", max((last - clock) / 1e9, 0) + 1.0, loaded_w + 20, spec.name)
    if mode == "launch":
        phase("stop", 2.0, 150.0)
        phase("post_idle", 15.0, post_w)

    stamps = {"clock_anchor": ANCHOR, "source": _grades(sources)}
    log = (make_power or _power)(levels, sources)
    for name, own in asked.items():
        truth.windows[name] = _on_counter(truth.windows[name], own, log)
    write_table(here / "power.parquet", log, power.SCHEMA, **stamps)
    write_table(here / "requests.parquet", sent, requests.SCHEMA, clock_anchor=ANCHOR)
    metrics = _metrics(sent, levels[0][0], levels[-1][1], [row["end_ns"] for row in rows if row["phase"] == "drain"])
    write_table(here / "server_metrics.parquet", metrics, server_metrics.SCHEMA, clock_anchor=ANCHOR)
    write_table(here / "phases.parquet", rows, phases.SCHEMA, clock_anchor=ANCHOR)
    write_json(here / "session.json", _session(machine, session, server, mode, windows, sources))
    _idle(root / machine / "idle" / server, sources, cold_w, make_power or _power)
    return truth


def plan(
    truths: list[Truth], *, server: str = "small", pue: float = 1.2, attribution: str = "completion_tokens"
) -> dict:
    """The plan that `recompute` takes, for sessions of one server."""
    return {
        "experiment": "synthetic",
        "analysis": {"trim_start_s": TRIM_START_S, "trim_end_s": TRIM_END_S, "attribution": attribution},
        "impact": {
            "carbon": {
                "zone": "DE",
                "intensity_g_per_kwh": 344.0,
                "basis": "lifecycle",
                "source": "Ember yearly electricity data 2024",
            },
            "pue": pue,
            "pue_source": "invented for the test",
            "water": {"wue_site_l_per_kwh": 0.27, "ewif_grid_l_per_kwh": 1.947, "source": "invented for the test"},
        },
        "metrics": {},
        "sessions": [
            {"machine": t.folder.parent.parent.name, "session": t.folder.name, "server": server} for t in truths
        ],
    }


def recompute(raw: Path, plan: dict, calibration: Path | None = None) -> dict:
    """summary.json without estimates and metrics, which need more files than a synthetic session has."""
    return recompute_summary(raw, {**plan, "estimate": None, "metrics": None}, calibration)


def token_times_ns(request: dict) -> np.ndarray:
    """Times of a request's tokens: the first, then evenly up to the last."""
    return np.linspace(request["first_token_ns"], request["last_token_ns"], request["completion_tokens"])


def _requests(spec: WindowSpec, start_ns: int, rng: np.random.Generator, first_id: int) -> list[dict]:
    made: list[dict] = []

    def ask(scheduled_ns: int, sent_ns: int, worker: int) -> dict:
        prompt = int(rng.integers(spec.prompt_tokens[0], spec.prompt_tokens[1] + 1))
        completion = int(rng.integers(spec.completion_tokens[0], spec.completion_tokens[1] + 1))
        first_ns = sent_ns + 30_000_000 + prompt * 100_000
        last_ns = first_ns + (completion - 1) * 15_000_000
        made.append(
            {
                "request_id": first_id + len(made),
                "cell": spec.name,
                "worker": worker,
                "endpoint": "http://127.0.0.1:8000",
                "prompt_id": len(made),
                "turn": 0,
                "scheduled_ns": scheduled_ns,
                "sent_ns": sent_ns,
                "first_token_ns": first_ns,
                "last_token_ns": last_ns,
                "end_ns": last_ns + 1_000_000,
                "prompt_tokens": prompt,
                "cached_tokens": int(prompt * spec.cached_share),
                "completion_tokens": completion,
                "finish_reason": "length",
                "status": "ok",
                "error": None,
            }
        )
        return made[-1]

    end_ns = start_ns + round(spec.duration_s * 1e9)
    if spec.process == "closed":
        for worker in range(spec.concurrency or 1):
            now_ns = start_ns + worker * 1_000_000
            while now_ns < end_ns:
                # As the client does: due is when the user was free.
                now_ns = ask(now_ns, now_ns + 5_000, worker)["end_ns"] + 500_000
        return made
    gap_s = 1.0 / (spec.rate_qps or 1.0)
    at_s = gap_s / 2
    while at_s < spec.duration_s:
        scheduled_ns = start_ns + round(at_s * 1e9)
        ask(scheduled_ns, scheduled_ns + 2_000_000, 0)
        at_s += rng.exponential(gap_s) if spec.process == "poisson" else gap_s
    return made


def _on_counter(window: dict, own: list[dict], log: pd.DataFrame) -> dict:
    """The window from the first to the last reading in it of the first counter; its power is even."""
    if "energy_counter_j" not in log:
        return window
    counted = log[log["energy_counter_j"].notna() & log["timestamp_ns"].between(window["start_ns"], window["end_ns"])]
    if "gpu" in set(log["domain"]):
        counted = counted[counted["domain"] == "gpu"]
    if counted.empty:
        return window
    start_ns, end_ns = int(counted["timestamp_ns"].min()), int(counted["timestamp_ns"].max())
    power_w = window["power_w"]
    return _window_truth(own, (start_ns, end_ns), (power_w, 0.0, 0.0))


def _window_truth(own: list[dict], inside: tuple[int, int], model: tuple[float, float, float]) -> dict:
    start_ns, end_ns = inside
    duration_s = (end_ns - start_ns) / 1e9
    generated = sum(int(((t >= start_ns) & (t < end_ns)).sum()) for t in map(token_times_ns, own))
    begun = [r for r in own if start_ns <= r["first_token_ns"] < end_ns]
    prompt, cached = sum(r["prompt_tokens"] for r in begun), sum(r["cached_tokens"] for r in begun)
    energy_j = model[0] * duration_s + model[1] * (prompt - cached) + model[2] * generated
    return {
        "start_ns": start_ns,
        "end_ns": end_ns,
        "duration_s": duration_s,
        "output_tokens": generated,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "requests": sum(start_ns <= r["last_token_ns"] < end_ns for r in own),
        "power_w": energy_j / duration_s,
        "energy_j": energy_j,
    }


def _power(levels: list[tuple[int, int, float]], sources: tuple[Source, ...]) -> pd.DataFrame:
    start_ns, end_ns = levels[0][0], levels[-1][1]
    ends = np.array([end for _, end, _ in levels])
    height = np.array([level for *_, level in levels])
    cumulative = np.concatenate(([0.0], np.cumsum([(b - a) / 1e9 * w for a, b, w in levels])))
    knots = np.concatenate(([start_ns], ends))

    def grid(step_s: float) -> np.ndarray:
        return np.arange(start_ns, end_ns + 1, round(step_s * 1e9))

    frames = []
    for source in sources:
        times = grid(INTERVAL_S)
        level = height[np.minimum(np.searchsorted(ends, times, side="right"), len(height) - 1)]
        ripple = np.where(np.arange(len(times)) % 2 == 0, 0.4, -0.4)
        average_w = level + ripple
        if source.name == "nvml":
            # The second before the log was like its first.
            known_ns, known_j = np.concatenate(([start_ns - 1e9], knots)), np.concatenate(([-height[0]], cumulative))
            average_w = np.interp(times, known_ns, known_j) - np.interp(times - 1e9, known_ns, known_j) + ripple
        columns = {"timestamp_ns": times, "power_average_w": source.share * average_w}
        if source.counter == "same":
            columns["energy_counter_j"] = 1e5 + source.share * np.interp(times, knots, cumulative)
        else:
            columns["power_instant_w"] = source.share * (level - ripple)
        if source.domain == "gpu":
            columns |= {"utilization": 0.9, "memory_used_bytes": 60_000_000_000, "sm_clock_mhz": 1700}
            columns |= {"temperature_c": 55.0, "clocks_event_reasons": 0}
        frames.append(pd.DataFrame(columns).assign(source=source.name, device=source.device, domain=source.domain))
        if source.counter == "own":
            times = grid(0.5)
            counter = pd.DataFrame(
                {"timestamp_ns": times, "energy_counter_j": 1e6 + source.share * np.interp(times, knots, cumulative)}
            )
            frames.append(counter.assign(source=source.name, device=source.device, domain=source.domain))
    log = pd.concat(frames).sort_values("timestamp_ns", kind="stable")
    return log.astype({column: kind for column, kind in _INTEGERS.items() if column in log})


_INTEGERS = {"memory_used_bytes": "Int64", "sm_clock_mhz": "Int64", "clocks_event_reasons": "Int64"}


def _metrics(sent: list[dict], start_ns: int, end_ns: int, also_ns: list[int]) -> pd.DataFrame:
    """Read once a second, and once more after each drain."""
    times = np.union1d(np.arange(start_ns, end_ns + 1, round(SCRAPE_S * 1e9)), also_ns)
    tokens = np.sort(np.concatenate([token_times_ns(r) for r in sent]))
    firsts = sorted((r["first_token_ns"], r["prompt_tokens"], r["cached_tokens"]) for r in sent)
    first_ns = np.array([f for f, *_ in firsts])
    sums = {k: np.concatenate(([0], np.cumsum([f[k] for f in firsts]))) for k in (1, 2)}
    begun = np.searchsorted(first_ns, times, side="left")
    running = np.searchsorted(np.sort([r["sent_ns"] for r in sent]), times) - np.searchsorted(
        np.sort([r["last_token_ns"] for r in sent]), times
    )
    series = {
        "vllm:generation_tokens_total": np.searchsorted(tokens, times, side="left"),
        "vllm:prompt_tokens_total": sums[1][begun],
        "vllm:prompt_tokens_cached_total": sums[2][begun],
        "vllm:iteration_tokens_total_count": (times - start_ns) / 15e6,
        "vllm:num_preemptions_total": np.zeros(len(times)),
        "vllm:num_requests_running": running,
        "vllm:num_requests_waiting": np.zeros(len(times)),
        "vllm:kv_cache_usage_perc": running / 256,
    }
    labels = json.dumps({"engine": "0", "model_name": "synthetic"})
    return pd.concat(
        pd.DataFrame({"timestamp_ns": times, "name": name, "labels": labels, "value": values.astype(float)})
        for name, values in series.items()
    )


def _grades(sources: tuple[Source, ...]) -> list[dict]:
    return [{"name": name, "grade": grade} for name, grade in {s.name: s.grade for s in sources}.items()]


def stop_status(**values) -> dict:
    """The guardian's last status, with the keys that it writes."""
    stopped = GuardianStatus(guardian_pid=1, state="stopped", return_code=0, stop_duration_s=0.3)
    return stopped._asdict() | values


def _arrival(spec: WindowSpec) -> dict:
    if spec.process == "closed":
        return {"concurrency": spec.concurrency, "pool": 64, "process": "closed"}
    return {"process": spec.process, "rate_qps": spec.rate_qps}


def _session(machine, session, server, mode, windows, sources) -> dict:
    launched = mode == "launch"
    facts = {
        spec.name: {
            "kind": spec.kind,
            "workload": spec.workload,
            "arrival": _arrival(spec),
            "duration_s": spec.duration_s,
        }
        for spec in windows
    }
    return {
        "session": session,
        "machine": machine,
        "server": {"name": server, "version": "0.25.1" if launched else None, "endpoint": "http://127.0.0.1:8000"},
        "mode": mode,
        "model": "synthetic-8b",
        "clock_anchor": ANCHOR,
        "power": {"interval_s": INTERVAL_S, "sources": _grades(sources)},
        "metrics": {"scrapes": 100, "errors": 0, "last_error": None},
        "launch": {"ready_after_s": 11.0, "command": ["python", "-m", "vllm"]} if launched else None,
        "stop": stop_status() if launched else None,
        "windows": facts,
        "warmup": {
            "kind": "warmup",
            "workload": "chat",
            "arrival": {"process": "constant", "rate_qps": 4.0},
            "duration_s": 12.0,
        },
        "client": {"workers": [], "cells": {}, "cpu_s": 1.5, "wall_s": 200.0},
        "missing": {} if launched else dict.fromkeys(("cold_idle", "post_idle"), "the server was already running"),
    }


def _idle(folder: Path, sources: tuple[Source, ...], cold_w: float | None, make_power: Callable) -> None:
    start_ns = ORIGIN_NS - 100_000_000_000
    end_ns = start_ns + 30_000_000_000
    stamps = {"clock_anchor": ANCHOR, "source": _grades(sources)}
    if cold_w is None:
        write_table(folder / "power.parquet", [], power.SCHEMA, **stamps)
        why = "the server was already running"
        write_json(folder / "idle.json", {"missing": why, "start_ns": None, "end_ns": None, "duration_s": None})
        return
    write_table(folder / "power.parquet", make_power([(start_ns, end_ns, cold_w)], sources), power.SCHEMA, **stamps)
    content = {"missing": None, "start_ns": start_ns, "end_ns": end_ns, "duration_s": 30.0}
    write_json(folder / "idle.json", content)
