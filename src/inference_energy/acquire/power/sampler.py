"""The power sampler: a process of its own, so that nothing else in the pipeline delays its polls.

    python -m inference_energy.acquire.power.sampler --spec JSON --output power.arrows

It ends cleanly on SIGTERM, when its standard input closes (its owner died) or after `duration_s`; SIGINT is for the
owner. On standard output it writes JSON lines: `ready` once every channel gave a reading, `progress` every second,
`failed` if it cannot start, `ended`. Beside the log lies `<output>.stats.json` once it has ended.
"""

import argparse
import gc
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_energy.acquire.power.base import PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.choose import candidates, choose
from inference_energy.acquire.power.polling import Poller
from inference_energy.acquire.power.power_log import PowerStream
from inference_energy.acquire.power.reconnect import SourceReconnector, open_source
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.contracts.child_process import emit, error_fields
from inference_energy.contracts.io import clock_anchor, write_json
from inference_energy.contracts.power import GPU_SAMPLES
from inference_energy.errors import InputError, RunError

FLUSH_PERIOD_S = 0.4
"""A killed sampler loses the readings since the last flush and a GPU's own samples since their last read (0.6 s): in
all at most a second."""

PROGRESS_PERIOD_S = 1.0

COLLECT_GARBAGE_PERIOD_S = 30.0
"""Automatic garbage collection is off because it could come at any time. Readings leave no cycles; sources may."""

SWITCH_INTERVAL_S = 0.0005
"""Longest time that one thread runs while another waits, such as the thread of the fast polls."""

NICE = -10
"""Scheduling priority, set where it is allowed: otherwise polls come late on a machine with all cores busy."""

OPENING_ENDS_WITHIN_S = 5.0


def stats_path(output: Path) -> Path:
    """Return the path of a log's statistics, beside it."""
    return output.with_name(output.name + ".stats.json")


def open_channels(sources: Sequence[PowerSource]) -> list[tuple[PowerSource, list[SensorChannel]]]:
    """Each source with its channels.

    Raises:
        RunError: a source cannot be opened although its probe succeeded.
    """
    opened: list[tuple[PowerSource, list[SensorChannel]]] = []
    for source in sources:
        try:
            opened.append((source, open_source(source)))
        except SourceError as error:
            raise RunError(f"power source {source.name}: {error}") from error
    return opened


