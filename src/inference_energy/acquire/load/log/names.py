"""The names of the load processes' logs, for whoever does not read them."""

from pathlib import Path

LOGS = ("requests", "chunks", "answers")


def clear(folder: Path) -> None:
    """Remove the logs of an earlier run, which had perhaps more processes."""
    for name in LOGS:
        for path in folder.glob(f"{name}-*.arrows"):
            path.unlink()
