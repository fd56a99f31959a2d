"""Faults of a recorded session: each function spoils a copy in one way, and is named after the code it must raise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import synthetic

from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.io import read_json, read_metadata, read_table, write_json, write_table
from inference_energy.contracts.schedule import SCHEDULE

SCHEMAS = {
    "power": power.SCHEMA,
    "phases": phases.SCHEMA,
    "requests": requests.SCHEMA,
    "server_metrics": server_metrics.SCHEMA,
}


class Case:
    """A copy of the recorded session that may be spoiled, and its plan."""

    def __init__(self, raw: Path, truth: synthetic.Truth) -> None:
        self.raw = raw
        self.session = raw / "bench" / "sessions" / "base"
        self.idle = raw / "bench" / "idle" / "small"
        self.window = truth.windows["low"]
        self.plan = synthetic.plan([truth])

    def edit(self, table: str, change: Callable, folder: Path | None = None) -> None:
        path = (folder or self.session) / f"{table}.parquet"
        kept = {k: v for k, v in read_metadata(path).items() if k in ("clock_anchor", "source")}
        write_table(path, change(read_table(path, SCHEMAS[table])), SCHEMAS[table], **kept)

    def edit_session(self, **values) -> None:
        path = self.session / "session.json"
        write_json(path, read_json(path) | values)

    def inside(self, table, start_s=0.0, end_s=75.0):
        start_ns = self.window["start_ns"]
        return table["timestamp_ns"].between(start_ns + start_s * 1e9, start_ns + end_s * 1e9)

    def power(self, column: str, value, start_s=0.0, end_s=75.0) -> None:
        """Set a column of the GPU's power rows in a part of the window; a function changes what is there."""

        def change(log):
            chosen = self.inside(log, start_s, end_s) & (log["domain"] == "gpu") & log[column].notna()
            log.loc[chosen, column] = value(log.loc[chosen]) if callable(value) else value
            return log

        self.edit("power", change)

    def requests(self, column: str, value, every: int = 1) -> None:
        def change(table):
            chosen = table["cell"].eq("low") & (table.index % every == 0)
            table.loc[chosen, column] = value(table.loc[chosen, column]) if callable(value) else value
            return table

        self.edit("requests", change)

    def drop_phase(self, name: str) -> None:
        self.edit("phases", lambda table: table[table["phase"] != name])


def no_power_source(case):
    case.edit("power", lambda log: log[log["domain"] == "gpu_memory"])


def power_not_covered(case):
    case.edit("power", lambda log: log[log["timestamp_ns"] > case.window["start_ns"] + 5_000_000_000])


def no_counter(case):
    case.edit("power", lambda log: log[log["energy_counter_j"].isna()])


def gap(case):
    case.edit("power", lambda log: log[~case.inside(log, 20, 25.5)])


def gap_without_counter(case):
    no_counter(case)
    case.edit("power", lambda log: log[~case.inside(log, 20, 21.5)])


def holes(case):
    no_counter(case)
    case.edit("power", lambda log: log[~case.inside(log, 20, 20.6)])


def stuck_sensor(case):
    case.power("energy_counter_j", lambda rows: rows["energy_counter_j"].iloc[0], 20, 24)


def stuck_without_counter(case):
    no_counter(case)
    case.power("power_average_w", 310.0, 20, 24)


def zero_without_counter(case):
    no_counter(case)
    case.power("power_average_w", 0.0, 20, 20.15)


def cross_check_stuck(case):
    case.power("power_average_w", 310.0, 20, 24)


def counter_lost(case):
    """From the middle of the window on the counter gives errors."""
    from_ns = case.window["start_ns"] + 40_000_000_000
    case.edit("power", lambda log: log[log["energy_counter_j"].isna() | (log["timestamp_ns"] < from_ns)])


def counter_mismatch(case):
    case.power("power_average_w", lambda rows: rows["power_average_w"] * 1.06)


def counter_reset(case):
    case.power("energy_counter_j", lambda rows: rows["energy_counter_j"] - 1e6, start_s=30)


def readings_withheld(case):
    """One reading of the counter, and some of the power that checks it, are garbage."""
    case.power("energy_counter_j", lambda rows: rows["energy_counter_j"] - 1e6, 30, 30.5)
    case.power("power_average_w", 3_735_928.55, 30, 30.15)


def implausible_power(case):
    no_counter(case)
    case.power("power_average_w", lambda rows: rows["power_average_w"].where(rows.index % 10 > 0, 3735.93))


def counter_jump(case):
    """A counter that rises at once by more than the card can draw, and goes on from there."""
    case.power("energy_counter_j", lambda rows: rows["energy_counter_j"] + 30_000.0, start_s=30)


def counter_left_out(case):
    _log_says(case, left_out=["GPU-1"])


def _log_says(case, **facts):
    path = case.session / "power.parquet"
    kept = read_metadata(path)
    sources = _said(kept["source"], **facts)
    write_table(path, read_table(path, power.SCHEMA), power.SCHEMA, clock_anchor=kept["clock_anchor"], source=sources)


