"""Whatever is wrong with an archive is found and named."""

from __future__ import annotations

import json
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import archived
import pytest
import typer
from archived import EXPERIMENT, PLAN, POWER, SUMMARY, edit_json, tampered
from typer.testing import CliRunner

from inference_energy.cli.archive import register
from inference_energy.errors import InputError, RunError
from inference_energy.provenance import verify as verify_module
from inference_energy.provenance.archive_reader import Archive, Limits
from inference_energy.provenance.verify import verify

pytestmark = pytest.mark.slow

LOG = "results/logs/bench/sessions/base/server.log"


def cli() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_an_untouched_archive_verifies(master_zip: Path) -> None:
    found = verify(master_zip)
    assert found.agrees
    assert (found.members, found.differences, found.warnings, found.changed_code) == ({}, [], [], [])
    assert found.figures is not None
    assert found.figures > 50


def test_the_commands_pack_and_check(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "a.zip"
    words = ["archive", str(project / "results" / EXPERIMENT), "-o", str(output), "--project", str(project)]
    packed = CliRunner().invoke(cli(), words)
    assert packed.exit_code == 0, packed.output
    assert "left out results/logs/bench/sessions/base/power.arrows" in packed.output
    checked = CliRunner().invoke(cli(), ["verify", str(output)])
    assert checked.exit_code == 0, checked.output
    assert "verified" in checked.output
    assert "all equal to the stored summary" in checked.output


def test_the_command_ends_with_an_error_and_says_what_differs(master_zip: Path, tmp_path: Path) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", lambda members: members.pop(LOG))
    checked = CliRunner().invoke(cli(), ["verify", str(bad)])
    assert isinstance(checked.exception, RunError)
    assert f"{LOG}: missing" in checked.output
    assert "verified" not in checked.output


def test_a_flipped_byte_in_a_stored_member_is_found(master_zip: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(master_zip) as opened:
        info = opened.getinfo(POWER)
    content = bytearray(master_zip.read_bytes())
    content[info.header_offset + 30 + len(POWER) + info.file_size // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    found = verify(tmp_path / "bad.zip")
    assert not found.agrees
    assert list(found.members) == [POWER]
    assert found.figures is None
    assert POWER in str(found.failure)


def test_a_changed_member_is_found_though_its_size_is_the_same(master_zip: Path, tmp_path: Path) -> None:
    def change(members: archived.Content) -> None:
        members[LOG] = members[LOG].replace(b"started", b"stopped")

    found = verify(tampered(master_zip, tmp_path / "bad.zip", change))
    assert not found.agrees
    assert found.members == {LOG: "changed: its SHA-256 differs"}
    assert found.figures
    assert not found.differences


def test_a_longer_member_is_found(master_zip: Path, tmp_path: Path) -> None:
    def change(members: archived.Content) -> None:
        members[LOG] *= 50

    found = verify(tampered(master_zip, tmp_path / "bad.zip", change))
    assert found.members == {LOG: f"changed: its size is not {1000 * len(b'INFO: started.')} bytes"}


def test_a_member_is_read_no_further_than_its_size(master_zip: Path, tmp_path: Path) -> None:
    pieces: list[int] = []
    bomb = tampered(master_zip, tmp_path / "bad.zip", lambda members: members.update({LOG: bytes(30 << 20)}))
    assert LOG in verify(bomb, pieces.append).members
    assert sum(pieces) < 10 << 20


def test_a_dropped_member_is_found(master_zip: Path, tmp_path: Path) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", lambda members: members.pop(POWER)))
    assert not found.agrees
    assert found.members == {POWER: "missing"}


def test_an_added_member_is_found(master_zip: Path, tmp_path: Path) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", lambda members: members.update({"results/x": b"x"})))
    assert not found.agrees
    assert found.members == {"results/x": "not in the manifest"}


def scaled(factor: float):
    def edit(summary: dict) -> None:
        summary["cells"][0]["figures"]["energy_total_j"]["value"] *= factor

    return edit_json(SUMMARY, edit)


def test_a_changed_number_is_found_though_the_manifest_was_fixed(master_zip: Path, tmp_path: Path) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", scaled(1 + 1e-8), fix_manifest=True, fix_report=True))
    assert not found.agrees
    assert found.members == {}
    assert len(found.differences) == 1
    assert found.differences[0].startswith("cells[base.low].figures.energy_total_j.value: stored ")


@pytest.mark.usefixtures("computed_once")
def test_rounding_is_no_difference(master_zip: Path, tmp_path: Path) -> None:
    assert verify(
        tampered(master_zip, tmp_path / "a.zip", scaled(1 + 1e-11), fix_manifest=True, fix_report=True)
    ).agrees


def invalidate(summary: dict) -> None:
    figure = summary["cells"][1]["figures"]["energy_active_j"]
    figure |= {"value": None, "valid": False, "reasons": [{"code": "gap", "detail": "A hole."}]}


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (invalidate, "cells[base.high].figures.energy_active_j.valid: stored false, recomputed true"),
        (lambda s: s["cells"].pop(), "cells: 1 stored, 2 recomputed"),
        (lambda s: s["cells"][0]["figures"].pop("power_mean_w"), "figures.power_mean_w: recomputed, but not stored"),
        (lambda s: s.update(extra=1), "extra: stored, but not recomputed"),
        (
            lambda s: s["cells"][0]["figures"]["water_total_l"]["budget"].update(expanded=0.0),
            "figures.water_total_l.budget.expanded: stored 0.0, recomputed ",
        ),
        (lambda s: s["cells"][0]["figures"]["power_mean_w"].update(unit="kW"), 'stored "kW", recomputed "W"'),
    ],
)
def test_other_changes_of_the_summary_are_found(master_zip: Path, tmp_path: Path, edit, named: str) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", edit_json(SUMMARY, edit), fix_manifest=True))
    assert not found.agrees
    assert any(named in line for line in found.differences), found.differences


def test_another_analysis_than_the_stored_one_is_found(master_zip: Path, tmp_path: Path) -> None:
    change = edit_json(PLAN, lambda content: content["plan"]["impact"].update(pue=1.5))
    found = verify(tampered(master_zip, tmp_path / "bad.zip", change, fix_manifest=True))
    assert any("carbon_total_g" in line for line in found.differences)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        (POWER, b"not parquet", "cannot be recomputed"),
        (SUMMARY, b"not json", "not JSON"),
        (PLAN, b'{"plan": {}}', "lacks plan.experiment"),
        (SUMMARY, b"[]", "cannot be recomputed"),
    ],
)
def test_content_that_cannot_be_used_is_a_finding(
    master_zip: Path, tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    change = {name: content}
    found = verify(tampered(master_zip, tmp_path / "bad.zip", lambda m: m.update(change), fix_manifest=True))
    assert not found.agrees
    assert named in str(found.failure)
    assert str(tmp_path) not in str(found.failure)


def test_names_in_a_forged_plan_cannot_leave_the_folder(master_zip: Path, tmp_path: Path) -> None:
    change = edit_json(PLAN, lambda content: content["plan"]["sessions"][0].update(machine="../../.."))
    found = verify(tampered(master_zip, tmp_path / "bad.zip", change, fix_manifest=True))
    assert "plan.sessions[0]" in str(found.failure)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/outside.txt", "results/../../x", "a\\b", "C:/x", "results//x"]
)
def test_an_unsafe_name_is_refused(master_zip: Path, tmp_path: Path, name: str) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", lambda members: members.update({name: b"x"}))
    with pytest.raises(InputError, match="not a safe name") as caught:
        verify(bad)
    assert repr(name) in str(caught.value)


