"""The metrics of an archive follow from its raw files, and a changed one does not."""

from __future__ import annotations

from pathlib import Path

from archived import PLAN, SUMMARY, edit_json, tampered

from inference_energy.provenance.verify import verify


def test_a_metric_that_was_changed_is_found(master_zip: Path, tmp_path: Path) -> None:
    def better(content: dict) -> None:
        content["metrics"]["cells"][0]["figures"]["efficiency_total_tokens_per_j"]["value"] *= 1.01

    found = verify(tampered(master_zip, tmp_path / "a.zip", edit_json(SUMMARY, better), fix_manifest=True))
    (difference,) = found.differences
    assert "efficiency_total_tokens_per_j.value" in difference


def test_other_embodied_emissions_in_the_plan_are_found(master_zip: Path, tmp_path: Path) -> None:
    def more(content: dict) -> None:
        content["plan"]["metrics"]["embodied"] = {"total_kg": 1, "lifetime_years": 1, "source": "forged"}

    found = verify(tampered(master_zip, tmp_path / "a.zip", edit_json(PLAN, more), fix_manifest=True))
    assert found.differences
    assert all("embodied" in line or "sci" in line for line in found.differences)


def test_a_plan_without_metrics_is_of_an_older_version(master_zip: Path, tmp_path: Path) -> None:
    changed = edit_json(PLAN, lambda content: content["plan"].pop("metrics"))
    assert "plan.metrics" in str(verify(tampered(master_zip, tmp_path / "a.zip", changed, fix_manifest=True)).failure)
