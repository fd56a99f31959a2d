"""Foreign processes on a GPU: processes that compute on it and are neither the server nor its descendants.

They are checked once a second, apart from the power readings. The channel gives no rows; its diagnostics are:

`foreign_processes`
    A list of {pid, name, first_seen_ns, last_seen_ns} in monotonic ns; a name is null if the process is not visible
    from here, such as one in another container.
`unidentified_processes`
    The same for processes that were listed beside the server, are not visible from here, and may be the server's own
    under the pids of another namespace, because NVML never lists the server by its pid here.
`unlisted_instances`
    UUIDs of MIG instances whose processes may not be listed from here.
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
"""Gives the server's pid; None while there is no server."""


@dataclass
class _ProcessSighting:
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
        self._server_pids: set[int] = set()
        self._foreign: dict[int, _ProcessSighting] = {}

    def read(self) -> PowerSample:
        """Raise, because a list of processes is no reading.

        Raises:
            SourceError: always.
        """
        raise SourceError("a list of processes is no reading")

    def read_many(self) -> list[PowerSample]:
        """Check the processes; return no readings."""
        with mapped(self._nvml, f"processes on {self.device}"):
            pids = self._pids(self._card.handle) if self._card.instances is None else self._on_instances()
        now_ns = time.monotonic_ns()
        # A server's pid that the driver no longer lists may be given to another process.
        self._server_pids &= pids
        if unknown := pids - self._server_pids:
            server = self._find_server()
            for pid in unknown:
                self._classify(pid, server, now_ns)
        return []

    def diagnostics(self) -> dict[str, Any]:
        """Return the lists that the module describes."""
        foreign: list[dict[str, Any]] = []
        unidentified: list[dict[str, Any]] = []
        for seen in self._foreign.values():
            facts = asdict(seen)
            unsure = facts.pop("beside_server") and seen.name is None and not self._same_pids
            (unidentified if unsure else foreign).append(facts)
        notes = {"foreign_processes": foreign, "unidentified_processes": unidentified}
        return notes if self._card.instances is None else {**notes, "unlisted_instances": sorted(self._unlisted)}

    _same_pids = False
    """Whether the server was listed by the pid that it has here."""

    def _pids(self, handle: Any) -> set[int]:
        return {int(process.pid) for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)}

    def _on_instances(self) -> set[int]:
        """Return pids of all instances: without privileges the card's own list may lack processes."""
        pids: set[int] = set()
        for instance in self._card.instances or ():
            try:
                pids |= self._pids(instance.handle)
            except self._nvml.NVMLError:
                self._unlisted.add(instance.uuid)
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

    def _classify(self, pid: int, server: psutil.Process | None, now_ns: int) -> None:
        name = None
        try:
            process = psutil.Process(pid)
            name = process.name()
            if server is not None and (process == server or server in process.parents()):
                self._server_pids.add(pid)
                self._foreign.pop(pid, None)  # it was seen before the server's pid was known
                self._same_pids = True
                return
        except psutil.Error:
            pass
        seen = self._foreign.setdefault(pid, _ProcessSighting(pid, name, now_ns, now_ns, server is not None))
        seen.name = seen.name or name
        seen.last_seen_ns = now_ns