def test_an_unsafe_name_in_the_manifest_is_refused(master_zip: Path, tmp_path: Path) -> None:
    change = edit_json("manifest.json", lambda content: content["members"][0].update(path="../outside.txt"))
    with pytest.raises(InputError, match=r"\.\./outside\.txt"):
        verify(tampered(master_zip, tmp_path / "bad.zip", change))


def test_a_name_that_occurs_twice_is_refused(master_zip: Path, tmp_path: Path) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", lambda members: None)
    with zipfile.ZipFile(bad, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr(SUMMARY, b"{}")
    with pytest.raises(InputError, match=rf"{SUMMARY}' occurs twice"):
        verify(bad)


@pytest.mark.parametrize(
    "names",
    [
        ("Results/x.txt", "results/X.txt"),
        ("logs/\u00e9", "logs/e\u0301"),
        ("logs/\ufb01le", "logs/file"),
        ("logs/x", "logs/x."),
    ],
)
def test_names_that_are_one_on_some_systems_are_refused(master_zip: Path, tmp_path: Path, names: tuple[str]) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", lambda members: members.update(dict.fromkeys(names, b"x")))
    with pytest.raises(InputError, match="is the same name as"):
        verify(bad)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("results/" + "n" * 300, "too long a name"),
        ("logs/" + "\u20ac" * 100, "too long a name"),
        ("logs/a\nverified", "not a safe name"),
        ("logs/\x1b[2J", "not a safe name"),
        ("logs/\u202egpj.exe", "not a safe name"),
        (f"{SUMMARY}/below", "lies below a file"),
        (f"{SUMMARY.upper()}/below", "lies below a file"),
    ],
)
def test_names_that_no_file_should_have_are_refused(master_zip: Path, tmp_path: Path, name: str, named: str) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", lambda members: members.update({name: b"x"}))
    with pytest.raises(InputError, match=named) as caught:
        verify(bad)
    assert str(caught.value).isprintable()


