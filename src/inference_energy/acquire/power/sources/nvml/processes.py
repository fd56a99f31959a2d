"""Who else computes on a GPU while the server is measured: processes that are neither the server nor its descendants.

Checked once a second, apart from the power readings. It gives no rows; what it finds goes into the sampler's counts:

`foreign_processes`
    A list of {pid, name, first_seen_ns, last_seen_ns} in monotonic ns; a name is null where the process is not visible
    from here, as one in another container.
`unidentified_processes`
    The same for processes that were there beside the server, are not visible from here, and may be the server's own
    under the numbers of another namespace: where NVML never lists the server by the number that it has here.
`unlisted_instances`
    UUIDs of a partitioned GPU's instances whose processes may not be seen from here.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError
from inference_energy.acquire.power.sources.nvml.device import Card, mapped

PROCESSES_PERIOD_S = 1.0

ServerPid = Callable[[], int | None]
"""Gives the server's process now; None while there is none."""


@dataclass
class _Seen:
    pid: int
    name: str | None
    first_seen_ns: int
    last_seen_ns: int
    beside_server: bool


class ProcessesChannel(SensorChannel):
    """The processes of one GPU, on all its instances where it is partitioned."""

    def __init__(self, nvml: Any, card: Card, server_pid: ServerPid) -> None:
        super().__init__("nvml", card.uuid, "gpu", "sampled", period_s=PROCESSES_PERIOD_S)
        self.optional = True
        self.still_limit_s = None
        self._nvml = nvml
        self._card = card
        self._unlisted: set[str] = set()
        self._server_pid = server_pid
        self._server: psutil.Process | None = None
        self._own: set[int] = set()
        self._others: dict[int, _Seen] = {}

    def read(self) -> PowerSample:
        """There is none.

        Raises:
            SourceError: always.
        """
        raise SourceError("a list of processes is no reading")

    def read_many(self) -> list[PowerSample]:
        """Look who is there; returns nothing."""
        with mapped(self._nvml, f"processes on {self.device}"):
            pids = self._pids(self._card.handle) if self._card.instances is None else self._on_instances()
        now_ns = time.monotonic_ns()
        # A number of ours that the driver lists no more may be given to another process.
        self._own &= pids
        if unknown := pids - self._own:
            server = self._find_server()
            for pid in unknown:
                self._look_at(pid, server, now_ns)
        return []

    def diagnostics(self) -> dict[str, Any]:
        """What the module describes."""
        foreign: list[dict[str, Any]] = []
        unidentified: list[dict[str, Any]] = []
        for seen in self._others.values():
            facts = asdict(seen)
            unsure = facts.pop("beside_server") and seen.name is None and not self._same_numbers
            (unidentified if unsure else foreign).append(facts)
        notes = {"foreign_processes": foreign, "unidentified_processes": unidentified}
        return notes if self._card.instances is None else {**notes, "unlisted_instances": sorted(self._unlisted)}

    _same_numbers = False
    """Whether the server was listed by the number it has here."""

    def _pids(self, handle: Any) -> set[int]:
        return {int(process.pid) for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)}

    def _on_instances(self) -> set[int]:
        """The card's own list needs privileges and may lack processes without them; so each instance is asked too."""
        pids: set[int] = set()
        for one in self._card.instances or ():
            try:
                pids |= self._pids(one.handle)
            except self._nvml.NVMLError:
                self._unlisted.add(one.uuid)
        with suppress(self._nvml.NVMLError):
            pids |= self._pids(self._card.handle)
        return pids

    def _find_server(self) -> psutil.Process | None:
        pid = self._server_pid()
        if pid is None:
            self._server = None
        elif self._server is None or self._server.pid != pid or not self._server.is_running():
            try:
                self._server = psutil.Process(pid)
            except psutil.NoSuchProcess:
                self._server = None
        return self._server

    def _look_at(self, pid: int, server: psutil.Process | None, now_ns: int) -> None:
        name = None
        try:
            process = psutil.Process(pid)
            name = process.name()
            if server is not None and (process == server or server in process.parents()):
                self._own.add(pid)
                self._others.pop(pid, None)  # it was seen before the server's number was known
                self._same_numbers = True
                return
        except psutil.Error:
            pass
        seen = self._others.setdefault(pid, _Seen(pid, name, now_ns, now_ns, server is not None))
        seen.name = seen.name or name
        seen.last_seen_ns = now_ns
