"""A load process: sends its share of a schedule, cell after cell, as its parent orders.

    python -m inference_energy.acquire.load.worker.main SPEC.json WORKER

It ends when its standard input closes (its parent is gone) or on SIGTERM, cutting off what is in flight; SIGINT is for
the parent. On standard output it writes JSON lines: `ready`, `stats` four times a second during a cell, `done` after
each cell, `failed` if it cannot go on, `ended`.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_energy.acquire.load.worker.control import say
from inference_energy.errors import InputError, RunError

NOT_NEEDED = ("numpy", "pandas")
"""Arrow takes these in when they are there, and uses neither for what a load process does: 70 MB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; returns its exit code: 0, 1 (it failed) or 2 (the spec or the plan cannot be used)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="inference_energy.acquire.load.worker.main", description="Send load.")
    parser.add_argument("spec", type=Path, help="the team's spec, a JSON file")
    parser.add_argument("worker", type=int, help="which process this is, from 0")
    options = parser.parse_args(arguments)
    try:
        from inference_energy.acquire.load.worker.process import run

        run(options.spec, options.worker)
    except Exception as error:
        known = isinstance(error, InputError | RunError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        code = 2 if isinstance(error, InputError) else 1
        say("failed", code=code, message=message)
        sys.stderr.write(f"load worker {options.worker}: {message}\n")
        return code
    return 0


if __name__ == "__main__":
    for name in NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails, as if it were not there
    sys.exit(main())
