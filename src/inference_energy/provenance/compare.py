"""Comparing a stored summary with one computed anew."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RELATIVE_TOLERANCE = 1e-9
"""Room for another order of summation; far below any uncertainty of a measurement."""

_NAMES = ("cell", "session", "server", "code")
_NOT_COMPARED = ("toolkit",)
"""Which version computed it differs by nature, and is told apart."""


@dataclass(frozen=True)
class Comparison:
    """How many figures the stored summary has, and what differs, a line each."""

    figures: int
    differences: list[str]


def compare_summaries(stored: dict[str, Any], recomputed: dict[str, Any]) -> Comparison:
    """Compare everything in two summaries: numbers within a relative 1e-9, all else exactly.

    Args:
        stored: summary.json of an archive.
        recomputed: the summary from its raw files.
    """
    anew = json.loads(json.dumps(recomputed))
    left, right = ({key: value for key, value in s.items() if key not in _NOT_COMPARED} for s in (stored, anew))
    return Comparison(sum(1 for _ in _figures(stored)), list(_differences("", left, right)))


def _differences(place: str, stored: Any, anew: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(anew, dict):
        for key in dict.fromkeys((*stored, *anew)):
            inner = f"{place}.{key}" if place else key
            if key not in anew:
                yield f"{inner}: stored, but not recomputed"
            elif key not in stored:
                yield f"{inner}: recomputed, but not stored"
            else:
                yield from _differences(inner, stored[key], anew[key])
    elif isinstance(stored, list) and isinstance(anew, list):
        if len(stored) != len(anew):
            yield f"{place}: {len(stored)} stored, {len(anew)} recomputed"
            return
        for number, (one, other) in enumerate(zip(stored, anew, strict=True)):
            yield from _differences(f"{place}[{_label(one, number)}]", one, other)
    elif not _equal(stored, anew):
        yield f"{place}: stored {_text(stored)}, recomputed {_text(anew)}"


def _equal(stored: Any, anew: Any) -> bool:
    if _is_number(stored) and _is_number(anew):
        return bool(stored == anew) or math.isclose(stored, anew, rel_tol=RELATIVE_TOLERANCE)
    return type(stored) is type(anew) and bool(stored == anew)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(entry: Any, number: int) -> str:
    """The name of a list's entry, or its number."""
    names = [entry[key] for key in _NAMES if isinstance(entry, dict) and isinstance(entry.get(key), str)]
    return names[0] if names else str(number)


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _figures(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        if {"value", "unit", "valid"} <= content.keys():
            yield content
        else:
            for value in content.values():
                yield from _figures(value)
    elif isinstance(content, list):
        for value in content:
            yield from _figures(value)