def edited(archive: Path, copy: Path, edit: Callable[[bytearray], object]) -> Path:
    content = bytearray(archive.read_bytes())
    edit(content)
    copy.write_bytes(content)
    return copy


def place(archive: Path, name: str) -> tuple[int, int]:
    """Where a member's own header begins, and its entry in the directory."""
    with zipfile.ZipFile(archive) as opened:
        own = opened.getinfo(name).header_offset
        return own, archive.read_bytes().index(name.encode(), opened.start_dir) - 46


def with_flags(archive: Path, offset: int, value: bytes) -> Callable[[bytearray], None]:
    """Overwrite a field in a member's header and in the directory, whose fields lie two bytes further."""
    own, central = place(archive, LOG)

    def edit(content: bytearray) -> None:
        content[own + offset : own + offset + len(value)] = value
        content[central + offset + 2 : central + offset + 2 + len(value)] = value

    return edit


def test_bytes_beside_the_members_are_refused(master_zip: Path, tmp_path: Path) -> None:
    plain = master_zip.read_bytes()
    _, central = place(master_zip, LOG)
    for content in (
        b"#!/bin/sh\necho evil\n" + plain,
        plain + b"\0",
        plain + plain,
        plain[:-2] + b"\3\0xyz",
        plain[:-22] + b"between" + plain[-22:],
        plain[: central + 1],
        b"",
        plain[-22:],
    ):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"not a zip file|bytes lie"):
            verify(tmp_path / "bad.zip")
    # As tools do that add a stub to the front and correct every offset.
    with (tmp_path / "bad.zip").open("wb") as file, zipfile.ZipFile(master_zip) as opened:
        file.write(b"#!/bin/sh\n")
        with zipfile.ZipFile(file, "w") as made:
            for info in opened.infolist():
                made.writestr(info.filename, opened.read(info))
    with pytest.raises(InputError, match="does not begin where the one before ends, at byte 0"):
        verify(tmp_path / "bad.zip")


@pytest.mark.parametrize(
    ("mode", "named"),
    [(stat.S_IFLNK | 0o777, "a symbolic link"), (stat.S_IFIFO, "no regular file"), (stat.S_IFDIR, "no regular file")],
)
def test_links_and_devices_are_refused(master_zip: Path, tmp_path: Path, mode: int, named: str) -> None:
    def change(content: bytearray) -> None:
        _, central = place(master_zip, LOG)
        content[central + 40 : central + 42] = mode.to_bytes(2, "little")

    with pytest.raises(InputError, match=f"server.log' is {named}"):
        verify(edited(master_zip, tmp_path / "bad.zip", change))


def test_headers_that_lie_are_refused(master_zip: Path, tmp_path: Path) -> None:
    own, central = place(master_zip, LOG)
    size = central + 24

    def renamed(content: bytearray) -> None:
        content[own + 30] = ord("R")

    def large(content: bytearray) -> None:
        content[size : size + 4] = (2**32 - 2).to_bytes(4, "little")

    def zip64(content: bytearray) -> None:
        content[size : size + 4] = b"\xff" * 4

    for edit, named in (
        (with_flags(master_zip, 6, b"\1\0"), "is encrypted"),
        (with_flags(master_zip, 6, b"\x08\0"), "written in a way that no archive is"),
        (with_flags(master_zip, 8, b"\x0e\0"), r"method \(14\) that no archive uses"),
        (renamed, "another name, size, CRC or method"),
        (large, "times its size"),
        (zip64, "times its size|not a zip file|another name"),
    ):
        with pytest.raises(InputError, match=named):
            verify(edited(master_zip, tmp_path / "bad.zip", edit))


