"""Keeps a node's RAPL tree up to date while a command runs on it."""

import threading
import time
from types import TracebackType
from typing import Self

from inference_energy.bench.live.node import NodeFolder
from inference_energy.bench.live.trace_file import SHOWN_AFTER_S, TraceReader
from inference_energy.bench.sensors.powercap import Powercap
from inference_energy.bench.sensors.rapl import RaplView

PERIOD_S = 0.05


class PowercapFeed:
    """Refreshes the tree 20 times a second, in a thread, from entering the context to leaving it.

    Does nothing for a node without RAPL.

    Args:
        made: the node.
    """

    def __init__(self, made: NodeFolder) -> None:
        self._present = made.node.sensors.rapl.present
        self._reader = TraceReader(made.traces, made.node, made.origin_ns)
        node = made.node
        view = RaplView(node.sensors.rapl, self._reader.host, node.engine, origin_ns=made.origin_ns, seed=node.seed)
        self._tree = Powercap(made.powercap, view)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="powercap", daemon=True)

    def __enter__(self) -> Self:
        if self._present:
            self._reader.look()
            self._tree.make(_shown_ns())  # before the command looks for it
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self._reader.look()
            self._tree.refresh(_shown_ns())


def _shown_ns() -> int:
    return time.monotonic_ns() - round(SHOWN_AFTER_S * 1e9)
