"""What is asked: the same schedule for every client."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.acquire.load.standalone import CELL
from inference_energy.contracts.io import write_table
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE

PROMPT_TOKENS = 16
FIRST_KEY = 1000


def poisson_ns(rate_qps: float, seconds: float, seed: int = 5) -> list[int]:
    """Arrivals from the start on."""
    gaps_s = np.random.default_rng(seed).exponential(1 / rate_qps, int(rate_qps * seconds * 1.5) + 100)
    times_s = np.cumsum(gaps_s)
    return [int(time_s * 1e9) for time_s in times_s[times_s < seconds]]


def request(number: int, max_tokens: int, **values: Any) -> dict[str, Any]:
    """A row of a schedule with a prompt of its own."""
    return {
        "request_id": number,
        "cell": CELL,
        "prompt_id": number,
        "max_tokens": max_tokens,
        "salt": False,
        "prompt_tokens": PROMPT_TOKENS,
        **values,
    }


def write_plan(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the plan of these rows; each prompt begins with `FIRST_KEY` and its id, by which the server tells it."""
    prompts = [
        {
            "prompt_id": row["prompt_id"],
            "workload": "w",
            "token_ids": [FIRST_KEY + row["prompt_id"], *range(FIRST_KEY, FIRST_KEY + row["prompt_tokens"] - 1)],
        }
        for row in rows
    ]
    write_table(folder / "prompts.parquet", prompts, PROMPTS)
    write_table(folder / "schedule.parquet", list(rows), SCHEDULE)