def _said(sources: list[dict], **facts) -> list[dict]:
    """A log's sources, of which the GPU's says this."""
    return [
        {**one, "channels": [{"device": "GPU-0", "domain": "gpu", **facts}]} if one["name"] == "nvml" else one
        for one in sources
    ]


def averaging_unknown(case):
    _log_says(case, averaging_window_s=None)


def mig_card(case):
    recorded = read_json(case.session / "session.json")["power"]
    mig = {"instances": [{"uuid": "MIG-1", "profile": "3g.40gb"}], "used": ["MIG-1"]}
    case.edit_session(power=recorded | {"sources": _said(recorded["sources"], mig=mig)})


def _seen(case, key):
    """The sampler saw a process on the GPU for a second in the middle of the window."""
    middle_ns = (case.window["start_ns"] + case.window["end_ns"]) // 2
    process = {"pid": 4711, "name": "train", "first_seen_ns": middle_ns, "last_seen_ns": middle_ns + 1_000_000_000}
    recorded = read_json(case.session / "session.json")["power"]
    case.edit_session(
        power=recorded | {"channels": [{"source": "nvml", "device": "GPU-0", "domain": "gpu", key: [process]}]}
    )


def foreign_process(case):
    _seen(case, "foreign_processes")


def unidentified_process(case):
    _seen(case, "unidentified_processes")


def thermal_throttle(case):
    case.power("clocks_event_reasons", 0x20, 10, 10.1)


def power_cap(case):
    case.power("clocks_event_reasons", 0x4)


def hardware_slowdown(case):
    case.power("clocks_event_reasons", 0x80)


def not_steady(case):
    def grown(rows):
        at_s = (rows["timestamp_ns"] - case.window["start_ns"]) / 1e9
        return rows["energy_counter_j"] + case.window["power_w"] * (at_s**2 / case.window["duration_s"] - at_s) * 0.2

    case.power("power_average_w", lambda rows: rows["power_average_w"] * np.linspace(0.8, 1.2, len(rows)))
    case.power("energy_counter_j", grown)


def client_lag(case):
    case.requests("scheduled_ns", lambda times: times - 150_000_000)


def token_mismatch(case):
    def change(table):
        table.loc[table["name"] == "vllm:generation_tokens_total", "value"] *= 1.10
        return table

    case.edit("server_metrics", change)


def token_counts_missing(case):
    case.requests("completion_tokens", None, every=20)


def failed_requests(case):
    case.requests("status", "failed", every=4)


def cached_tokens_unknown(case):
    case.requests("cached_tokens", None)


def cold_idle_missing(case):
    idle = {"missing": "the server was already running", "start_ns": None, "end_ns": None, "duration_s": None}
    write_json(case.idle / "idle.json", idle)


def loaded_idle_missing(case):
    case.drop_phase("loaded_idle")
    case.edit_session(missing={"loaded_idle": "others were using the server"})


def post_idle_missing(case):
    case.drop_phase("post_idle")


def _cold(case, factor):
    def change(log):
        log[["power_average_w", "power_instant_w", "energy_counter_j"]] *= factor
        return log

    case.edit("power", change, case.idle)


def below_idle(case):
    _cold(case, 10)


def idle_drift(case):
    _cold(case, 1.3)


def _cold_counter(case, more_j):
    """Add to the cold idle's counter what a function of the seconds since its start says."""

    def change(log):
        at_s = (log["timestamp_ns"] - log["timestamp_ns"].min()) / 1e9
        log["energy_counter_j"] += more_j(at_s)
        return log

    case.edit("power", change, case.idle)


def idle_outliers(case):
    _cold_counter(case, lambda at_s: 60.0 * np.clip(at_s - 10, 0, 1))


def idle_trend(case):
    """From 63 to 77 W."""
    _cold_counter(case, lambda at_s: 7.0 * (at_s**2 / 30 - at_s))


def aborted_requests(case):
    case.requests("status", "aborted", every=40)


def many_aborted_and_no_counters(case):
    """Before the window's start too: their tokens fall into the window."""
    case.requests("status", "aborted", every=4)
    tokens_unreconciled(case)


def nothing_asked(case):
    case.edit("requests", lambda table: table[table["cell"] != "low"])


def no_tokens(case):
    nothing_asked(case)
    tokens_unreconciled(case)


def no_schedule(case):
    case.requests("scheduled_ns", None)


def no_factor(case):
    case.plan["impact"]["water"] = {}


def steadiness_not_judged(case):
    case.plan["analysis"]["trim_start_s"] = 20.0


def tokens_unreconciled(case):
    case.edit("server_metrics", lambda table: table[:0])


def tokens_unresolved(case):
    """Read every ten seconds."""

    def seldom(table):
        times_ns = sorted(set(table["timestamp_ns"]))
        kept = {*times_ns[::10], times_ns[-1]}
        return table[table["timestamp_ns"].isin(kept)]

    case.edit("server_metrics", seldom)


