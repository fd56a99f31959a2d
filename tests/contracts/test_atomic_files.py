"""Files are replaced as a whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference_energy.contracts.io import atomic_write, copy_file, ensure_writable, write_json
from inference_energy.errors import InputError


def test_a_file_and_its_folder_appear_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_write(target) as partial:
        partial.write_text("new")
        assert not target.exists()
        assert partial.parent == target.parent, "a rename across file systems would not be atomic"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_the_old_file_is_as_it_was_and_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as partial:
        partial.write_text("half of the n")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_copy_has_the_content_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"\x00\xff")
    copy_file(tmp_path / "source", tmp_path / "deep" / "target")
    assert (tmp_path / "deep" / "target").read_bytes() == b"\x00\xff"


def test_the_module_needs_no_arrow_until_it_reads_a_table() -> None:
    code = "import sys, inference_energy.contracts.io; sys.exit('pyarrow' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_are_not_writable_for_all_whatever_the_umask(tmp_path: Path) -> None:
    modes = []
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            write_json(tmp_path / f"{umask}.json", {})
        finally:
            os.umask(before)
        modes.append((tmp_path / f"{umask}.json").stat().st_mode & 0o777)
    assert modes == [0o664, 0o644, 0o600]


def test_no_link_can_be_prepared_for_the_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valuable = tmp_path / "valuable"
    valuable.write_text("precious")
    monkeypatch.setattr("inference_energy.contracts.io.secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".a.json.guessed.partial").symlink_to(valuable)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "a.json", {})
    assert valuable.read_text() == "precious"
    monkeypatch.undo()
    names = set()
    for _ in range(2):
        with atomic_write(tmp_path / "a.json") as partial:
            names.add(partial.name)
    assert len(names) == 2


def test_a_long_name_is_written(tmp_path: Path) -> None:
    write_json(tmp_path / f"{'x' * 250}.json", {})


@pytest.mark.parametrize("name", ["a\0b.csv", "x" * 300, "x" * 300 + "/a.csv", "a\0b/a.csv", "folder", "file/a.csv"])
def test_a_name_that_cannot_be_written_is_refused_beforehand(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="name a"):
        ensure_writable(tmp_path / name)
