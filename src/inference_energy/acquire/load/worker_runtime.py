"""A load process as a guest on the measured machine: its cost, its maintenance between requests, its priority."""

import asyncio
import ctypes
import errno
import gc
import os
import platform
import resource
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from inference_energy.acquire.load.pacer import Pacer
from inference_energy.acquire.load.request_log import RequestLogger
from inference_energy.contracts.documents.session import SendLag


def cpu_s() -> float:
    """Return the CPU time of this process so far [s]."""
    return time.process_time()


def peak_rss_bytes() -> int | None:
    """Return the peak resident memory of this process; None where the kernel does not state it.

    `getrusage` would begin with the memory of the parent at the fork.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def send_lag(lateness_ns: Sequence[int]) -> SendLag | None:
    """Return median, 99th percentile and maximum of the send lags, from due to sent; None without a request."""
    if not lateness_ns:
        return None
    ordered = sorted(lateness_ns)
    last = len(ordered) - 1
    p50_s, p99_s, max_s = (ordered[round(share * last)] / 1e9 for share in (0.5, 0.99, 1))
    return SendLag(p50_s=p50_s, p99_s=p99_s, max_s=max_s)


FLUSH_PERIOD_S = 0.4
"""With the wait for a quiet moment, a killed process loses the requests that ended in its last half second."""

QUIET_NS = 2_000_000
QUIET_TRIES, QUIET_RETRY_S = 15, 0.005
OLDER_GENERATION_EVERY = 25


def tune_process() -> None:
    """Switch off Python's garbage collector and take priority over other programs; call it once all is loaded."""
    gc.collect()
    gc.freeze()
    gc.disable()
    set_priority()


def allow_many_connections() -> None:
    """Raise the limit of open files to the hard limit: often it is 1024, and each request holds one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run_maintenance(log: RequestLogger, pacer: Pacer) -> None:
    """Flush the logs and collect garbage until cancelled, where possible between two requests.

    A request that ends well leaves no reference cycles; those that errors leave are mostly young.
    """
    rounds = 0
    while True:
        await asyncio.sleep(FLUSH_PERIOD_S)
        await _quiet_moment(pacer)
        log.flush()
        rounds += 1
        gc.collect(0 if rounds % OLDER_GENERATION_EVERY else 1)


async def _quiet_moment(pacer: Pacer) -> None:
    """Wait until no request is due for QUIET_NS, at most for 75 ms."""
    for _ in range(QUIET_TRIES):
        if pacer.next_ns - time.monotonic_ns() > QUIET_NS:
            return
        await asyncio.sleep(QUIET_RETRY_S)


NICE = -5
"""Taken where it is allowed. Users share no core with a server: a send or an answer that waited for the server's own
work would be counted as the server's time. The power sampler has a higher priority."""

SLICE_NS = 100_000
"""A process that asks for short turns is let in sooner (Linux 6.12): with a busy program on the same core a timer is at
most 0.06 ms late; with the nice value alone 3.5 ms."""

GROUP_NICE = -10
"""Where the kernel weighs sessions against each other (autogroup), a process's own nice value counts only within its
session."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call: the C library has had a function for it only since 2024."""


def set_priority() -> None:
    """Raise this process's priority, and its session's if it leads one, as far as the system allows.

    A real-time priority given by whoever started the process is kept.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    try:
        _set_attributes(NICE, SLICE_NS)
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(f"{GROUP_NICE}\n")


def _set_attributes(nice: int, slice_ns: int) -> None:
    """Call sched_setattr(2) for this thread, with the ordinary policy.

    Raises:
        OSError: it is not allowed, or this processor's number for it is not known.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "the number of sched_setattr is not known for this processor")
    # size, policy, flags, nice, priority, runtime (the slice), deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, slice_ns, 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) < 0:
        raise OSError(ctypes.get_errno(), "sched_setattr failed")
