"""Fuzzing of a parser for a bounded time: valid documents, damaged in the ways that files and servers are damaged.

`FUZZ_SECONDS` sets the time of each parser: 30 s in `make test`, ten minutes with `make fuzz`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")

SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))
EXAMPLES = 200
_WORD = re.compile(rb"[\w.+-]+")

EXTREMES = (
    *(b"-1 0 1e400 -1e400 1e18 inf -inf nan NaN Infinity 1e-400 0x10 1_000 +5 5. .5 007 true null").split(),
    *(str(number).encode() for number in (2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400)),
    b"1" * 5000,
    *(b'"" "null" [] {} [[]] {"a":1} "\\ud83d" "\\u0000" \xff \xed\xa0\xbd \x00 \xef\xbb\xbf').split(),
    b"[" * 2000,
    b'{"a":' * 2000,
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b",",
        b";",
        b"\t",
        b" ",
        b":",
        b'"',
        b"'",
        b"{",
        b"}",
        b"=",
        b"#",
        b"%",
        b"x" * 5000,
    ),
)


@st.composite
def damaged(draw: st.DrawFn, documents: Sequence[bytes]) -> bytes:
    """One of the documents after up to six changes: a part cut, repeated, moved, overwritten, or a value replaced."""
    content = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["cut", "repeat", "insert", "overwrite", "value", "end", "many"])):
            case "cut":
                content = content[:start] + content[end:]
            case "repeat":
                content = content[:end] + content[start:end] + content[end:]
            case "insert":
                content = content[:start] + draw(st.binary(max_size=12)) + content[start:]
            case "overwrite":
                content = content[:start] + draw(st.sampled_from(EXTREMES)) + content[end:]
            case "value":
                content = _with_value(draw, content)
            case "end":
                content = content[:start]
            case "many":
                content = content[:end] + content[start:end] * 200 + content[end:]
    return content


def fuzz(inputs: st.SearchStrategy[T], check: Callable[[T], object], *, seconds: float = SECONDS) -> None:
    """Call `check` with inputs until the time is over; it raises if the parser did what it must not do.

    Each round has a seed of its own, so a longer run tries more. The smallest input that fails is printed.
    """
    deadline_s = time.monotonic() + seconds
    for number in count():

        @seed(number)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.normal,
        )
        @given(inputs)
        def one_round(value: T) -> None:
            if time.monotonic() < deadline_s:
                check(value)

        one_round()
        if time.monotonic() >= deadline_s:
            return


def _with_value(draw: st.DrawFn, content: bytes) -> bytes:
    """Put an extreme in the place of a word or number, where a value is most often looked for."""
    words = [(found.start(), found.end()) for found in _WORD.finditer(content)]
    if not words:
        return content
    start, end = draw(st.sampled_from(words))
    return content[:start] + draw(st.sampled_from(EXTREMES)) + content[end:]
