"""Reopening of a source whose device no longer answers, while all other sources are polled.

A library that lost its device, such as NVML after a GPU reset or a driver reload, fails until it is initialized again.
Only a try shows whether that works, so tries are made at growing intervals.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from inference_energy.acquire.power.base import PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.polling import PolledChannel

ERRORS_BEFORE_REOPENING = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
READS_END_WITHIN_S = 3.0


def open_source(source: PowerSource) -> list[SensorChannel]:
    """Open a source; no device name and no message of its channels shows a login.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        channels = source.channels()
    except SourceError as error:
        raise SourceError(source.hide(str(error))) from None
    except Exception as error:  # a library in trouble, or a device, may raise anything
        raise SourceError(f"its answer cannot be understood ({type(error).__name__})") from error
    for channel in channels:
        channel.hide = source.hide
        channel.device = source.hide(channel.device)
    return channels


class SourceReconnector:
    """Watches one source's channels.

    The source is closed and reopened only when all channels of one of its devices failed `ERRORS_BEFORE_REOPENING`
    times in a row, because none of the source can be read meanwhile: a lost device costs the measurement anyway, a lost
    side channel does not. A source that was opened while the device still failed may lack channels; then it is reopened
    once more when the device is back.

    Args:
        source: the open source.
        polled: its channels.
    """

    def __init__(self, source: PowerSource, polled: Sequence[PolledChannel]) -> None:
        self.source = source
        self._polled = list(polled)
        self._thread: threading.Thread | None = None
        self._pause_s = FIRST_PAUSE_S
        self._next_s = 0.0
        self._incomplete = False

    def check(self) -> None:
        """Start to reopen the source if that is due; return at once."""
        if self.busy():
            return
        if not self._lost():
            self._pause_s = FIRST_PAUSE_S
            if not self._incomplete:
                return
        if time.monotonic() < self._next_s:
            return
        self._thread = threading.Thread(target=self._reopen, daemon=True, name=f"reopen-{self.source.name}")
        self._thread.start()

    def busy(self, wait_s: float = 0.0) -> bool:
        """Return whether the source is being reopened, after waiting for the end of it."""
        if self._thread is None:
            return False
        self._thread.join(wait_s)
        return self._thread.is_alive()

    def _lost(self) -> bool:
        devices: dict[str, list[PolledChannel]] = {}
        for polled in self._polled:
            if not polled.channel.optional:
                devices.setdefault(polled.channel.device, []).append(polled)
        return any(all(one.failing >= ERRORS_BEFORE_REOPENING for one in group) for group in devices.values())

    def _reopen(self) -> None:
        held: list[PolledChannel] = []
        until_s = time.monotonic() + READS_END_WITHIN_S
        try:
            for polled in self._polled:
                # A library must not be shut down under a read that is still going on.
                if not polled.lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
                    return
                held.append(polled)
            self._open()
        finally:
            # The pause begins only now, because new readings need time to come, however long opening took.
            self._next_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            for polled in held:
                polled.lock.release()

    def _open(self) -> None:
        with suppress(SourceError):  # it may be what no longer works
            self.source.close()
        try:
            channels = open_source(self.source)
        except SourceError as error:
            for polled in self._polled:
                polled.suspend(f"reopening {self.source.name} failed: {error}")
            return
        fresh = _by_kind(channels)
        self._incomplete = False
        for polled in self._polled:
            successors = fresh.get(_kind(polled.channel))
            if successors:
                polled.replace(successors.pop(0))
                polled.stats.reopened += 1  # and `failing` stays until a read works
            else:
                self._incomplete = self._lost()
                polled.suspend(f"{self.source.name} no longer gives this after it was reopened")


def _kind(channel: SensorChannel) -> tuple[type[SensorChannel], str, str]:
    return type(channel), channel.device, channel.domain


def _by_kind(channels: Sequence[SensorChannel]) -> Mapping[tuple[type[SensorChannel], str, str], list[SensorChannel]]:
    kinds: dict[tuple[type[SensorChannel], str, str], list[SensorChannel]] = {}
    for channel in channels:
        kinds.setdefault(_kind(channel), []).append(channel)
    return kinds
