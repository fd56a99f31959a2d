"""Whether a process still lives, told from a later one with the same pid. See proc(5), /proc/PID/stat."""

import os
import time
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def alive(pid: int, seen_ns: int) -> bool:
    """Whether the process that had this pid at `seen_ns` (monotonic) lives; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    started_s = int(fields[19]) * _TICK_S - slept_s
    return fields[0] not in (b"Z", b"X") and started_s <= seen_ns / 1e9 + _TICK_S
