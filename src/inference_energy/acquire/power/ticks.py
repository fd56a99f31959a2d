"""A power log as one row a sampling instant: the table that a CSV reader expects.

The long form has a row for each channel; here the channels that do not overlap are added up at the instants of the one
that was read most often, the others interpolated to them.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from inference_energy.contracts.power import summed_keys, weakest_grade

COLUMNS = ("time", "power_W", "gpu_util", "mem_used_bytes", "source", "grade")
STALE_AFTER_S = 3.0
"""A channel with no reading this near to an instant has no value there."""


def by_instant(log: pa.Table) -> pd.DataFrame:
    """One row a sampling instant.

    Args:
        log: power.parquet's columns with their metadata, sorted by time.

    Returns:
        `time` (unix s), `power_W` (the sum; NaN where one of its parts has no reading near), `gpu_util` (percent, mean
        over GPUs), `mem_used_bytes` (sum over GPUs), `source` (joined by +) and `grade` (the weakest part's).
    """
    metadata = {key.decode(): json.loads(value) for key, value in log.schema.metadata.items() if key != b"host"}
    frame = log.to_pandas()
    frame["power_w"] = frame["power_average_w"].fillna(frame["power_instant_w"])
    powers = frame.dropna(subset=["power_w"])
    grades = {source["name"]: source["grade"] for source in metadata["source"]}
    by_channel = dict(iter(powers.groupby(["source", "device", "domain"], sort=True)))
    keys = summed_keys((key, grades[key[0]]) for key in by_channel)
    parts = {key: part for key, part in by_channel.items() if key in keys}
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    instants_ns = max(parts.values(), key=len)["timestamp_ns"].to_numpy()
    total_w = sum(_at(instants_ns, part, "power_w") for part in parts.values())

    anchor = metadata["clock_anchor"]
    gpu = frame[frame["domain"] == "gpu"]
    by_gpu = [part for _, part in gpu.groupby("device")]
    used = [_at(instants_ns, part, "utilization") for part in by_gpu]
    memory = [_at(instants_ns, part, "memory_used_bytes") for part in by_gpu]
    return pd.DataFrame(
        {
            "time": (instants_ns - anchor["monotonic_ns"]) / 1e9 + anchor["unix_ns"] / 1e9,
            "power_W": total_w,
            "gpu_util": np.mean(used, axis=0) * 100 if used else np.nan,
            "mem_used_bytes": np.sum(memory, axis=0) if memory else np.nan,
            "source": "+".join(sorted({source for source, _, _ in parts})),
            "grade": weakest_grade(_grade(part, grades) for part in parts.values()),
        },
        columns=list(COLUMNS),
    )


def _at(instants_ns: np.ndarray[Any, Any], part: pd.DataFrame, column: str) -> np.ndarray[Any, Any]:
    """A channel's column at the instants; NaN further than `STALE_AFTER_S` from a reading."""
    known = part.dropna(subset=[column])
    if known.empty:
        return np.full(len(instants_ns), np.nan)
    at_ns = known["timestamp_ns"].to_numpy()
    after = np.clip(np.searchsorted(at_ns, instants_ns), 0, len(at_ns) - 1)
    before = np.clip(after - 1, 0, None)
    apart_ns = np.minimum(np.abs(at_ns[after] - instants_ns), np.abs(instants_ns - at_ns[before]))
    # Relative times, because ns since boot do not fit a float exactly.
    values = np.interp((instants_ns - at_ns[0]).astype(float), (at_ns - at_ns[0]).astype(float), known[column])
    return np.where(apart_ns <= STALE_AFTER_S * 1e9, values, np.nan)


def _grade(part: pd.DataFrame, grades: dict[str, str]) -> str:
    """The grade of a channel's power: `counter` only where the power comes from the energy counter of the same row."""
    grade = grades[part["source"].iloc[0]]
    return "sampled" if grade == "counter" and part["energy_counter_j"].isna().all() else grade
