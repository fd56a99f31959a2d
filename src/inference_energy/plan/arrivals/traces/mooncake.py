"""Mooncake traces (Qin et al., arXiv 2407.00079): a JSON object a line.

`timestamp` is in ms; `input_length` and `output_length` in tokens; `hash_ids` name the blocks of 512 tokens of the
prompt, the same id for the same content after the same beginning: that is the trace's reuse of prefixes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.errors import InputError
from inference_energy.plan.arrivals.traces.trace import Blocks, Rows

FIELDS = ("timestamp", "input_length", "output_length")


def read(path: str, until_s: float, block_tokens: int, key: str) -> Rows:
    """The rows up to a time after the first.

    Raises:
        InputError: the file cannot be read or is not such a trace; the message has the line.
    """
    rows: list[tuple[float, int, int]] = []
    ids: list[list[int]] = []
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                content = _object(line, f"{key}: {path}:{number}")
                rows.append((content["timestamp"] / 1e3, content["input_length"], content["output_length"]))
                ids.append(content.get("hash_ids") or [])
                if rows[-1][0] - rows[0][0] > until_s:
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{key}: {path} cannot be read: {error}") from error
    times_s, prompt_tokens, output_tokens = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    blocks = Blocks.of(ids, block_tokens) if any(ids) else None
    return Rows(times_s.copy(), prompt_tokens.astype(np.int64), output_tokens.astype(np.int64), blocks)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    found = list(content) if isinstance(content, dict) else [type(content).__name__]
    lacking = [name for name in FIELDS if name not in found]
    if not isinstance(content, dict) or lacking:
        raise InputError(f"{where}: lacks {', '.join(lacking)}; found: {', '.join(found)}. Is it of this format?")
    wrong = [name for name in FIELDS if isinstance(content[name], bool) or not isinstance(content[name], int | float)]
    if wrong:
        raise InputError(f"{where}: {wrong[0]}: a number is expected, got {content[wrong[0]]!r}")
    ids = content.get("hash_ids")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(one, int) for one in ids)):
        raise InputError(f"{where}: hash_ids: a list of whole numbers is expected")
    return content
