"""Programs on cores of their own, and what they take: CPU time by the kernel's accounts, and memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PERIOD_S = 0.05
MEMORY_EVERY = 10
PRIORITY = 10


@contextmanager
def placed(core: int, *, realtime: bool) -> Iterator[None]:
    """What is started within runs on this core, with real-time priority if asked."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    if realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        if realtime:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", f"load.{name}", *arguments]


def environment() -> dict[str, str]:
    """Of the programs: they find this package, and vLLM asks nobody anything."""
    here = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": here, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class Server:
    """One of `server.py`'s kinds, listening."""

    def __init__(self, kind: str, arguments: Sequence[str], core: int, *, realtime: bool) -> None:
        with placed(core, realtime=realtime):
            self.process = subprocess.Popen(
                module("server", kind, *arguments),
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
                start_new_session=True,  # the kernel may weigh sessions against each other
            )
        assert self.process.stdout
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit("the server ended before it listened")
        self.port = int(said)

    def stop(self) -> None:
        """Have it write what it noted, and end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class HasProcess(Protocol):
    """A server in a process of its own."""

    process: subprocess.Popen[Any]


@dataclass
class Taken:
    """What a client and its server took, sampled.

    Attributes:
        times_ns: of the samples.
        client_s, server_s: CPU time so far; the client's is that of all its processes.
        client_core_s, server_core_s: time in which their cores were not idle.
        memory: time, resident bytes, and bytes with shared pages split among all who have them, of all processes.
        processes: of the client, at most.
        cpu_s: of the client's processes from start to end, as the kernel told when they were gone.
    """

    times_ns: list[int] = field(default_factory=list)
    client_s: list[float] = field(default_factory=list)
    server_s: list[float] = field(default_factory=list)
    client_core_s: list[float] = field(default_factory=list)
    server_core_s: list[float] = field(default_factory=list)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    processes: int = 0
    cpu_s: float = 0.0

    def between(self, values: list[float], from_ns: int, until_ns: int) -> float:
        """How much a counter moved, interpolated."""
        return self._at(values, until_ns) - self._at(values, from_ns)

    def figures(self, from_ns: int, until_ns: int) -> dict[str, Any]:
        """What was taken in a time."""
        wall_s = (until_ns - from_ns) / 1e9
        client_s, server_s = (self.between(one, from_ns, until_ns) for one in (self.client_s, self.server_s))
        at_client, at_server = (
            self.between(one, from_ns, until_ns) for one in (self.client_core_s, self.server_core_s)
        )
        return {
            "seconds": wall_s,
            "client_cpu_s": client_s,
            "client_cpu_share": client_s / wall_s,
            "server_cpu_share": server_s / wall_s,
            "others_on_client_core": max(0.0, at_client - client_s) / wall_s,
            "others_on_server_core": max(0.0, at_server - server_s) / wall_s,
            "client_cpu_s_whole": self.cpu_s,
            "processes": self.processes,
            "sending_rss_mb": max((rss for at_ns, rss, _ in self.memory if from_ns <= at_ns <= until_ns), default=0)
            / 1e6,
            "rss_mb": max((rss for _, rss, _ in self.memory), default=0) / 1e6,
            "pss_mb": max((pss for _, _, pss in self.memory), default=0) / 1e6,
        }

    def _at(self, values: list[float], time_ns: int) -> float:
        place = min(max(1, bisect_left(self.times_ns, time_ns)), len(values) - 1)
        before_ns, after_ns = self.times_ns[place - 1 : place + 1]
        share = min(1.0, max(0.0, (time_ns - before_ns) / (after_ns - before_ns)))
        return values[place - 1] + share * (values[place] - values[place - 1])


def run_client(
    command: Sequence[str], server: HasProcess, cores: tuple[int, int], *, realtime: bool, log: Path, timeout_s: float
) -> Taken:
    """Run a client to its end on the first core, the server being on the second.

    Raises:
        SystemExit: it failed or took too long.
    """
    with log.open("wb") as words, placed(cores[0], realtime=realtime):
        process = subprocess.Popen(command, stdout=words, stderr=words, env=environment())
    taken = Taken()
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(taken, process.pid, server.process.pid, cores, ended))
    watcher.start()
    overdue = threading.Timer(timeout_s, process.kill)
    overdue.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        overdue.cancel()
        ended.set()
        watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    taken.cpu_s = usage.ru_utime + usage.ru_stime
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{command[1]} ended with {process.returncode}:\n{tail}")
    return taken


def _watch(taken: Taken, client: int, server: int, cores: tuple[int, int], ended: threading.Event) -> None:
    rounds = 0
    used_s: dict[int, float] = {}  # also of processes that are gone
    while not ended.wait(PERIOD_S):
        with suppress(OSError, ValueError):  # the client may end at any moment: then there is no sample
            tree = _tree(client)
            now_ns = time.monotonic_ns()
            used_s.update({pid: _cpu_s(pid) for pid in tree})
            busy_s, served_s = _busy_s(), _cpu_s(server)
            if rounds % MEMORY_EVERY == 0:
                taken.memory.append((now_ns, *_memory(tree)))
            taken.processes = max(taken.processes, len(tree))
            taken.times_ns.append(now_ns)
            taken.client_s.append(sum(used_s.values()))
            taken.server_s.append(served_s)
            taken.client_core_s.append(busy_s[cores[0]])
            taken.server_core_s.append(busy_s[cores[1]])
        rounds += 1


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child))
    return found


def _cpu_s(pid: int) -> float:
    """CPU time of a process so far; the clock's number is the kernel's (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def _busy_s() -> dict[int, float]:
    """Time in which each core was not idle."""
    tick = os.sysconf("SC_CLK_TCK")
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal = (int(value) for value in values[:8])
            busy[int(name[3:])] = (user + nice + system + irq + softirq + steal) / tick
    return busy


def _memory(tree: Sequence[int]) -> tuple[int, int]:
    rss = pss = 0
    for pid in tree:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return rss, pss
