"""The prompts of a session, made before anything runs, so that nothing is tokenised in the timed path."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from inference_energy.contracts.schedule import PROMPTS
from inference_energy.plan.cells import Cell
from inference_energy.plan.prompts.source import Made
from inference_energy.plan.requests import session_requests


def prompt_tables(cells: Sequence[Cell], seed: int, vocabulary: int | None) -> Iterator[pa.Table]:
    """The prompts of all cells in the order of their ids, each once, in tables of some thousands.

    Args:
        cells: warm-up and windows of a session.
        seed: root seed.
        vocabulary: number of token ids of the model; None when it is not known.

    Yields:
        Tables with the columns of `contracts.schedule.PROMPTS`.

    Raises:
        InputError: a file cannot be used, or token ids are asked for without a vocabulary.
    """
    next_id = 0
    for requests in session_requests(cells, seed):
        made = Made(vocabulary, requests.max_tokens)
        for contents in requests.source.contents(requests.new, made):
            count = contents.num_rows
            ids = pa.array(np.arange(next_id, next_id + count))
            workload = pa.repeat(pa.scalar(requests.cell.workload_name), count)
            yield pa.Table.from_arrays([ids, workload, *contents.columns], schema=PROMPTS)
            next_id += count


def make_prompts(cells: Sequence[Cell], seed: int, vocabulary: int | None) -> pa.Table:
    """The prompts of all cells in one table; see `prompt_tables`."""
    return pa.concat_tables([PROMPTS.empty_table(), *prompt_tables(cells, seed, vocabulary)])
