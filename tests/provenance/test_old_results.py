"""Results of earlier code still verify."""

from pathlib import Path

import pytest
from archived import PLAN, SUMMARY, edit_json, tampered

from inference_energy import __version__
from inference_energy.provenance.verify import verify

ARCHIVE = Path(__file__).parent / "data" / "toolkit-0.1.0.zip"
"""Made by version 0.1.0 before stages had models of their own; of its code and pages next to nothing is in it."""

OLD_SUMMARY = "results/bench/summary.json"


def test_an_archive_of_earlier_code_verifies() -> None:
    result = verify(ARCHIVE)
    assert (result.members, result.failure, result.differences) == ({}, None, [])
    assert result.agrees
    assert result.figures == 239
    assert any("analysis.limits is analysis.slo now" in warning for warning in result.warnings)


def test_a_changed_number_in_a_sentence_of_earlier_code_is_found(tmp_path: Path) -> None:
    def edit(summary: dict) -> None:
        notes = [reason for cell in summary["cells"] for f in cell["figures"].values() for reason in f["reasons"]]
        reason = next(each for each in notes if any(letter.isdigit() for letter in each["detail"]))
        reason["detail"] = "".join("7" if letter.isdigit() else letter for letter in reason["detail"])

    result = verify(tampered(ARCHIVE, tmp_path / "a.zip", edit_json(OLD_SUMMARY, edit), fix_manifest=True))
    assert not result.agrees
    assert all(line.partition(":")[0].endswith(".detail") for line in result.differences)


@pytest.mark.parametrize("words", ["All is well.", "No limits are configured: write analysis.other."])
def test_other_words_in_a_sentence_of_earlier_code_are_a_difference(tmp_path: Path, words: str) -> None:
    def edit(summary: dict) -> None:
        summary["metrics"]["cells"][0]["figures"]["goodput_total_tokens_per_j"]["reasons"][0]["detail"] = words

    result = verify(tampered(ARCHIVE, tmp_path / "a.zip", edit_json(OLD_SUMMARY, edit), fix_manifest=True))
    assert not result.agrees
    assert len(result.differences) == 1


def test_other_words_of_the_same_code_are_a_difference(master_zip: Path, tmp_path: Path) -> None:
    def edit(summary: dict) -> None:
        summary["metrics"]["cells"][0]["figures"]["goodput_total_tokens_per_j"]["reasons"][0]["detail"] = "Other words."

    result = verify(tampered(master_zip, tmp_path / "a.zip", edit_json(SUMMARY, edit), fix_manifest=True))
    assert len(result.differences) == 1


@pytest.mark.parametrize("member", [SUMMARY, PLAN, "results/raw/bench/sessions/base/session.json"])
def test_a_document_of_another_version_is_named_with_the_version_that_made_it(
    master_zip: Path, tmp_path: Path, member: str
) -> None:
    edit = edit_json(member, lambda content: content.update(version=2))
    result = verify(tampered(master_zip, tmp_path / "a.zip", edit, fix_manifest=True))
    name = member.rpartition("/")[2]
    assert result.failure is not None
    assert f"{name} is of version 2 and was made by inference-energy {__version__}" in result.failure
