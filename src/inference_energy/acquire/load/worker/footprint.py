"""What a load process takes of the machine that is measured, and how late it sent."""

import time
from collections.abc import Sequence
from pathlib import Path


def cpu_s() -> float:
    """CPU time of this process so far [s]."""
    return time.process_time()


def peak_rss_bytes() -> int | None:
    """The most memory this process had resident; None where the kernel does not tell.

    Not that of `getrusage`: this begins with what the parent had at the fork.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def lateness(lateness_ns: Sequence[int]) -> dict[str, float] | None:
    """Median, 99th percentile and maximum of the time from when a request was due until it was sent [s]."""
    if not lateness_ns:
        return None
    ordered = sorted(lateness_ns)
    last = len(ordered) - 1
    return {name: ordered[round(share * last)] / 1e9 for name, share in (("p50_s", 0.5), ("p99_s", 0.99), ("max_s", 1))}
