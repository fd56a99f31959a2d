"""The schedule of a session: which request when, drawn before anything runs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from inference_energy.errors import RunError
from inference_energy.plan.arrivals import offsets_ns
from inference_energy.plan.cells import Cell
from inference_energy.plan.prompts import requests_in
from inference_energy.plan.seeds import generator


def make_schedule(cells: Sequence[Cell], seed: int, prompts: pd.DataFrame) -> pd.DataFrame:
    """One row a request, with the columns of `contracts.schedule.SCHEDULE`.

    Args:
        cells: warm-up and windows of a session, the same that the prompts were made for.
        seed: root seed.
        prompts: the prompts, in the order of the requests.

    Raises:
        RunError: the prompts were made for other cells.
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        offsets = offsets_ns(cell.arrival, cell.duration_s, generator(seed, cell.name, "arrivals"))
        arrivals = [None] * requests_in(cell, seed) if offsets is None else [int(offset) for offset in offsets]
        rows += [
            {"cell": cell.name, "arrival_ns": arrival, "max_tokens": cell.workload.max_tokens} for arrival in arrivals
        ]
    if len(rows) != len(prompts):
        raise RunError(f"{len(prompts)} prompts for {len(rows)} requests: were the prompts made for this schedule?")
    tokens = [None if ids is None else len(ids) for ids in prompts["token_ids"]]
    for request_id, (row, prompt_id, count) in enumerate(zip(rows, prompts["prompt_id"], tokens, strict=True)):
        row |= {"request_id": request_id, "prompt_id": int(prompt_id), "prompt_tokens": count}
    return pd.DataFrame(rows)
