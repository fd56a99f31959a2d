"""The processes above us that the guardian should watch: Snakemake, whose death its jobs do not notice.

After SIGKILL of Snakemake the shell of its job goes on as an orphan, and our own process with it. So the guardian is
told to watch Snakemake as well as its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import psutil

from inference_energy.acquire.server.guardian import process_stat


class WatchedProcess(NamedTuple):
    """A process, told from a later one with the same pid by its start (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> WatchedProcess | None:
        """The process that has this pid now, or None."""
        stat = process_stat(pid)
        return None if stat is None else cls(pid, stat.start_ticks)


def is_snakemake(command_line: Sequence[str]) -> bool:
    """Whether a command line runs Snakemake, as a program or as a Python module; a shell that names it does not."""
    if not command_line:
        return False
    program, *arguments = command_line
    if PurePath(program).name == "snakemake":
        return True
    if not PurePath(program).name.startswith("python"):
        return False
    for index, argument in enumerate(arguments):
        if argument == "-m":
            return arguments[index + 1 : index + 2] == ["snakemake"]
        if not argument.startswith("-"):
            return PurePath(argument).name == "snakemake"
    return False


def snakemake_ancestors() -> tuple[WatchedProcess, ...]:
    """All Snakemake processes above this one, nearest first (Snakemake may run a job in a second Snakemake)."""
    found = []
    for process in psutil.Process().parents():
        try:
            command_line = process.cmdline()
        except psutil.Error:
            continue
        watched = WatchedProcess.of(process.pid)
        if watched is not None and is_snakemake(command_line):
            found.append(watched)
    return tuple(found)