def test_a_wrong_crc_and_bytes_behind_a_compressed_member_are_found(master_zip: Path, tmp_path: Path) -> None:
    wrong = edited(master_zip, tmp_path / "crc.zip", with_flags(master_zip, 14, b"abcd"))
    assert verify(wrong).members == {LOG: "damaged: its CRC-32 differs"}

    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = b"INFO: started\n" * 1000
    hidden = packed.compress(text) + packed.flush() + b"hidden"
    members = archived.read_members(master_zip)
    with zipfile.ZipFile(tmp_path / "hidden.zip", "w") as made:
        for name, content in members.items():
            made.writestr(name, hidden if name == LOG else content)
    own, central = place(tmp_path / "hidden.zip", LOG)

    def as_deflated(content: bytearray) -> None:
        for at in (own, central + 2):
            content[at + 8 : at + 10] = (8).to_bytes(2, "little")
            content[at + 14 : at + 18] = zlib.crc32(text).to_bytes(4, "little")
            content[at + 22 : at + 26] = len(text).to_bytes(4, "little")

    bad = edited(tmp_path / "hidden.zip", tmp_path / "bad.zip", as_deflated)
    assert verify(bad).members == {LOG: "damaged: bytes follow its compressed content"}


def test_a_bomb_is_refused_before_anything_is_unpacked(
    master_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = archived.read_members(master_zip)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, bytes(40 << 20) if name == POWER else content)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    with pytest.raises(InputError, match=r"power\.parquet' unpacks to 40 MiB, 10\d\d times its size"):
        Archive(tmp_path / "bomb.zip")
    with pytest.raises(InputError, match=r"0\.001 GB: not opened; .* raise --max-unpacked-gb"):
        Archive(master_zip, Limits(unpacked_bytes=10**6))
    with pytest.raises(InputError, match="at most 5 are read"):
        Archive(master_zip, Limits(members=5))


def test_a_large_archive_of_zip64_is_read(master_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    large = tampered(master_zip, tmp_path / "large.zip", lambda members: None)
    assert large.read_bytes()[-42:-38] == b"PK\6\7"
    assert verify(large).members == {}


def test_what_is_no_archive_of_ours_is_refused(tmp_path: Path, master_zip: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        verify(tmp_path / "absent.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(InputError, match="not a zip file"):
        verify(tmp_path / "text.zip")
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        verify(tampered(master_zip, tmp_path / "a.zip", lambda members: members.pop("manifest.json")))
    with pytest.raises(InputError, match=r"manifest\.json is not that of such an archive"):
        verify(tampered(master_zip, tmp_path / "b.zip", lambda members: members.update({"manifest.json": b"{}"})))
    with pytest.raises(InputError, match=r"manifest\.json is of version 99"):
        verify(tampered(master_zip, tmp_path / "c.zip", edit_json("manifest.json", lambda m: m.update(version=99))))


def test_another_version_of_the_toolkit_is_told(
    master_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "__version__", "9.9.9")
    found = verify(master_zip)
    assert found.agrees
    assert found.warnings == [f"made by inference-energy {found.manifest.toolkit}; this is 9.9.9"]


def test_other_code_is_told(master_zip: Path, tmp_path: Path) -> None:
    source = "code/src/inference_energy/analysis/footprint.py"

    def change(members: archived.Content) -> None:
        members[source] += b"# other\n"

    other = tampered(master_zip, tmp_path / "a.zip", change, fix_manifest=True)
    found = verify(other)
    assert found.agrees
    assert found.changed_code == ["analysis/footprint.py"]
    checked = CliRunner().invoke(cli(), ["verify", str(other)])
    assert "warning  1 file(s) of the code differ from those here: analysis/footprint.py" in checked.output


def test_nothing_is_left_behind(master_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    verify(master_zip)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_another_kind_are_differences() -> None:
    from inference_energy.provenance.comparison import compare_summaries

    stored = {"a": True, "b": 0.0, "c": 1, "d": None, "toolkit": {"version": "1"}, "e": (1, 2)}
    assert compare_summaries(json.loads(json.dumps(stored)), stored | {"toolkit": {"version": "2"}}).differences == []
    changed = {"a": 1, "b": 1e-30, "c": 1.0, "d": 0, "toolkit": {}, "e": [1, 3]}
    lines = compare_summaries(json.loads(json.dumps(stored)), changed).differences
    assert [line.split(":")[0] for line in lines] == ["a", "b", "d", "e[1]"]
