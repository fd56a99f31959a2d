"""Mooncake and Qwen-Bailian traces: a JSON object a line, with names for the blocks of each prompt.

- Mooncake (Qin et al., arXiv 2407.00079): `timestamp` is in ms; `input_length` and `output_length` in tokens;
  `hash_ids` name the blocks of 512 tokens of the prompt, the same id for the same content after the same beginning:
  that is the trace's reuse of prefixes.
- Qwen-Bailian (Wang et al., KVCache Cache in the Wild, ATC 2025, arXiv 2506.02634): the same keys, but `timestamp` is
  in s and blocks have 16 tokens; and besides `chat_id`, `parent_chat_id`, `turn`, `type`.
"""

import hashlib
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference_energy.config.load.arrivals import MOST_REQUESTS, TraceArrival
from inference_energy.config.load.prompts import MOST_TOKENS
from inference_energy.contracts.outside import as_count
from inference_energy.errors import InputError, Setting
from inference_energy.plan.arrivals.trace_rows import PUBLISHED, UNITS_S, Blocks, Progress, Rows, check_unit, time_units
from inference_energy.plan.tables import Line, json_lines, names_found, shown

MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length")
BAILIAN_KEYS = ("chat_id", "parent_chat_id")
BLOCK_TOKENS = {"mooncake": 512, "bailian": 16}
_BATCH_ROWS = 1024
_LATEST = 1e20
"""Above every time since 1970 in ns."""


class _Row(NamedTuple):
    time: int | float
    input_length: int
    output_length: int
    ids: list[int]


def read_blocks(arrival: TraceArrival, until_s: float, key: str) -> Rows:
    """Return the rows of a Mooncake or Qwen-Bailian trace up to a time after the first.

    Raises:
        InputError: the file cannot be read, is not such a trace, or is doubtful in its unit of time or its size of a
            block; the message has the line.
    """
    unit_s = UNITS_S[arrival.time_unit or PUBLISHED[arrival.format].unit]
    blocks = _BlockSizes(arrival.block_tokens or BLOCK_TOKENS[arrival.format], key)
    progress = Progress(until_s)
    times_s: list[float] = []
    lengths: list[tuple[int, int]] = []
    ids: list[NDArray[np.int64]] = []
    first: int | float = 0
    for line, content in json_lines(arrival.path, f"{key}.path"):
        row = _row(content, line, arrival, key)
        first = row.time if not times_s else first
        # Whole numbers are subtracted as such: times since 1970 in ns have more digits than a float.
        times_s.append((row.time - first) * unit_s)
        lengths.append((row.input_length, row.output_length))
        ids.append(np.array(row.ids, dtype=np.int64))
        blocks.add(row, line)
        if len(times_s) % _BATCH_ROWS == 0 and not progress.needs_more(np.array(times_s[-_BATCH_ROWS:])):
            break
        if len(times_s) > MOST_REQUESTS:
            raise line.error(f"more than {MOST_REQUESTS} rows")
    prompt_tokens, output_tokens = np.array(lengths, dtype=np.int64).reshape(-1, 2).T
    times = np.array(times_s)
    check_unit(arrival, first, times, key)
    blocks.check()
    return Rows(
        times,
        prompt_tokens.copy(),
        output_tokens.copy(),
        Blocks.from_lists(ids, blocks.block_tokens) if any(map(len, ids)) else None,
        blocks.notes(),
    )


