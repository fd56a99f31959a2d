"""Entry point of a load process: sends its part of a schedule, cell after cell, as its parent orders.

    python -m inference_energy.acquire.load.worker_main SPEC.json WORKER

It ends when its standard input closes (its parent is gone) or on SIGTERM, cutting off the requests in flight; SIGINT
is for the parent. On standard output it writes JSON lines: `ready`, `stats` four times a second during a cell, `done`
after each cell, `failed` if it cannot go on, `ended`. This is a file of its own, because NOT_NEEDED must be blocked
before anything imports Arrow.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_energy.contracts.child_process import emit, error_fields

NOT_NEEDED = ("numpy", "pandas", "pyarrow._azurefs", "pyarrow._gcsfs", "pyarrow._hdfs", "pyarrow._s3fs")
"""Blocked imports: Arrow loads NumPy, pandas (70 MB) and its remote file systems (3 MB) if present, and workers need
none of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; return its exit code: 0, 1 (it failed) or 2 (the spec or the plan cannot be used)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="inference_energy.acquire.load.worker_main", description="Send load.")
    parser.add_argument("spec", type=Path, help="the load, a JSON file")
    parser.add_argument("worker", type=int, help="number of this process, from 0")
    options = parser.parse_args(arguments)
    from inference_energy.acquire.load.worker import run

    try:
        run(options.spec, options.worker)
    except Exception as error:
        failure = error_fields(error)
        emit("failed", **failure)
        sys.stderr.write(f"load worker {options.worker}: {failure['message']}\n")
        return int(failure["code"])
    return 0


if __name__ == "__main__":
    for name in NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails, as if it were not there
    sys.exit(main())
