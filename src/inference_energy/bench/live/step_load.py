"""A load that switches the virtual GPU between its power limit and rest, for `inference-energy characterize`.

Its protocol is that of acquire/power/characterize/square_wave.py; the two share no code. It writes a server's trace: a
row ahead of every change, so that each row holds from its exact moment.
"""

import argparse
import json
import os
import sys
import threading
import time
from typing import Any, NoReturn

from inference_energy.bench.live.node import NodeFolder, node_here
from inference_energy.bench.live.power_trace_file import TraceWriter
from inference_energy.bench.truth.ledger import GPU_IDLE, POWER_CAP
from inference_energy.bench.truth.step import Thermal

AHEAD_S = 0.03
ROW_S = 0.25


class _Load:
    """Rows of one process. Ending it holds the lock, so that nothing is written after the last row."""

    def __init__(self, node_folder: NodeFolder) -> None:
        node = node_folder.node
        self._device = node.device
        self._host_w = node.engine.host_idle_w
        self._thermal = Thermal(node.device)
        self._trace = TraceWriter(node_folder.traces, os.getpid())
        self._lock = threading.RLock()

    def row(self, start_ns: int, length_s: float, busy: bool) -> None:
        """Append what holds from a time on, for about `length_s`."""
        limit_w = self._device.power_limit_w
        events = POWER_CAP if busy else GPU_IDLE
        with self._lock:
            gpu_w = limit_w if busy else self._device.loaded_idle_w + self._thermal.leakage_w
            self._trace.append(start_ns, gpu_w, self._host_w, self._thermal.temperature_c, events, busy)
            self._thermal.advance(length_s, gpu_w)

    def step(self, start_ns: int, length_s: float, busy: bool) -> None:
        """Run a stretch of load or rest."""
        pieces = max(1, round(length_s / ROW_S))
        for piece in range(pieces):
            row_ns = start_ns + round(piece * length_s / pieces * 1e9)
            time.sleep(max(0.0, (row_ns - time.monotonic_ns()) / 1e9 - AHEAD_S))
            self.row(row_ns, length_s / pieces, busy)

    def close(self) -> None:
        """End the life."""
        with self._lock:
            self._trace.close()

    def exit(self) -> NoReturn:
        """End the life and the process, even while the other thread writes."""
        with self._lock:
            self._trace.close()
            os._exit(0)


def main() -> int:
    """Alternate rest and load; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", required=True)
    parser.add_argument("--steps", required=True)
    steps = [float(length) for length in parser.parse_args().steps.split(",")]
    node_folder = node_here()
    if node_folder is None:
        _emit(event="error", message="there is no virtual node here: run it by inference-energy bench run -- COMMAND")
        return 3
    load = _Load(node_folder)
    try:
        load.row(time.monotonic_ns(), 0.0, False)
        _emit(event="ready", what="virtual load at the power limit (simulated)")
        if not sys.stdin.readline():
            return 0
        threading.Thread(target=_end_with_owner, args=(load,), daemon=True).start()
        start_ns = time.monotonic_ns()
        for index, length_s in enumerate(steps):
            busy = index % 2 == 1
            if index:
                _emit(event="edge", time_ns=start_ns, busy=busy)
            load.step(start_ns, length_s, busy)
            start_ns += round(length_s * 1e9)
        time.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        _emit(event="done")
    finally:
        load.close()
    return 0


def _emit(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def _end_with_owner(load: _Load) -> None:
    while sys.stdin.readline():
        pass
    load.exit()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that reads would hold up the interpreter's own end
