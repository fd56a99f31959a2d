"""Scores by hand, what may not be scored on what, and pages and pictures in step with the code."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from inference_energy.estimate.calibration_fit import dense_16_bit, design_of, leave_models_out
from inference_energy.estimate.scorecard import (
    Scorecard,
    calibration_without,
    fair_estimates,
    published_scorecard,
    score,
    without_model,
)
from inference_energy.present.doc_pages import estimator_plots, estimators_page

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return published_scorecard()


def test_scores_by_hand() -> None:
    found = score("made", np.array([1.0, 4.0, 0.2, math.nan]), np.array([2.0, 1.0, 0.2, 1.0]))
    # Ratios 1/2, 4, 1.
    assert found.rows == 3
    assert found.mape == pytest.approx((0.5 + 3 + 0) / 3)
    assert found.log_error == pytest.approx(8 ** (1 / 3))
    assert found.within_two == pytest.approx(2 / 3)
    assert found.median_ratio == 1
    assert found.covered is None


def test_coverage_by_hand() -> None:
    measured = np.array([1.0, 2.0])
    found = score("made", measured, measured, np.array([0.5, 2.5]), np.array([1.5, 3.0]))
    assert found.covered == 0.5


def test_without_estimates_there_is_a_reason() -> None:
    found = score("made", np.array([math.nan]), np.array([1.0]), why="no throughput")
    assert (found.rows, found.why) == (0, "no throughput")
    assert found.facts().mape is None


def test_nothing_rests_on_the_scored_model() -> None:
    basis = without_model("Qwen3-14B")
    assert "Qwen3-14B" not in {row.shape.name for row in basis.rows}
    assert basis.calibration is not None
    assert "Qwen3-14B" not in basis.calibration.models
    assert len(basis.calibration.models) == 5
    assert calibration_without("Mixtral-8x7B").name == "h100-published"


def test_lookup_never_finds_its_own_model() -> None:
    rows = tuple(dense_16_bit())
    found = fair_estimates(rows, "lookup")
    for row, value in zip(rows, found.point, strict=True):
        sources = {one.shape.name for one in rows if one.output_j == value} - {row.shape.name}
        assert sources or value not in {one.output_j for one in rows}


def test_scale_is_not_scored_on_its_baseline() -> None:
    rows = tuple(dense_16_bit())
    found = fair_estimates(rows, "scale").scored
    own = np.array([row.shape.name == "Llama-3.1-8B" for row in rows])
    assert np.isnan(found[own]).all()
    assert not np.isnan(found[~own]).any()


def test_the_energy_roofline_is_scored_on_models_left_out(card: Scorecard) -> None:
    group = card.groups[0]
    expected = leave_models_out(design_of(group.rows))
    assert expected is not None
    np.testing.assert_allclose(group.estimates["energy-roofline"], expected, rtol=1e-9)


def test_published_errors_come_out_as_known(card: Scorecard) -> None:
    """Goals of the energy roofline, and the errors known from a larger table, as far as they must agree."""
    together = {line.label: line for line in card.groups[-2].scores}
    assert together["flops"].rows == 48
    assert 0.60 < together["flops"].mape < 0.70
    assert together["ecologits"].mape == pytest.approx(0.89, abs=0.05)
    assert together["roofline"].mape < 0.46
    dense = {line.label: line for line in card.groups[0].scores}
    assert dense["energy-roofline, fitted without the scored model"].mape < 0.08
    assert dense["(in sample: energy-roofline fitted to these rows)"].mape < 0.06


def test_what_is_not_scored_says_why(card: Scorecard) -> None:
    for group in card.groups:
        for line in group.scores:
            assert line.rows or line.why, line.label
    lines = {line.label: line for line in card.groups[0].scores}
    assert "throughput" in str(lines["tdp"].why)


def test_artefacts_are_shown_and_in_no_group(card: Scorecard) -> None:
    scored = {row.label for group in card.groups for row in group.rows}
    assert {row.use for row in card.shown} == {"show", "artefact"}
    assert not scored & {row.label for row in card.shown}


def test_the_page_and_the_pictures_are_those_of_the_code(card: Scorecard) -> None:
    """If this fails: make docs."""
    path = "docs/validation/estimators.md"
    command = f"inference-energy estimate score --page {path} --images docs/images"
    assert (PROJECT / path).read_text() == estimators_page(card, command)
    for name, text in estimator_plots(card).items():
        assert (PROJECT / "docs/images" / name).read_text() == text, name
        ET.fromstring(text)
