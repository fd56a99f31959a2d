"""An archive holds the calibration that its estimates were made with, and `verify` computes them again."""

from __future__ import annotations

import json
from pathlib import Path

import archived
import pytest
from archived import EXPERIMENT, PLAN, SUMMARY, edit_json, read_members, tampered

from inference_energy.contracts.io import read_json, write_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import shipped_calibration
from inference_energy.provenance.archive import prepare_archive
from inference_energy.provenance.verify import verify

pytestmark = pytest.mark.slow

MEMBER = f"results/{EXPERIMENT}/estimate_calibration.json"
NAMED = "fits/mine.json"


@pytest.fixture
def with_fit(project: Path) -> Path:
    """The project, its estimates made anew with a calibration that lies beside its results."""
    path = project / NAMED
    write_json(path, {**shipped_calibration("h100-published").record, "name": "mine"})
    record = read_json(project / PLAN)
    record["plan"]["estimate"]["calibration"] = NAMED
    write_json(project / PLAN, record)
    archived.compute(project / "results", record["plan"], None, path)
    return project


def test_estimates_are_computed_again(master_zip: Path) -> None:
    summary = json.loads(read_members(master_zip)[SUMMARY])
    assert [one["session"] for one in summary["estimates"]] == ["base"]
    assert summary["estimates"][0]["windows"]
    found = verify(master_zip)
    assert (found.agrees, found.differences, found.failure) == (True, [], None)


def test_a_changed_estimate_is_found(master_zip: Path, tmp_path: Path) -> None:
    def other(content: dict) -> None:
        window = next(iter(content["estimates"][0]["windows"].values()))
        window["estimates"][2]["energy_per_output_token_j"] *= 0.5

    found = verify(tampered(master_zip, tmp_path / "b.zip", edit_json(SUMMARY, other), fix_manifest=True))
    assert not found.agrees
    assert any("energy_per_output_token_j" in line for line in found.differences)


def test_the_calibration_is_a_member_and_the_estimates_follow_from_it(with_fit: Path, tmp_path: Path) -> None:
    packed = archived.pack(with_fit, tmp_path / "a.zip")
    assert read_members(packed)[MEMBER] == (with_fit / NAMED).read_bytes()
    found = verify(packed)
    assert (found.agrees, found.differences, found.failure) == (True, [], None)

    def other(content: dict) -> None:
        content["coefficients"][0]["value"] *= 2

    found = verify(tampered(packed, tmp_path / "b.zip", edit_json(MEMBER, other), fix_manifest=True))
    assert not found.agrees


def test_without_its_calibration_an_archive_cannot_be_checked(with_fit: Path, tmp_path: Path) -> None:
    packed = archived.pack(with_fit, tmp_path / "a.zip")

    def remove(members: dict[str, bytes]) -> None:
        del members[MEMBER]
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = [entry for entry in manifest["members"] if entry["path"] != MEMBER]
        members["manifest.json"] = json.dumps(manifest).encode()

    found = verify(tampered(packed, tmp_path / "b.zip", remove))
    assert found.failure is not None
    assert "estimate.calibration" in found.failure


def test_a_calibration_that_was_changed_since_is_not_packed(with_fit: Path) -> None:
    write_json(with_fit / NAMED, {**read_json(with_fit / NAMED), "t_95": 9.0})
    with pytest.raises(InputError, match=r"estimate\.calibration"):
        prepare_archive(with_fit / "results" / EXPERIMENT, with_fit)


def test_a_plan_without_estimates_still_verifies(project: Path, tmp_path: Path) -> None:
    record = read_json(project / PLAN)
    del record["plan"]["estimate"]
    write_json(project / PLAN, record)
    archived.compute(project / "results", record["plan"])
    assert "estimates" not in read_json(project / SUMMARY)
    assert verify(archived.pack(project, tmp_path / "a.zip")).agrees
