"""The schedule of a session: which request when, drawn before anything runs."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import RunError
from inference_energy.plan.nulls import column
from inference_energy.plan.requests import CellRequests
from inference_energy.plan.salts import repeats

_COLUMNS = ("arrival_ns", "user", "conversation", "turn", "think_ns", "prompt_id", "prompt_tokens", "max_tokens")


def make_schedule(planned: Sequence[CellRequests], prompts: Iterable[pa.RecordBatch]) -> pa.Table:
    """One row a request, with the columns of `contracts.schedule.SCHEDULE`.

    Args:
        planned: the session's requests, the same that the prompts were made for.
        prompts: their contents in the order of their ids; `Table.to_batches()` of those in memory.

    Raises:
        RunError: the prompts were made for other cells.
    """
    repeated, found = repeats(planned, prompts)
    wanted = sum(len(requests.new) for requests in planned)
    if found != wanted:
        raise RunError(f"{found} prompts where {wanted} are asked: were they made for this schedule?")
    counts = [len(requests.prompt_id) for requests in planned]
    reuse = np.repeat([requests.cell.workload.prefix_reuse for requests in planned], counts).astype(bool)
    columns = {name: _joined(planned, name) for name in _COLUMNS}
    return pa.Table.from_pydict(
        {
            "request_id": pa.array(np.arange(sum(counts))),
            "cell": pa.chunked_array(
                [pa.repeat(pa.scalar(requests.cell.name), len(requests.prompt_id)) for requests in planned],
                pa.string(),
            ),
            **columns,
            "salt": pa.array(repeated & ~reuse),
        },
        schema=SCHEDULE,
    )


def notes_of(planned: Sequence[CellRequests]) -> list[str]:
    """What was left out of files that arrivals and prompts came from, each said once."""
    return list(dict.fromkeys(note for requests in planned for note in requests.notes))


def _joined(planned: Sequence[CellRequests], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([column(getattr(requests, name)) for requests in planned], pa.int64())
