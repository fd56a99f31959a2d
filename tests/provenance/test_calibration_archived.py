"""An archive holds the calibration that its figures were made with, and `verify` applies it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import archived
import calibrated
import pytest
from archived import EXPERIMENT, PLAN, edit_json, read_members, tampered

from inference_energy.contracts.io import read_json, write_json
from inference_energy.errors import InputError
from inference_energy.provenance.archive import prepare_archive
from inference_energy.provenance.verify import verify

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))


MEMBER = f"results/{EXPERIMENT}/calibration.json"
NAMED = "meters/rack.json"


@pytest.fixture
def with_meter(project: Path) -> Path:
    """The project, analysed anew with a calibration that lies beside its results."""
    path = calibrated.write(project / NAMED, {"GPU-0": calibrated.entry(gain=1.04, u_gain=0.002)})
    record = read_json(project / PLAN)
    record["plan"]["analysis"]["calibration"] = NAMED
    write_json(project / PLAN, record)
    archived.compute(project / "results", record["plan"], path)
    return project


def test_it_is_a_member_and_the_summary_follows_from_it(with_meter: Path, tmp_path: Path) -> None:
    packed = archived.pack(with_meter, tmp_path / "a.zip")
    assert read_members(packed)[MEMBER] == (with_meter / NAMED).read_bytes()
    found = verify(packed)
    assert (found.agrees, found.differences, found.failure) == (True, [], None)


def test_one_beside_the_summary_is_packed_once(with_meter: Path, tmp_path: Path) -> None:
    record = read_json(with_meter / PLAN)
    record["plan"]["analysis"]["calibration"] = MEMBER
    write_json(with_meter / PLAN, record)
    (with_meter / MEMBER).write_bytes((with_meter / NAMED).read_bytes())
    packed = archived.pack(with_meter, tmp_path / "a.zip")
    assert verify(packed).agrees


def test_another_gain_gives_other_figures(with_meter: Path, tmp_path: Path) -> None:
    packed = archived.pack(with_meter, tmp_path / "a.zip")

    def other(content: dict) -> None:
        content["calibrations"]["GPU-0"]["gain"] = 1.0

    found = verify(tampered(packed, tmp_path / "b.zip", edit_json(MEMBER, other), fix_manifest=True))
    assert not found.agrees
    assert any("energy_total_j.value" in line for line in found.differences)
    assert any("calibration.sha256" in line for line in found.differences)


def test_without_the_file_nothing_is_recomputed_nor_a_path_of_the_plan_followed(
    with_meter: Path, tmp_path: Path
) -> None:
    packed = archived.pack(with_meter, tmp_path / "a.zip")

    def without(members: archived.Content) -> None:
        del members[MEMBER]
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = [entry for entry in manifest["members"] if entry["path"] != MEMBER]
        members["manifest.json"] = json.dumps(manifest).encode()
        edit_json(PLAN, lambda c: c["plan"]["analysis"].update(calibration=str(with_meter / NAMED)))(members)

    found = verify(tampered(packed, tmp_path / "b.zip", without, fix_manifest=True))
    assert found.members == {}
    assert "analysis.calibration: the plan names" in str(found.failure)
    missing = tampered(packed, tmp_path / "c.zip", lambda members: members.pop(MEMBER))
    assert verify(missing).members == {MEMBER: "missing"}
    assert not verify(missing).agrees


def test_one_that_changed_since_is_not_packed(with_meter: Path) -> None:
    calibrated.write(with_meter / NAMED, {"GPU-0": calibrated.entry(gain=1.05)})
    with pytest.raises(InputError, match=r"analysis.calibration: meters/rack.json is not the file .*snakemake"):
        prepare_archive(with_meter / "results" / EXPERIMENT, with_meter)
    (with_meter / NAMED).unlink()
    with pytest.raises(InputError, match=r"analysis.calibration: .*rack.json: cannot be read"):
        prepare_archive(with_meter / "results" / EXPERIMENT, with_meter)
