"""Comparison of what an archive states with what was computed anew: summary, derived documents, receipts."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

RELATIVE_TOLERANCE = 1e-9
"""Tolerance for another order of summation; far below any uncertainty of a measurement."""

_NAMES = ("cell", "session", "server", "code")
_NOT_COMPARED = ("toolkit",)
"""The version that computed the summary may differ; it is reported separately."""

RENAMED_KEYS = {"analysis.limits": "analysis.slo"}
"""Keys of the configuration that have a new name since an archive may have been made; the `detail` of a reason names
them. Nothing else may be worded differently."""


@dataclass(frozen=True)
class SummaryComparison:
    """The number of stored figures, the differences, a line each, and how many sentences name a key by its old name."""

    figures: int
    differences: list[str]
    renamed: int


def compare_summaries(stored: dict[str, Any], recomputed: dict[str, Any]) -> SummaryComparison:
    """Compare everything in two summaries: numbers within a relative 1e-9, all else exactly, but for renamed keys.

    Args:
        stored: summary.json of an archive.
        recomputed: the summary from its raw files.
    """
    as_stored = json.loads(json.dumps(recomputed))
    with_new_names, renamed = _with_new_names(stored)
    left, right = (
        {key: value for key, value in summary.items() if key not in _NOT_COMPARED}
        for summary in (with_new_names, as_stored)
    )
    return SummaryComparison(sum(1 for _ in _figures(stored)), list(_differences("", left, right)), renamed)


def _with_new_names(content: Any) -> tuple[Any, int]:
    """Return the content with the new names of keys in every `detail`, and how many of these it changed."""
    if isinstance(content, dict):
        pairs = {
            key: _renamed(value) if key == "detail" and isinstance(value, str) else _with_new_names(value)
            for key, value in content.items()
        }
        return {key: value for key, (value, _) in pairs.items()}, sum(count for _, count in pairs.values())
    if isinstance(content, list):
        items = [_with_new_names(item) for item in content]
        return [item for item, _ in items], sum(count for _, count in items)
    return content, 0


def _renamed(sentence: str) -> tuple[str, int]:
    renamed = sentence
    for old, new in RENAMED_KEYS.items():
        renamed = renamed.replace(old, new)
    return renamed, int(renamed != sentence)


def _differences(path: str, stored: Any, recomputed: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        for key in dict.fromkeys((*stored, *recomputed)):
            inner = f"{path}.{key}" if path else key
            if key not in recomputed:
                yield f"{inner}: stored, but not recomputed"
            elif key not in stored:
                yield f"{inner}: recomputed, but not stored"
            else:
                yield from _differences(inner, stored[key], recomputed[key])
    elif isinstance(stored, list) and isinstance(recomputed, list):
        if len(stored) != len(recomputed):
            yield f"{path}: {len(stored)} stored, {len(recomputed)} recomputed"
            return
        for number, (stored_item, recomputed_item) in enumerate(zip(stored, recomputed, strict=True)):
            yield from _differences(f"{path}[{_label(stored_item, number)}]", stored_item, recomputed_item)
    elif not _equal(stored, recomputed):
        yield f"{path}: stored {_text(stored)}, recomputed {_text(recomputed)}"


def _equal(stored: Any, recomputed: Any) -> bool:
    if _is_number(stored) and _is_number(recomputed):
        return bool(stored == recomputed) or math.isclose(stored, recomputed, rel_tol=RELATIVE_TOLERANCE)
    return type(stored) is type(recomputed) and bool(stored == recomputed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(entry: Any, number: int) -> str:
    """Return the name of a list's entry, or its number."""
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


def compare_documents(name: str, stored: Any, recomputed: Any) -> list[str]:
    """Return the differences of a derived document, a line each, in the same way.

    Args:
        name: the member, for the lines.
        stored: its content.
        recomputed: the content from the raw files.
    """
    with_new_names, _ = _with_new_names(stored)
    return [f"{name}: {line}" for line in _differences("", with_new_names, json.loads(json.dumps(recomputed)))]


def compare_tables(name: str, stored: pd.DataFrame, recomputed: pd.DataFrame) -> list[str]:
    """Return the differences of two tables, a line for each column.

    Args:
        name: the member, for the lines.
        stored: its rows.
        recomputed: the rows from the raw files.
    """
    if len(stored) != len(recomputed):
        return [f"{name}: {len(stored)} rows stored, {len(recomputed)} recomputed"]
    lines = []
    for column in stored.columns:
        left, right = stored[column], recomputed[column]
        if pd.api.types.is_float_dtype(left):
            same = np.isclose(left.to_numpy(float), right.to_numpy(float), RELATIVE_TOLERANCE, 0.0, equal_nan=True)
        else:
            same = ((left == right) | (left.isna() & right.isna())).to_numpy(bool, na_value=False)
        if not same.all():
            lines.append(f"{name}: {column} differs in {np.count_nonzero(~same)} of {len(stored)} rows")
    return lines
