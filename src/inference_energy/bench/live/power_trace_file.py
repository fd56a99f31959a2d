"""Trace file of a server's power, written while it serves and read by every sensor.

A life is what one server writes, from its first row to a row without a GPU power (NaN), or until its process is gone.
One server lives at a time; where the lives of two overlap, the newer one counts.
"""

import os
import struct
import time
from pathlib import Path

import numpy as np

from inference_energy.bench.config import Node
from inference_energy.bench.live.timeline import LiveTrace, Timeline
from inference_energy.bench.truth.ledger import Floats, Integers
from inference_energy.bench.truth.power_trace import TRACE_DTYPE, TruePower

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")

SUFFIX = ".trace"
SILENT_S = 2.0
"""A life without a row for this time has ended if its process has; a living server writes one every 0.5 s."""

SHOWN_AFTER_S = 0.005
"""Delay of the sensors. A server may write a row a few ms late; with the delay all readers see the same rows, and no
counter runs back."""

_ROW = struct.Struct("<qddfHH")


def alive(pid: int, seen_ns: int) -> bool:
    """Return whether the process that had this pid at `seen_ns` (monotonic) lives; a zombie does not. See proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    started_s = int(fields[19]) * _TICK_S - slept_s
    return fields[0] not in (b"Z", b"X") and started_s <= seen_ns / 1e9 + _TICK_S


assert _ROW.size == TRACE_DTYPE.itemsize


class TraceWriter:
    """Writer of one server's rows.

    Args:
        folder: the node's `traces`.
        pid: the server's process.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(folder / f"{pid}{SUFFIX}", flags, 0o664)
        self._host_w = 0.0
        self._temperature_c = float("nan")

    def append(
        self, start_ns: int, gpu_w: float, host_w: float, temperature_c: float, events: int, busy: bool | int
    ) -> None:
        """Append what holds from `start_ns` until the next row. One write, so that no reader sees half a row."""
        self._host_w, self._temperature_c = host_w, temperature_c
        os.write(self._fd, _ROW.pack(start_ns, gpu_w, host_w, temperature_c, events, int(busy)))

    def close(self) -> None:
        """End the life now. A second call does nothing."""
        if self._fd < 0:
            return
        if not np.isnan(self._temperature_c):  # without a row there is no life to end
            self.append(time.monotonic_ns(), float("nan"), self._host_w, self._temperature_c, 0, 0)
        os.close(self._fd)
        self._fd = -1


class _TraceFile:
    """One trace file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.pid = int(path.name.removesuffix(SUFFIX))
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._read_bytes = 0

    def new_rows(self) -> bytes:
        """Return the whole rows that were appended since the last call."""
        whole = (os.fstat(self._fd).st_size - self._read_bytes) // _ROW.size * _ROW.size
        if whole <= 0:
            return b""
        rows = os.pread(self._fd, whole, self._read_bytes)
        rows = rows[: len(rows) // _ROW.size * _ROW.size]
        self._read_bytes += len(rows)
        return rows

    def close(self) -> None:
        os.close(self._fd)


class TraceReader:
    """Reader of a node's traces, in any process.

    Only `refresh` reads, and only what is new. All rows stay in memory, about 64 bytes each.

    Args:
        folder: the node's `traces`.
        node: the node, for its power between lives.
        origin_ns: when it began.

    Attributes:
        gpu: true power of each GPU, without other users.
        host: true power of all CPU packages.
    """

    def __init__(self, folder: Path, node: Node, origin_ns: int) -> None:
        self._folder = folder
        self._timeline = Timeline(node.device, node.engine.host_idle_w, origin_ns)
        self._files: dict[str, _TraceFile] = {}
        self._newest: _TraceFile | None = None
        self._alive_ns = 0
        self.gpu: TruePower = GpuPower(self._timeline)
        self.host: TruePower = HostPower(self._timeline)

    def refresh(self) -> None:
        """Read what was written since the last call, and check whether the server still lives."""
        arrived: list[tuple[int, _TraceFile, LiveTrace]] = []
        for name in os.listdir(self._folder):  # noqa: PTH208 - a third of the time of iterdir, at every poll
            file = self._files.get(name)
            if file is None:
                if not name.endswith(SUFFIX):
                    continue
                file = self._files[name] = _TraceFile(self._folder / name)
            if rows := file.new_rows():
                new = np.frombuffer(rows, dtype=TRACE_DTYPE)
                arrived.append((int(new["start_ns"][0]), file, new))
        for _, file, trace in sorted(arrived, key=lambda item: item[0]):
            self._add(file, trace)
        self._end_dead_life()

    def living_pid(self) -> int | None:
        """Return the process of the server that lives now; None between lives."""
        file = self._newest
        return file.pid if file is not None and alive(file.pid, self._timeline.last_start_ns) else None

    def temperature_c(self, time_ns: int) -> float:
        """Return the temperature of the GPUs at a time."""
        return self._timeline.temperature_c(time_ns)

    def events(self, time_ns: int) -> int:
        """Return the bits of NVML's clocks event reasons at a time."""
        return self._timeline.events(time_ns)

    def busy_share(self, start_ns: int, end_ns: int) -> float:
        """Return the share of a span in which a step ran."""
        return self._timeline.busy_share(start_ns, end_ns)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def _add(self, file: _TraceFile, trace: LiveTrace) -> None:
        if np.isnan(trace["gpu_w"][0]) and file is not self._newest and self._newest is not None:
            trace = trace[1:]  # the end of an older life, while a newer one goes on
        if not len(trace):
            return
        self._timeline.extend(trace)
        self._newest = None if np.isnan(trace["gpu_w"][-1]) else file

    def _end_dead_life(self) -> None:
        """End the newest life if its process is gone without a last row."""
        if self._newest is None:
            return
        now_ns, last_ns = time.monotonic_ns(), self._timeline.last_start_ns
        silent_ns = last_ns + round(SILENT_S * 1e9)
        if now_ns < silent_ns:
            return
        if alive(self._newest.pid, last_ns):
            self._alive_ns = now_ns
            return
        # The same moment for every reader, but never one for which this reader has already given the power.
        self._timeline.end(max(silent_ns, self._alive_ns))
        self._newest = None


class GpuPower:
    """The power of each GPU, as a `TruePower`."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def energy_j(self, times_ns: Integers) -> Floats:
        """Energy since the node began."""
        return self._timeline.gpu_energy_j(times_ns)

    def power_w(self, times_ns: Integers) -> Floats:
        """Power at each time."""
        return self._timeline.gpu_power_w(times_ns)


class HostPower:
    """The power of the CPU packages, as a `TruePower`."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def energy_j(self, times_ns: Integers) -> Floats:
        """Energy since the node began."""
        return self._timeline.host_energy_j(times_ns)

    def power_w(self, times_ns: Integers) -> Floats:
        """Power at each time."""
        return self._timeline.host_power_w(times_ns)
