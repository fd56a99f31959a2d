"""The sampler process as its owner sees it: started, followed, stopped."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import UNSET, UnsetType

from inference_energy.acquire.power.sampler import stats_path
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.contracts.child_process import ChildProcess, Event, python_module
from inference_energy.contracts.documents.session import ChannelCounts
from inference_energy.contracts.io import read_json
from inference_energy.errors import RunError

START_TIMEOUT_S = 60.0
"""Sources are opened one after the other; without persistence mode a driver of many GPUs alone takes ten seconds."""

METER_START_S = 60.0
"""Additional time for each device that is set up: a BMC may need seconds for each of tens of chassis."""


END_TIMEOUT_S = 15.0
"""How long a sampler may take to write the rest of its log and close its sources before it is killed."""


@dataclass(frozen=True, slots=True)
class SamplerStats:
    """Statistics of a sampler process.

    Attributes:
        ended_by: `request`, `owner`, `duration`, or a sentence that says how the process died.
        clean: whether it ended in order; if it did not, the counts are missing, but the log can be compacted.
        elapsed_s: how long it sampled.
        channels: counts and diagnostics of each channel.
    """

    ended_by: str
    clean: bool
    elapsed_s: float | None = None
    channels: list[ChannelCounts] = field(default_factory=list)

    @property
    def missed(self) -> int:
        """Missed polls of all channels."""
        return sum(_count(channel.missed) for channel in self.channels)

    @property
    def faults(self) -> list[str]:
        """A sentence for each channel that had errors, and for each other fault."""
        return [sentence for channel in self.channels for sentence in _sentences(channel)]


def start_timeout_s(spec: SamplerSpec) -> float:
    """Return how long the sampler may take until every channel has given a reading."""
    meters = (spec.redfish, spec.ipmi, spec.smart_plug, spec.pdu, spec.dcgm)
    return START_TIMEOUT_S + METER_START_S * sum(meter is not None for meter in meters) + spec.pcm_power.period_s


def _sentences(channel: ChannelCounts) -> Iterator[str]:
    name = f"{channel.source} {channel.device} ({channel.domain})"
    errors, reopened = _count(channel.errors), _count(channel.reopened)
    if errors:
        reads = errors + _count(channel.reads)
        yield f"{name}: {errors} of {reads} reads failed, at last with: {channel.last_error}"
    if reopened:
        yield f"{name}: the source was reopened {reopened} time(s)"
    for fault in () if channel.faults is UNSET else channel.faults:
        yield f"{name}: {fault}"
    for process in channel.foreign_processes or ():
        seen_s = (process.last_seen_ns - process.first_seen_ns) / 1e9
        yield (
            f"{name}: process {process.pid} ({process.name or 'not visible from here'}), which is not the "
            f"server's, used the GPU for at least {seen_s:.0f} s"
        )


def _count(value: int | UnsetType) -> int:
    return 0 if value is UNSET else value


class SamplerProcess:
    """A sampler that logs to `output` until it is stopped or its owner dies.

    As a context manager it is stopped at the end of the block.
    """

    def __init__(self, spec: SamplerSpec, output: Path) -> None:
        self._spec = spec
        self._output = output
        self._ready = threading.Event()
        self._progress: dict[str, Any] = {}
        module = "inference_energy.acquire.power.sampler"
        command = python_module(module, "--spec", spec.model_dump_json(), "--output", str(output))
        self._child = ChildProcess(command, name="the power sampler", on_event=self._take_event)

    @property
    def pid(self) -> int | None:
        """The process, once started."""
        return self._child.pid

    def start(self, timeout_s: float | None = None) -> None:
        """Start and wait until every channel gave its first reading, at most `start_timeout_s`.

        Raises:
            InputError: the spec asks for what this machine does not have.
            RunError: the process ended, or a channel gave no reading in time; the message says why.
        """
        self._output.parent.mkdir(parents=True, exist_ok=True)
        stats_path(self._output).unlink(missing_ok=True)
        self._child.start()
        timeout_s = start_timeout_s(self._spec) if timeout_s is None else timeout_s
        until_s = time.monotonic() + timeout_s
        try:
            while not self._ready.wait(0.05):
                if not self._child.alive():
                    self._child.exited.wait(1.0)
                    if self._ready.is_set():
                        return
                    raise self._child.error()
                if time.monotonic() > until_s:
                    raise RunError(f"no power reading within {timeout_s:g} s: {self._why_silent()}")
        except BaseException:
            self._end()
            raise

    def alive(self) -> bool:
        """Whether the process still samples."""
        return self._child.alive()

    def latest(self) -> dict[str, float]:
        """The newest power of each domain in W, about a second old; empty before the first second is over."""
        return dict(self._progress.get("power_w", {}))

    def stop(self) -> SamplerStats:
        """End the process and return what it counted. Does not raise if it had died: see `SamplerStats.clean`."""
        if not self._child.started:
            raise RunError("the power sampler was never started")
        code = self._end()
        path = stats_path(self._output)
        if code == 0 and path.exists():
            counts = read_json(path)
            channels = msgspec.convert(counts["channels"], list[ChannelCounts])
            return SamplerStats(counts["ended_by"], True, counts["elapsed_s"], channels)
        return SamplerStats(f"the power sampler died with exit code {code}{self._child.last_words()}", False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> int:
        return self._child.end(END_TIMEOUT_S, terminate=True)

    def _take_event(self, event: Event) -> None:
        if event["event"] == "ready":
            self._ready.set()
        elif event["event"] == "progress":
            self._progress = event

    def _why_silent(self) -> str:
        silent: dict[str, str | None] = self._progress.get("silent", {})
        if not silent:
            return f"the sampler did not come up{self._child.last_words()}"
        return "; ".join(f"{channel}: {error or 'still in its first read'}" for channel, error in silent.items())
