"""The end of a server's log: what a message about its failure should show."""

from __future__ import annotations

import re
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
READ_AT_MOST = 65536


def log_tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines that are not blank, without colours; of a redrawn progress bar its last state.

    ``start`` is the offset (bytes) at which this server's part of the log begins.
    """
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(start, log.tell() - READ_AT_MOST))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    drawn = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    kept = [line for line in (ANSI.sub("", line).rstrip() for line in drawn) if line]
    return kept[-lines:]
