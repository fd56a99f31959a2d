"""What a run leaves: its lock is removed only after it was killed here; every failure is found with its log."""

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from inference_energy.errors import InputError, RunError
from inference_energy.stages.run_state import clear_after_kill, failures, logged, note_run

NOTE = "inference-energy-run.json"


@pytest.fixture
def snakemake_folder(tmp_path: Path) -> Path:
    """Locked, with a file under way."""
    folder = tmp_path / ".snakemake"
    (folder / "locks").mkdir(parents=True)
    (folder / "locks" / "0.output.lock").write_text("results/raw/here/sessions/s/power.parquet\n")
    (folder / "incomplete").mkdir()
    name = "results/raw/here/sessions/s/power.parquet"
    (folder / "incomplete" / urlsafe_b64encode(name.encode()).decode()).write_text("{}")
    return folder


def locked(folder: Path) -> bool:
    return any(folder.glob("locks/*.lock"))


def ended_process_notes(folder: Path) -> dict[str, Any]:
    """The note of a process that was there and is gone."""
    code = (
        "import sys, pathlib; from inference_energy.stages import run_state as s; s.note_run(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    content: dict[str, Any] = json.loads((folder / NOTE).read_text())
    return content


def test_the_lock_of_a_killed_run_is_removed_and_the_user_is_told(snakemake_folder: Path) -> None:
    pid = ended_process_notes(snakemake_folder)["pid"]
    message = clear_after_kill(snakemake_folder)
    assert message is not None
    assert f"process {pid}" in message
    assert "it was killed" in message
    assert "results/raw/here/sessions/s/power.parquet" in message
    assert not locked(snakemake_folder)
    assert clear_after_kill(snakemake_folder) is None, "once"


def test_the_lock_of_a_run_that_lives_stays(snakemake_folder: Path) -> None:
    note_run(snakemake_folder)
    assert clear_after_kill(snakemake_folder) is None
    assert locked(snakemake_folder)


def test_a_later_process_with_the_same_pid_is_another(snakemake_folder: Path) -> None:
    note_run(snakemake_folder)
    facts = json.loads((snakemake_folder / NOTE).read_text())
    (snakemake_folder / NOTE).write_text(json.dumps(facts | {"start_ticks": facts["start_ticks"] - 1}))
    assert clear_after_kill(snakemake_folder)


def test_a_restart_of_the_machine_ends_every_run(snakemake_folder: Path) -> None:
    note_run(snakemake_folder)
    facts = json.loads((snakemake_folder / NOTE).read_text())
    (snakemake_folder / NOTE).write_text(json.dumps(facts | {"boot": "another"}))
    assert "restarted" in (clear_after_kill(snakemake_folder) or "")


@pytest.mark.parametrize(
    "change",
    [{"host": "another"}, {"pid": None}, {"pid": "1"}, {"start_ticks": None}],
    ids=str,
)
def test_a_lock_whose_owner_is_not_known_to_be_gone_stays(snakemake_folder: Path, change: dict[str, Any]) -> None:
    facts = ended_process_notes(snakemake_folder)
    (snakemake_folder / NOTE).write_text(json.dumps(facts | change))
    assert clear_after_kill(snakemake_folder) is None
    assert locked(snakemake_folder)


@pytest.mark.parametrize("note", [None, b"", b"[]", b"\xff", b"[" * 5000])
def test_without_a_usable_note_the_lock_stays(snakemake_folder: Path, note: bytes | None) -> None:
    if note is not None:
        (snakemake_folder / NOTE).write_bytes(note)
    assert clear_after_kill(snakemake_folder) is None
    assert locked(snakemake_folder)


def failed(log: Path, error: Exception) -> None:
    with pytest.raises(type(error)), logged(log):
        print("launching", file=sys.stderr)
        raise error


def test_every_failed_stage_is_found_with_its_message_and_log(tmp_path: Path) -> None:
    words = "the server ended\nits last lines:\nTraceback (most recent call last):\nRuntimeError: out of memory"
    error = RunError(words)
    error.add_note("What was measured is kept.")
    failed(tmp_path / "a" / "session.log", error)
    failed(tmp_path / "b" / "idle.log", InputError("servers.x.endpoint: no answer"))
    failed(tmp_path / "c" / "fit.log", ZeroDivisionError("division by zero"))
    with logged(tmp_path / "d" / "good.log"):
        print("a note", file=sys.stderr)
    (tmp_path / "archive.log").write_text("inference-energy: results/x: cannot be written\n")
    texts = failures(tmp_path, 0.0)
    assert len(texts) == 4
    by_log = {text.rpartition("log: ")[2]: text for text in texts}
    session = by_log[str(tmp_path / "a" / "session.log")]
    assert session.startswith(f"{words}\nWhat was measured is kept.")
    assert by_log[str(tmp_path / "b" / "idle.log")].startswith("servers.x.endpoint: no answer\n")
    assert "ZeroDivisionError: division by zero" in by_log[str(tmp_path / "c" / "fit.log")]
    assert by_log[str(tmp_path / "archive.log")].startswith("results/x: cannot be written")


def test_the_log_of_an_earlier_run_is_not_this_ones(tmp_path: Path) -> None:
    failed(tmp_path / "old.log", InputError("of yesterday"))
    os.utime(tmp_path / "old.log", (1e9, 1e9))
    (text,) = failures(tmp_path, 2e9)
    assert "without a word" in text
    assert str(tmp_path) in text