class Sampler:
    """Polls sources into a log until something ends it.

    Args:
        spec: what to sample.
        sources: the sources chosen for it.
        output: the log to write.
    """

    def __init__(self, spec: SamplerSpec, sources: Sequence[PowerSource], output: Path) -> None:
        self._spec = spec
        self._sources = sources
        self._output = output
        self._wake_read, self._wake_write = os.pipe()

    def request_stop(self) -> None:
        """Make `run` return; may be called from a signal handler or another thread."""
        os.write(self._wake_write, b".")

    def run(self, owner_fd: int | None = None) -> dict[str, Any]:
        """Sample until something ends it; return the statistics, which are also written to the stats file.

        Args:
            owner_fd: file descriptor that reaches its end of file when the owner is gone.

        Raises:
            RunError: a source cannot be opened.
        """
        anchor = clock_anchor()
        opened = open_channels(self._sources)
        every = [channel for _, channels in opened for channel in channels]
        limits_w: Mapping[Any, float] = self._spec.plausible_power_w
        for channel in every:
            domain = "gpu" if channel.domain == GPU_SAMPLES else channel.domain
            channel.limit_w = limits_w.get(domain, channel.limit_w)
        stream = PowerStream(self._output, anchor, self._sources, every)
        poller = Poller(every, self._spec.interval_s)
        by_channel = {polled.channel: polled for polled in poller.polled}
        reopeners = [
            SourceReconnector(source, [by_channel[channel] for channel in channels]) for source, channels in opened
        ]
        start_s = time.monotonic()
        poller.start()
        try:
            ended_by = self._watch(poller, reopeners, stream, start_s, owner_fd)
        finally:
            elapsed_s = time.monotonic() - start_s
            hanging = poller.stop()
            hanging += [f"reopen-{each.source.name}" for each in reopeners if each.busy(OPENING_ENDS_WITHIN_S)]
            stream.write(poller.collect())
            stream.close()
        counts = {
            "ended_by": ended_by,
            "elapsed_s": round(elapsed_s, 3),
            "interval_s": self._spec.interval_s,
            "hanging": hanging,
            "channels": [stats.to_dict() for stats in poller.stats()],
        }
        write_json(stats_path(self._output), counts)
        if not hanging:
            # A library must not be shut down under a read that is still going on.
            for source in self._sources:
                with suppress(SourceError):  # a lost device must not cost what was logged
                    source.close()
        return counts

    def _watch(
        self,
        poller: Poller,
        reopeners: Sequence[SourceReconnector],
        stream: PowerStream,
        start_s: float,
        owner_fd: int | None,
    ) -> str:
        """Flush and report until something ends the run; return its name."""
        ready = False
        # Flush midway between two polls so that no poll is delayed.
        flush_s = start_s + FLUSH_PERIOD_S + min(self._spec.interval_s, FLUSH_PERIOD_S) / 2
        progress_s, garbage_s = start_s + PROGRESS_PERIOD_S, start_s + COLLECT_GARBAGE_PERIOD_S
        end_s = start_s + (self._spec.duration_s or float("inf"))
        watched = [self._wake_read] if owner_fd is None else [self._wake_read, owner_fd]
        while True:
            now_s = time.monotonic()
            if not ready and not poller.silent():
                ready = True
                emit("ready")
            if now_s >= flush_s:
                flush_s = _following(flush_s, FLUSH_PERIOD_S, now_s)
                stream.write(poller.collect())
                for reopener in reopeners:
                    reopener.check()
                if now_s >= progress_s:
                    progress_s = _following(progress_s, PROGRESS_PERIOD_S, now_s)
                    emit("progress", **_progress(poller, now_s - start_s))
                if now_s >= garbage_s:
                    garbage_s = now_s + COLLECT_GARBAGE_PERIOD_S
                    gc.collect()
            if now_s >= end_s:
                return "duration"
            due_s = min(flush_s, end_s, now_s + (FLUSH_PERIOD_S if ready else 0.02))
            readable, _, _ = select.select(watched, [], [], max(0.0, due_s - time.monotonic()))
            if self._wake_read in readable:
                return "request"
            if owner_fd in readable and owner_fd is not None and not os.read(owner_fd, 4096):
                return "owner"


def _following(due_s: float, period_s: float, now_s: float) -> float:
    """Return the first time after `now_s` on the grid of `due_s`."""
    return due_s + period_s * (1 + (now_s - due_s) // period_s)


def _progress(poller: Poller, elapsed_s: float) -> dict[str, Any]:
    return {
        "elapsed_s": round(elapsed_s, 3),
        "power_w": {domain: round(power_w, 3) for domain, power_w in poller.latest_power_w().items()},
        "reads": sum(polled.stats.reads for polled in poller.polled),
        "errors": sum(polled.stats.errors for polled in poller.polled),
        "silent": {f"{stats.source} {stats.device} {stats.domain}": stats.last_error for stats in poller.silent()},
    }


def tune_sampler_process() -> None:
    """Keep other work out of the polls' way: Python's collections, its busy threads, other programs."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sampler process; return its exit code: 0, 1 (it failed) or 2 (the spec cannot be used)."""
    parser = argparse.ArgumentParser(prog="inference_energy.acquire.power.sampler", description="Log power.")
    parser.add_argument("--spec", required=True, help="the sampler's spec as JSON")
    parser.add_argument("--output", required=True, type=Path, help="the Arrow stream to write")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stat.S_ISFIFO(os.fstat(1).st_mode):
        # An owner that does not read must not block the sampler once the pipe is full.
        os.set_blocking(1, False)
    try:
        spec = SamplerSpec.parse(options.spec)
        sampler = Sampler(spec, choose(spec.sources, candidates(spec)), options.output)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sampler.request_stop())
        tune_sampler_process()
        counts = sampler.run(owner_fd=0)
    except (InputError, RunError, OSError) as error:
        failure = error_fields(error)
        emit("failed", **failure)
        sys.stderr.write(f"power sampler: {error}\n")
        return int(failure["code"])
    emit("ended", ended_by=counts["ended_by"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
