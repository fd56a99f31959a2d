"""Files are replaced as a whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from inference_energy.contracts.io import atomic_write, copy_file


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
