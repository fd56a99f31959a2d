"""The step load on a real GPU: matrix products of half precision, kept short so that every edge is sharp.

Run by any Python from 3.9 on that has PyTorch; it needs nothing of this package. What it is told and what it says
stands in step_load.py.
"""

import argparse
import json
import os
import sys
import threading
import time
from typing import Any

BURST_S = 0.003
SIZES = (8192, 4096, 2048, 1024)


def say(**event: Any) -> None:
    """One event."""
    print(json.dumps(event), flush=True)


def end_with_owner() -> None:
    """End when the standard input does."""
    while sys.stdin.readline():
        pass
    os._exit(0)


class Products:
    """Matrix products of a size that takes about `BURST_S` or less."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.size = SIZES[-1]
        for size in SIZES:
            self._factor = torch.randn(size, size, device="cuda", dtype=torch.float16)
            self._product = torch.empty_like(self._factor)
            for _ in range(20):
                self.one()
            torch.cuda.synchronize()
            before_s = time.monotonic()
            for _ in range(10):
                self.one()
            torch.cuda.synchronize()
            self.size = size
            if (time.monotonic() - before_s) / 10 < BURST_S:
                return

    def one(self) -> None:
        """Queue one product."""
        self._torch.matmul(self._factor, self._factor, out=self._product)

    def until(self, end_s: float) -> None:
        """Compute until a time, with at most two products queued, and wait for the last."""
        events = [self._torch.cuda.Event(), self._torch.cuda.Event()]
        count = 0
        while time.monotonic() < end_s:
            self.one()
            events[count % 2].record()
            count += 1
            if count > 1:
                events[count % 2].synchronize()
        self._torch.cuda.synchronize()


def main() -> int:
    """Rest and work in turn; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", required=True)
    parser.add_argument("--steps", required=True)
    arguments = parser.parse_args()
    steps = [float(length) for length in arguments.steps.split(",")]
    try:
        import torch
    except ImportError as error:
        say(event="error", message=f"{sys.executable} cannot import torch ({error}): name another by --load-python")
        return 3
    if not torch.cuda.is_available():
        say(event="error", message=f"torch {torch.__version__} in {sys.executable} sees no GPU {arguments.gpu}")
        return 3
    products = Products(torch)
    products.until(time.monotonic() + 1.0)
    say(event="ready", what=f"{products.size} x {products.size} half-precision products, torch {torch.__version__}")
    if not sys.stdin.readline():
        return 0
    threading.Thread(target=end_with_owner, daemon=True).start()
    end_s = time.monotonic()
    for index, length_s in enumerate(steps):
        busy = index % 2 == 1
        end_s += length_s
        if index:
            say(event="edge", time_ns=time.monotonic_ns(), busy=busy)
        if busy:
            products.until(end_s)
        else:
            time.sleep(max(0.0, end_s - time.monotonic()))
    say(event="done")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Without the interpreter's own end, which would wait for the thread that reads.
    os._exit(code)
