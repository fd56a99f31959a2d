"""What one run of Snakemake leaves for the user and for the next run: why it failed, and that it was killed.

Snakemake itself ends with the rule's command and `CalledProcessError`; the cause is in the stage's log. A killed run
leaves its lock, which Snakemake cannot tell from that of a run that lives.
"""

import os
import platform
import shutil
import sys
import time
import traceback
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

from inference_energy.acquire.server.guardian import is_gone, process_stat
from inference_energy.contracts.io import write_json
from inference_energy.contracts.outside import MIB, decode_json, read_bytes
from inference_energy.errors import InputError, RunError

SAID = ("inference-energy: ", "InputError: ", "RunError: ")
"""How the message of an error begins in a log."""

LOG_BYTES = 2**16
LINES = 12
"""Most lines of a failed stage's log that are shown: a server's last words are among them."""


def note_run(snakemake_folder: Path) -> None:
    """Note in Snakemake's folder which process runs there, for `clear_after_kill` of a later run."""
    stat = process_stat(os.getpid())
    facts = {
        "host": platform.node(),
        "boot": _boot_id(),
        "pid": os.getpid(),
        "start_ticks": None if stat is None else stat.start_ticks,
        "began_unix_s": time.time(),
    }
    write_json(_note(snakemake_folder), facts)


def clear_after_kill(snakemake_folder: Path) -> str | None:
    """Remove the lock of a run that was killed on this machine; results and records stay.

    Args:
        snakemake_folder: `.snakemake` of the project.

    Returns:
        What happened, for the user; None where nothing is locked, or the run that locked it may be alive: then
        Snakemake refuses to start.
    """
    locks = snakemake_folder / "locks"
    if not any(locks.glob("*.lock")):
        return None
    run = _last_run(snakemake_folder)
    if run is None or run.get("host") != platform.node():
        return None
    pid, start_ticks = run.get("pid"), run.get("start_ticks")
    if not isinstance(pid, int) or not isinstance(start_ticks, int):
        return None
    rebooted = run.get("boot") != _boot_id()
    if not rebooted and not is_gone(pid, start_ticks):
        return None
    shutil.rmtree(locks)
    how = "this machine was restarted" if rebooted else "it was killed"
    began_s = run.get("began_unix_s")
    since = time.strftime(" of %Y-%m-%d %H:%M", time.localtime(began_s)) if isinstance(began_s, int | float) else ""
    unfinished = sorted(_unfinished(snakemake_folder))
    again = f" Made again: {', '.join(unfinished)}." if unfinished else ""
    return (
        f"the last run here{since} (process {pid}) did not end: {how}. Its lock is removed. "
        f"What it had finished is kept.{again} What a session had measured until then is in the folder `partial` "
        "beside its log."
    )


class _Tee(TextIOBase):
    """Writes to the terminal and to a file."""

    def __init__(self, terminal: TextIO, file: TextIO) -> None:
        self._targets = (terminal, file)

    def write(self, text: str) -> int:
        """Write to both at once, so that the log of a killed stage is complete."""
        for target in self._targets:
            target.write(text)
            target.flush()
        return len(text)


@contextmanager
def logged(log: Path | None) -> Iterator[None]:
    """Copy standard error to the log file, if there is one, and write errors to it too, where `failures` finds them."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stderr(_Tee(sys.stderr, file)):
        try:
            yield
        except (InputError, RunError) as error:
            file.write("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]) + "\n")
            raise
        except Exception:
            file.write(traceback.format_exc())
            raise


def failures(logs: Path, since_s: float) -> list[str]:
    """Return the messages of the stages that failed, at least one, each with the path of its log.

    Args:
        logs: folder of the logs.
        since_s: start of the run, Unix time; older logs are of other runs.
    """
    recent = [path for path in logs.rglob("*.log") if path.is_file() and path.stat().st_mtime >= since_s]
    found = []
    for path in sorted(recent, key=lambda path: path.stat().st_mtime):
        if message := _message(path):
            found.append(f"{message}\n  log: {path}")
    return found or [f"a rule failed without a word, perhaps killed for want of memory\n  logs: {logs}"]


def _message(log: Path) -> str | None:
    """Return what a log says of a failure: the message of the error, or the last line of a traceback."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = file.read(LOG_BYTES).decode(errors="replace").splitlines()
    for number, line in enumerate(lines):
        for begin in SAID:
            if line.startswith(begin):
                return "\n".join([line.removeprefix(begin), *lines[number + 1 : number + LINES]])
    if "Traceback (most recent call last):" in lines:
        last = next((line for line in reversed(lines) if line and not line.startswith(" ")), "")
        return f"an error of the toolkit itself, please report it with the log: {last}"
    return None


def _note(snakemake_folder: Path) -> Path:
    return snakemake_folder / "inference-energy-run.json"


def _last_run(snakemake_folder: Path) -> Mapping[str, Any] | None:
    try:
        content = decode_json(read_bytes(_note(snakemake_folder), MIB))
    except (InputError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _unfinished(snakemake_folder: Path) -> Iterator[str]:
    """Yield the files whose rules were running; Snakemake keeps their names in base64."""
    folder = snakemake_folder / "incomplete"
    for record in folder.rglob("*"):
        if record.is_file():
            name = "".join(part.removeprefix("@") for part in record.relative_to(folder).parts)
            try:
                yield urlsafe_b64decode(name).decode()
            except ValueError:
                continue


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