def _row(content: Any, line: Line, arrival: TraceArrival, key: str) -> _Row:
    lacking = [name for name in MOONCAKE_FIELDS if not isinstance(content, dict) or name not in content]
    if lacking:
        text = f"lacks {', '.join(lacking)}; found: {names_found(content)}. Is it of this format?"
        raise line.error(text)
    is_stated = arrival.time_unit is not None and arrival.block_tokens is not None
    own = [name for name in BAILIAN_KEYS if name in content]
    if own and arrival.format == "mooncake" and not is_stated:
        raise InputError(
            f"{line.name}: {own[0]} is a key of Qwen-Bailian's traces, which have times in s and blocks of 16 tokens",
            key=key,
            write=(Setting(f"{key}.format", "bailian"),),
        )
    time = content["timestamp"]
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise line.error(f"timestamp: a number is expected, got {shown(time)}")
    if not 0 <= time < _LATEST:
        raise line.error(f"timestamp: a number from 0 up is expected, got {shown(time)}")
    if time != int(time) and arrival.format == "mooncake" and arrival.time_unit is None:
        text = f"{line.name}: timestamp {time:g} has a fraction, and Mooncake's are whole ms; state the unit of time"
        raise InputError(text, key=key, write=time_units(key, "s", "ms"))
    lengths = [as_count(content[name]) for name in MOONCAKE_FIELDS[1:]]
    for name, length in zip(MOONCAKE_FIELDS[1:], lengths, strict=True):
        if length is None or length > MOST_TOKENS:
            expected = f"a number is expected, whole and from 0 to {MOST_TOKENS}"
            raise line.error(f"{name}: {expected}, got {shown(content[name])}")
    return _Row(time, lengths[0] or 0, lengths[1] or 0, _block_names(content.get("hash_ids"), line))


def _block_names(ids: Any, line: Line) -> list[int]:
    expected = "hash_ids: a list of whole numbers or texts is expected"
    if ids is not None and not isinstance(ids, list):
        raise line.error(f"{expected}, got {shown(ids)}")
    try:
        return [_block_name(block) for block in ids or ()]
    except TypeError as error:
        raise line.error(f"{expected}; {error}") from error


def _block_name(block: object) -> int:
    """Return an id as a number from 0 to 2^63 - 1: itself if it is one, and else a hash, since ids are only names.

    Raises:
        TypeError: it is no id, or a number that lost its last digits.
    """
    if isinstance(block, float):
        if block != math.floor(block) or abs(block) >= 2**53:
            raise TypeError(f"{block!r} has a fraction, or lost its last digits")
        block = int(block)
    if isinstance(block, bool) or not isinstance(block, int | str):
        raise TypeError(f"{shown(block)} is neither")
    if isinstance(block, int) and 0 <= block < 2**63:
        return block
    return _hashed(block)


@lru_cache(maxsize=1 << 16)
def _hashed(block: int | str) -> int:
    kind = "text" if isinstance(block, str) else "number"
    text = block if isinstance(block, str) else hex(block)
    digest = hashlib.blake2b(f"{kind} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _BlockSizes:
    """Whether the number of ids of each prompt fits its length in tokens and the size of a block.

    A prompt of L tokens has L / B blocks of B tokens, rounded up, or down where only whole blocks have an id.
    """

    def __init__(self, block_tokens: int, key: str) -> None:
        self.block_tokens = block_tokens
        self._key = key
        self._several = self._unfit = self._longer = 0
        self._first: tuple[Line, _Row] | None = None

    def add(self, row: _Row, line: Line) -> None:
        """Take a prompt; one block alone says little about its size."""
        count, whole = len(row.ids), row.input_length // self.block_tokens
        if not count:
            return
        self._longer += whole > count
        if count > 1:
            self._several += 1
            if not whole <= count <= whole + 1:
                self._unfit += 1
                self._first = self._first or (line, row)

    def check(self) -> None:
        """Refuse the file if the ids of most prompts do not fit.

        Raises:
            InputError: with a size that fits the first such prompt, if a power of two does.
        """
        if self._first is None or 2 * self._unfit <= self._several:
            return
        line, row = self._first
        text = f"{len(row.ids)} hash_ids of {row.input_length} tokens are not blocks of {self.block_tokens} tokens"
        sizes = [1 << power for power in range(24) if math.ceil(row.input_length / (1 << power)) == len(row.ids)]
        write = Setting(f"{self._key}.block_tokens", sizes[0] if len(sizes) == 1 else "the size of a block")
        raise InputError(f"{line.name}: {text}", key=self._key, write=(write,))

    def notes(self) -> tuple[str, ...]:
        """Return the note about prompts that go on beyond their blocks."""
        if not self._longer:
            return ()
        text = "prompts are longer than their hash_ids say; the rest of each is like no other prompt"
        return (f"{self._longer} {text}",)
