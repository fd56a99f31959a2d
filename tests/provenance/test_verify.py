"""Whatever is wrong with an archive is found and named."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import archived
import pytest
import typer
from archived import EXPERIMENT, PLAN, POWER, SUMMARY, edit_json, tampered
from typer.testing import CliRunner

from inference_energy.cli.archive import register
from inference_energy.errors import InputError, RunError
from inference_energy.provenance import verify as verify_module
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
    found = verify(tampered(master_zip, tmp_path / "bad.zip", scaled(1 + 1e-8), fix_manifest=True))
    assert not found.agrees
    assert found.members == {}
    assert len(found.differences) == 1
    assert found.differences[0].startswith("cells[base.low].figures.energy_total_j.value: stored ")


def test_rounding_is_no_difference(master_zip: Path, tmp_path: Path) -> None:
    assert verify(tampered(master_zip, tmp_path / "a.zip", scaled(1 + 1e-11), fix_manifest=True)).agrees


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
    from inference_energy.provenance.verify import compare_summaries

    stored = {"a": True, "b": 0.0, "c": 1, "d": None, "toolkit": {"version": "1"}, "e": (1, 2)}
    assert compare_summaries(json.loads(json.dumps(stored)), stored | {"toolkit": {"version": "2"}}).differences == []
    changed = {"a": 1, "b": 1e-30, "c": 1.0, "d": 0, "toolkit": {}, "e": [1, 3]}
    lines = compare_summaries(json.loads(json.dumps(stored)), changed).differences
    assert [line.split(":")[0] for line in lines] == ["a", "b", "d", "e[1]"]
