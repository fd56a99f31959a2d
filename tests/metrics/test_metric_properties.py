"""What must hold whatever was measured."""

import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cells import UNCERTAINTY, made_cell

from inference_energy.config.analysis import EmbodiedConfig, QualityConfig
from inference_energy.metrics.energy_delay import energy_delay
from inference_energy.metrics.energy_per_answer import energy_per_answer
from inference_energy.metrics.energy_per_token import energy_per_token
from inference_energy.metrics.goodput_per_joule import goodput_per_joule
from inference_energy.metrics.quality import grade_answers
from inference_energy.metrics.request_energy import request_energy, whole_requests
from inference_energy.metrics.sci import embodied_g, sci
from inference_energy.metrics.water import water_per_token

pytestmark = pytest.mark.slow

EMBODIED = EmbodiedConfig(total_kg=1500.0, lifetime_years=4.0, share=0.25, source="invented")


def every(cell):
    found = grade_answers(cell, QualityConfig())
    return {
        **energy_per_token(cell),
        **request_energy(cell, UNCERTAINTY),
        **goodput_per_joule(cell),
        **energy_delay(cell),
        **sci(cell, EMBODIED),
        **water_per_token(cell),
        **energy_per_answer(cell, found),
    }


def graded(**given):
    base = made_cell(good_per_s=1, **given)
    prompts = base.prompts.assign(text=base.prompts["prompt_id"].astype(str), answer="7")
    answers = base.requests[["request_id", "cell"]].assign(text=base.requests["prompt_id"].map({7: "7"}).fillna("no"))
    return made_cell(good_per_s=1, prompts=prompts, answers=answers, **given)


def values(figures):
    return {name: figure.value for name, figure in figures.items() if figure.valid}


POWER = {"energy": 1, "request_energy": 1, "water": 1, "efficiency": -1, "goodput": -1}


@given(st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_scaling_power_scales_every_energy_metric(scale):
    before, after = values(every(graded())), values(every(graded(scale=scale)))
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name.startswith(("embodied", "accuracy", "correct")) or name.endswith("_share"):
            assert after[name] == pytest.approx(value, rel=1e-9)
        elif name.startswith("sci"):
            embodied = before[name.replace("sci", "embodied")]
            assert after[name] - embodied == pytest.approx(scale * (value - embodied), rel=1e-6)
        else:
            power = next(power for start, power in POWER.items() if name.startswith(start))
            assert after[name] == pytest.approx(scale**power * value, rel=1e-9), name


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_order_of_requests_does_not_matter(seed):
    order = list(range(20))
    random.Random(seed).shuffle(order)
    before, after = every(graded()), every(graded(order=order))
    for name, figure in before.items():
        assert after[name].value == (None if figure.value is None else pytest.approx(figure.value, rel=1e-12)), name
        if figure.interval_95:
            assert after[name].interval_95 == pytest.approx(figure.interval_95, rel=1e-9)


@given(st.integers(1, 5))
@settings(max_examples=5, deadline=None)
def test_a_request_without_tokens_changes_nothing_but_counts(count):
    before, after = every(made_cell(good_per_s=1)), every(made_cell(good_per_s=1, zero_token_requests=count))
    for name, figure in before.items():
        value = after[name].value
        if "per_request" in name and figure.value is not None:
            # Another request to divide by: a count.
            assert value == pytest.approx(figure.value * 20 / (20 + count), rel=1e-9), name
        else:
            assert value == (None if figure.value is None else pytest.approx(figure.value, rel=1e-12)), name


def test_a_window_split_in_two_has_the_same_receipts_and_the_same_embodied_carbon():
    cell = made_cell()
    half = pd.concat([cell.receipts.assign(energy_j=cell.receipts["energy_j"] * share) for share in (0.3, 0.7)])
    pooled = half.groupby("request_id", as_index=False).agg({"energy_j": "sum", "cell": "first", "policy": "first"})
    together = whole_requests(made_cell(receipts=pooled))["energy_j"].sum()
    assert together == pytest.approx(whole_requests(cell)["energy_j"].sum())
    assert embodied_g(8.0, EMBODIED) + embodied_g(12.0, EMBODIED) == pytest.approx(embodied_g(20.0, EMBODIED))


def test_halves_of_a_window_have_its_metrics():
    """A window of 40 s, and each of its halves, under the same load: whatever is per something is the same."""
    whole, half = values(every(graded(duration_s=40))), values(every(graded(duration_s=20)))
    assert whole["correct_answers"] == 2 * half["correct_answers"]
    same = [name for name in half if name != "correct_answers"]
    assert len(same) > 25
    assert {name: whole[name] for name in same} == pytest.approx({name: half[name] for name in same}, rel=1e-9)
