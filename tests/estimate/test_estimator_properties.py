"""What holds for any configuration."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.estimate.configurations import basis, cases, experts, gpu, shape

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import decode_columns
from inference_energy.estimate.compare import ESTIMATORS, basis_for, estimator_of
from inference_energy.estimate.estimator import Values
from inference_energy.estimate.gpus import gpus
from inference_energy.estimate.shapes.config_json import catalogue_models, shape_of
from inference_energy.estimate.shapes.shape import touched_share

SHAPES = [shape_of(name) for name in catalogue_models()]
CARDS = list(gpus().values())
BASIS = basis_for(gpus()["H100-SXM"])

a_shape = st.sampled_from(SHAPES)
a_card = st.sampled_from(CARDS)
a_batch = st.floats(0.5, 2000)
tokens = st.integers(1, 100_000)
loads = st.fixed_dictionaries(
    {
        "batch": a_batch,
        "input_tokens": tokens,
        "output_tokens": tokens,
        "throughput": st.floats(0.1, 1e6),
        "tensor_parallel": st.sampled_from([1, 2, 4, 8]),
    }
)


@given(a_shape, a_batch, st.floats(1, 100))
def test_a_larger_batch_never_raises_the_weights_of_a_token(model: Any, batch: float, factor: float) -> None:
    made = Cases.of([model], [CARDS[0]], batch=[batch, batch * factor], context=1.0)
    each = made.step_bytes / made.batch
    assert each[1] <= each[0] * (1 + 1e-12)


@given(a_shape, st.sampled_from([0.5, 1.0, 1.5, 3.0]), tokens)
def test_the_cache_that_is_read_grows_with_the_context(model: Any, factor: float, context: int) -> None:
    less, more = (float(model.kv_read_bytes(value)) for value in (context, context * (1 + factor)))
    assert 0 < less <= more <= less * (1 + factor) * (1 + 1e-12)


@given(st.floats(1e-4, 1.0), st.floats(1.0, 1e6))
def test_touched_experts_are_between_those_of_a_token_and_all(share: float, batch: float) -> None:
    touched = float(touched_share(share, batch))
    assert share * (1 - 1e-12) <= touched <= 1
    assert touched <= min(1.0, share * batch) * (1 + 1e-9)


def test_limits_of_touched_experts() -> None:
    assert float(touched_share(0.25, 1)) == pytest.approx(0.25)
    assert float(touched_share(0.25, 1e9)) == 1
    assert float(touched_share(1.0, 1)) == 1
    assert float(touched_share(1e-12, 2)) == pytest.approx(2e-12)
    dense = shape()
    assert float(dense.step_bytes(1)) == float(dense.step_bytes(1000)) == dense.fixed_bytes


@given(st.sampled_from(["tdp", "tdp70", "roofline"]), loads, st.floats(0.1, 10))
def test_scaling_power_scales_energy(name: str, load: dict[str, Any], factor: float) -> None:
    plain, strong = cases(card=gpu(), **load), cases(card=gpu(tdp_w=500.0 * factor), **load)
    one = estimator_of(name)
    for end in ("point", "low", "high"):
        small, large = (getattr(one.estimate(made, basis()), end)[0] for made in (plain, strong))
        assert np.isnan(small) == np.isnan(large)
        if not np.isnan(small):
            assert large == pytest.approx(factor * small)


@given(loads, st.floats(0.1, 10))
def test_scaling_a_calibration_scales_energy_and_interval(load: dict[str, Any], factor: float) -> None:
    plain = BASIS.calibration
    assert plain is not None
    strong = replace(plain, values=plain.values * factor, covariance=plain.covariance * factor**2)
    made = cases(**load)
    small, large = plain.output_tokens(made), strong.output_tokens(made)
    for end in ("energy_j", "low", "high"):
        assert getattr(large, end)[0] == pytest.approx(factor * getattr(small, end)[0])


@settings(max_examples=60)
@given(a_shape, a_card, loads)
def test_ranges_contain_their_points(model: Any, card: Any, load: dict[str, Any]) -> None:
    made = Cases.of([model], [card], **load)
    for one in ESTIMATORS:
        found = one.estimate(made, BASIS)
        low, middle, high = float(found.low[0]), float(found.scored[0]), float(found.high[0])
        assert math.isnan(low) == math.isnan(high), one.id
        if not math.isnan(low) and found.gpu is None:
            assert 0 <= low <= middle <= high, one.id
        if not math.isnan(middle):
            assert middle > 0, one.id


def reasons(values: Values, place: int) -> list[str]:
    return [problem.detail for problem in values.problems if problem.cases[place]]


@settings(max_examples=40)
@given(st.lists(st.tuples(a_shape, a_card, loads), min_size=2, max_size=6))
def test_many_at_once_are_as_one_by_one(made: list[tuple[Any, Any, dict[str, Any]]]) -> None:
    together = Cases.of(
        [model for model, _, _ in made],
        [card for _, card, _ in made],
        **{key: [load[key] for _, _, load in made] for key in made[0][2]},
    )
    for one in ESTIMATORS:
        found = one.estimate(together, BASIS)
        for place, (model, card, load) in enumerate(made):
            alone = one.estimate(Cases.of([model], [card], **load), BASIS)
            for end in ("point", "low", "high", "scored"):
                np.testing.assert_allclose(getattr(found, end)[place], getattr(alone, end)[0], rtol=1e-12)
            assert [p.detail for p in found.problems if p.cases[place]] == [
                p.detail for p in alone.problems if p.cases[0]
            ]
            if not np.isnan(alone.scored[0]):
                assert found.notes(place) == alone.notes(0)


@given(loads)
def test_a_mixture_costs_what_a_dense_model_of_the_touched_weights_does(load: dict[str, Any]) -> None:
    """With all experts met by each token it is a dense model."""
    dense, all_met = shape(), experts(experts_per_token=8)
    for one in ESTIMATORS:
        if one.id in ("scale", "lookup"):
            continue
        a, b = (one.estimate(cases(model, **load), basis()) for model in (dense, all_met))
        np.testing.assert_allclose(a.scored, b.scored, rtol=1e-9)


@given(a_shape, loads)
def test_no_column_of_the_roofline_is_negative(model: Any, load: dict[str, Any]) -> None:
    made = Cases.of([model], [CARDS[0]], **load)
    columns = decode_columns(made, ("byte", "flop", "token", "prefill"), prompts_apart=True)
    assert np.all(columns > 0)