def other_reading(case):
    case.plan["analysis"]["power_reading"] = "instant"
    no_counter(case)
    case.edit("power", lambda log: log.assign(power_instant_w=None))


def counter_not_checked(case):
    def change(log):
        counted = log["energy_counter_j"].notna()
        return log[~counted | (log["timestamp_ns"] == log.loc[counted, "timestamp_ns"].min())]

    case.edit("power", change)


def counter_alone(case):
    case.edit("power", lambda log: log[log["energy_counter_j"].notna() | (log["domain"] != "gpu")])


def server_restarted(case):
    def change(table):
        half_ns = case.window["start_ns"] + 40_000_000_000
        later = table["name"].eq("vllm:generation_tokens_total") & (table["timestamp_ns"] > half_ns)
        table.loc[later, "value"] -= table.loc[later, "value"].min()
        return table

    case.edit("server_metrics", change)


def server_restarted_in_the_queue(case):
    interpolated(case)
    server_restarted(case)


def other_models(case):
    """Another model of the server generates as much."""
    case.edit_session(model="synthetic")

    def change(table):
        other = table[table["name"] == "vllm:generation_tokens_total"]
        other = other.assign(labels=other["labels"].str.replace("synthetic", "other"))
        return pd.concat([table, other]).sort_values("timestamp_ns", kind="stable")

    case.edit("server_metrics", change)


def metrics_unclear(case):
    """A histogram of two tenants, of which nothing is known."""
    interpolated(case)

    def change(table):
        queue = table["name"].str.startswith("vllm:request_queue_time_seconds_count")
        parts = [table[queue].assign(labels=f'{{"tenant": "{tenant}"}}') for tenant in "ab"]
        return pd.concat([table[~queue], *parts]).sort_values("timestamp_ns", kind="stable")

    case.edit("server_metrics", change)


def tokens_differ(case):
    """One request less on the client's side: below the tolerance, and still said."""
    case.edit("requests", lambda table: table.drop(table.index[table["cell"] == "low"][10]))


def prompt_length_differs(case):
    asked = read_table(case.session / "requests.parquet", requests.SCHEMA)
    planned = asked[["request_id", "cell", "prompt_id", "prompt_tokens"]].assign(max_tokens=500, salt=False)
    planned.loc[planned.index % 10 == 0, "prompt_tokens"] += 1
    write_table(case.session / "schedule.parquet", planned, SCHEDULE)


def _queue_times(case, bounds):
    """Half the requests that ended by a time waited at most 0.1 s, all at most 0.3 s."""

    def change(table):
        name = "vllm:request_queue_time_seconds"
        times = sorted(set(table["timestamp_ns"]))
        counts = np.arange(len(times), dtype=float)
        series = {(f"{name}_count", "{}"): counts, (f"{name}_sum", "{}"): 0.1 * counts}
        series |= {(f"{name}_bucket", f'{{"le": "{bound}"}}'): share * counts for bound, share in bounds.items()}
        added = [
            pd.DataFrame({"timestamp_ns": times, "name": name, "labels": labels, "value": values})
            for (name, labels), values in series.items()
        ]
        return pd.concat([table, *added]).sort_values("timestamp_ns", kind="stable")

    case.edit("server_metrics", change)


def interpolated(case):
    _queue_times(case, {"0.1": 0.5, "0.3": 1.0, "+Inf": 1.0})


def wide_bucket(case):
    _queue_times(case, {"0.3": 1.0, "0.5": 1.0, "+Inf": 1.0})


def no_chunk_times(case):
    case.plan["analysis"]["slo"] = {"itl_s": 0.1}


def client_energy_unknown(case):
    case.edit_session(
        client={"cells": {"low": {"cpu_s": 2.0}}, "workers": []}, machine_cpu={"low": {"busy_s": 40.0, "wall_s": 80.0}}
    )


def preemptions(case):
    def change(table):
        chosen = table["name"] == "vllm:num_preemptions_total"
        table.loc[chosen, "value"] = np.arange(chosen.sum(), dtype=float)
        return table

    case.edit("server_metrics", change)


def attached(case):
    case.edit_session(mode="attach", launch=None)


def launch_failed(case):
    case.edit_session(launch=None)


def leftover_processes(case):
    case.edit_session(stop=synthetic.stop_status(leftover_pids=[4711]))


def no_warmup(case):
    case.drop_phase("warmup")


def _warm(case, change):
    def edited(table):
        warm = table["cell"] == "warmup"
        late = warm & (table["sent_ns"] > table.loc[warm, "sent_ns"].median())
        return change(table, late)

    case.edit("requests", edited)


def warmup_failures(case):
    _warm(case, lambda table, late: table.assign(status=table["status"].mask(late, "failed"), error="refused"))


def warmup_too_short(case):
    def change(table, late):
        order = late.cumsum() * late
        fewer = table["completion_tokens"].mask(order > 12, 5)
        return table.assign(completion_tokens=fewer)

    _warm(case, change)


def untouched(case):
    return
