"""The prompts of a session, made before anything runs, so that nothing is tokenised in the timed path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.config.load import ClosedArrival, FixedLength, Length, SyntheticPrompts
from inference_energy.contracts.schedule import PROMPTS
from inference_energy.errors import InputError
from inference_energy.plan.arrivals import offsets_ns
from inference_energy.plan.cells import Cell
from inference_energy.plan.seeds import generator

FIRST_ORDINARY_TOKEN = 1000
"""Token ids below this are often control tokens; they are not drawn when the vocabulary is large enough."""

WORDS = (
    "time",
    "year",
    "way",
    "day",
    "man",
    "life",
    "child",
    "world",
    "school",
    "state",
    "group",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "work",
    "night",
    "point",
    "home",
    "water",
    "room",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "book",
    "eye",
    "job",
    "word",
    "side",
    "head",
    "house",
    "friend",
    "hour",
    "game",
    "line",
    "law",
    "car",
)
"""Common English nouns, about one token each in usual vocabularies."""


def requests_in(cell: Cell, seed: int) -> int:
    """How many requests a cell has in its schedule: its arrivals, or the pool of a closed loop."""
    if isinstance(cell.arrival, ClosedArrival):
        return cell.arrival.pool
    offsets = offsets_ns(cell.arrival, cell.duration_s, generator(seed, cell.name, "arrivals"))
    return 0 if offsets is None else len(offsets)


def make_prompts(cells: Sequence[Cell], seed: int, vocabulary: int | None) -> pd.DataFrame:
    """The prompts of all cells, one for each request of the schedule, in its order.

    Args:
        cells: warm-up and windows of a session.
        seed: root seed.
        vocabulary: number of token ids of the model; None when it is not known.

    Returns:
        A frame with the columns of `contracts.schedule.PROMPTS`.

    Raises:
        InputError: a prompts file is missing or empty, or token ids are asked for without a vocabulary.
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        count = requests_in(cell, seed)
        random = generator(seed, cell.name, "prompts")
        config = cell.workload.prompts
        if not isinstance(config, SyntheticPrompts):
            lines = _lines(config.path, cell.workload_name)
            contents = [{"text": lines[index]} for index in _shuffled(len(lines), count, random)]
        elif config.form == "words":
            contents = [{"text": " ".join(random.choice(WORDS, n))} for n in lengths(config.length, count, random)]
        else:
            if vocabulary is None:
                key = f"workloads.{cell.workload_name}.prompts.form"
                raise InputError(f"{key}: the model's vocabulary is not known; write form: words")
            lowest = FIRST_ORDINARY_TOKEN if vocabulary > 2 * FIRST_ORDINARY_TOKEN else 0
            contents = [
                {"token_ids": random.integers(lowest, vocabulary, n, dtype=np.int32).tolist()}
                for n in lengths(config.length, count, random)
            ]
        rows += [
            {"prompt_id": len(rows) + index, "workload": cell.workload_name, **content}
            for index, content in enumerate(contents)
        ]
    # dtype object: an all-null column would become float64, which is no list of token ids.
    return pd.DataFrame(rows, columns=PROMPTS.names, dtype=object)


def lengths(config: Length, count: int, random: np.random.Generator) -> list[int]:
    """Prompt lengths in tokens; the normal one is rounded, then clipped to its bounds."""
    if isinstance(config, FixedLength):
        return [config.tokens] * count
    drawn = np.rint(random.normal(config.mean, config.std, count))
    return [int(value) for value in np.clip(drawn, config.minimum, config.maximum)]


def _lines(path: str, workload: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"workloads.{workload}.prompts.path: {path} cannot be read: {error}") from error
    if not any(lines):
        raise InputError(f"workloads.{workload}.prompts.path: {path} holds no prompt; write one a line")
    return [line for line in lines if line]


def _shuffled(available: int, count: int, random: np.random.Generator) -> list[int]:
    """Indices in random order; all are used before one is used again."""
    rounds = [random.permutation(available) for _ in range(-(-count // available))]
    return [int(index) for index in np.concatenate(rounds)[:count]] if rounds else []
