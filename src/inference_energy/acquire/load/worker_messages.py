"""The messages between load processes and their parent: JSON lines, see `contracts.child_process`.

Parent and workers both import this module, so it imports no Arrow.
"""

import msgspec

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.contracts.documents.session import SendLag


class RunCell(msgspec.Struct, tag_field="do", tag="run"):
    """Order to send a cell's requests from a monotonic time on."""

    cell: str
    start_ns: int


class StopCell(msgspec.Struct, tag_field="do", tag="stop"):
    """Order to end the cell at once and cut off the requests in flight."""


class EndProcess(msgspec.Struct, tag_field="do", tag="end"):
    """Order to end the process."""


Order = RunCell | StopCell | EndProcess


class Ready(msgspec.Struct, tag_field="event", tag="ready"):
    """The process has read its part of the plan.

    Attributes:
        cpu_s: CPU time so far.
        kernel_timer: whether it wakes by a timer of the kernel.
    """

    cpu_s: float
    kernel_timer: bool


class Stats(msgspec.Struct, tag_field="event", tag="stats"):
    """The counts of the current cell."""

    counts: LiveCounts


class Done(msgspec.Struct, tag_field="event", tag="done"):
    """A cell has ended.

    Attributes:
        cell: its name.
        end_ns: when it stopped sending; None if it was stopped before.
        drained_ns: when its last request had ended or was cut off; None if it was stopped before.
        cpu_s: CPU time of the cell.
        lateness: its send lag; None without a request.
        counts: its final counts.
    """

    cell: str
    end_ns: int | None
    drained_ns: int | None
    cpu_s: float
    lateness: SendLag | None
    counts: LiveCounts


class Ended(msgspec.Struct, tag_field="event", tag="ended"):
    """The process ends in order.

    Attributes:
        cpu_s: its CPU time.
        wall_s: its life.
        peak_rss_bytes: its largest resident memory; None where the kernel does not state it.
        lateness: its send lag; None without a request.
    """

    cpu_s: float
    wall_s: float
    peak_rss_bytes: int | None
    lateness: SendLag | None


WorkerEvent = Ready | Stats | Done | Ended


class CellTimes(msgspec.Struct, frozen=True):
    """When a cell sent requests, and when the last one in flight had ended or was cut off; monotonic ns."""

    start_ns: int
    end_ns: int
    drained_ns: int
