"""Reads channels for the length of a block, each in a thread of its own, and keeps what they gave."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from inference_energy.acquire.power.base import Channel, Reading, SourceError

PERIOD_S = 0.1


class Follower:
    """Follows channels.

    Attributes:
        readings: of each channel, in the order in which they came; complete after the block.
        errors: the last error of each channel that had one.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.readings: dict[Channel, list[Reading]] = {channel: [] for channel in channels}
        self.errors: dict[Channel, str] = {}

    def __enter__(self) -> Self:
        for channel in self.readings:
            thread = threading.Thread(target=self._follow, args=(channel,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _follow(self, channel: Channel) -> None:
        while True:
            try:
                self.readings[channel] += channel.read_many()
            except SourceError as error:
                self.errors[channel] = str(error)
            if self._stop.wait(channel.period_s or PERIOD_S):
                return
