"""The loads of the trials: they are what they say, and a seed draws them."""

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from inference_energy.bench.offline.plan import SessionPlan
from inference_energy.validation.scenarios import GAIN_STD, OFFSET_STD_W, POOL, SCENARIOS, LoadWindow, Scenario

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
SEEDS = range(12)


def rows_of(plan: SessionPlan, name: str) -> pd.DataFrame:
    return plan.schedule[plan.schedule["cell"] == name]


def gaps_s(plan: SessionPlan, name: str) -> np.ndarray:
    return np.diff(rows_of(plan, name)["arrival_ns"].to_numpy(dtype=np.float64)) / 1e9


def test_they_are_the_six_of_the_table() -> None:
    assert list(BY_NAME) == ["low load", "saturation", "bursty", "long context", "prefix-cached", "two GPUs"]
    for scenario in SCENARIOS:
        kinds = [window.kind for window in scenario.windows]
        assert kinds == ["warmup", "steady", "steady", "prefill", "prefill", "decode", "decode"]
        assert scenario.reported == scenario.windows[1].name


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_plan_holds_the_windows_in_order_with_their_loads(scenario: Scenario) -> None:
    plan = scenario.plan(1)
    assert [cell.name for cell in plan.cells] == [window.name for window in scenario.windows]
    assert list(dict.fromkeys(plan.schedule["cell"])) == [window.name for window in scenario.windows]
    assert plan.schedule["request_id"].is_unique
    for cell, window in zip(plan.cells, scenario.windows, strict=True):
        own = rows_of(plan, window.name)
        assert (cell.kind, cell.duration_s, cell.users) == (window.kind, window.duration_s, window.users)
        assert own["max_tokens"].mean() == pytest.approx(
            window.output, abs=4 * window.output_std / len(own) ** 0.5 + 0.5
        )
        assert own["max_tokens"].std() == pytest.approx(window.output_std, rel=0.25, abs=0.5)
        if window.users:
            assert own["arrival_ns"].isna().all()
            assert len(own) == POOL
        else:
            assert own["arrival_ns"].is_monotonic_increasing
            assert own["arrival_ns"].between(0, window.duration_s * 1e9, inclusive="left").all()


@pytest.mark.parametrize(
    ("name", "window"),
    [(s.name, t) for s in SCENARIOS for t in s.windows if t.rate_qps and t.kind == "steady"],
)
def test_rates_and_gaps_are_as_asked(name: str, window: LoadWindow) -> None:
    plans = [BY_NAME[name].plan(seed) for seed in SEEDS]
    assert window.rate_qps is not None
    expected = window.rate_qps * window.duration_s * len(SEEDS)
    count = sum(len(rows_of(plan, window.name)) for plan in plans)
    # The count of a renewal process has about the variance cv^2 times its mean; four standard deviations.
    assert abs(count - expected) < 4 * window.cv * np.sqrt(expected)
    gaps = np.concatenate([gaps_s(plan, window.name) for plan in plans])
    assert gaps.std() / gaps.mean() == pytest.approx(window.cv, rel=0.12)


def test_arrivals_are_told_in_the_configurations_words() -> None:
    words = {name: scenario.windows[1].arrival() for name, scenario in BY_NAME.items()}
    assert words["low load"] == {"process": "poisson", "rate_qps": 1.0}
    assert words["saturation"] == {"process": "closed", "concurrency": 192}
    assert words["bursty"] == {"process": "gamma", "rate_qps": 6.0, "cv": 3.0}


def test_prompt_lengths_are_as_asked() -> None:
    window = BY_NAME["long context"].windows[1]
    plans = [BY_NAME["long context"].plan(seed) for seed in SEEDS]
    found = np.concatenate([rows_of(plan, "load")["prompt_tokens"].to_numpy(dtype=np.float64) for plan in plans])
    assert found.mean() == pytest.approx(window.prompt, rel=0.02)
    assert found.std() == pytest.approx(window.prompt_std, rel=0.05)
    designed = plans[0].schedule[plans[0].schedule["cell"].str.startswith("prefill")]
    assert set(designed["prompt_tokens"]) == {2048}


def test_prefixes_are_shared() -> None:
    scenario = BY_NAME["prefix-cached"]
    plan = scenario.plan(1)
    assert plan.prompts is not None
    contents = plan.prompts.set_index("prompt_id")["token_ids"]
    rows = rows_of(plan, "load")
    prompts = [contents[number] for number in rows["prompt_id"]]
    assert list(rows["prompt_tokens"]) == [len(tokens) for tokens in prompts]
    heads = Counter(tuple(tokens[:1024]) for tokens in prompts)
    assert len(heads) == 8
    assert min(heads.values()) > len(prompts) / 8 / 2
    own = [tuple(tokens[1024:]) for tokens in prompts]
    assert len(set(own)) == len(own)
    assert np.mean([len(tokens) for tokens in own]) == pytest.approx(128, abs=4)
    reuse = {cell.name: cell.prefix_reuse for cell in plan.cells}
    assert reuse["load"]
    assert sum(reuse.values()) == 1
    assert all(scenario.plan(1).prompts is None for scenario in SCENARIOS if scenario.name != "prefix-cached")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_seed_draws_the_load(scenario: Scenario) -> None:
    first, again, other = (scenario.plan(seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.schedule, again.schedule)
    assert not first.schedule.equals(other.schedule)
    if first.prompts is not None and again.prompts is not None and other.prompts is not None:
        pd.testing.assert_frame_equal(first.prompts, again.prompts)
        assert not first.prompts.equals(other.prompts)


def test_windows_of_a_session_are_drawn_independently() -> None:
    load = LoadWindow("one", "steady", 60.0, 4.0)
    plan = Scenario("x", "x", (load, dataclasses.replace(load, name="two"))).plan(3)
    one, two = gaps_s(plan, "one"), gaps_s(plan, "two")
    assert abs(np.corrcoef(one[:200], two[:200])[0, 1]) < 0.2


def test_a_seed_draws_the_card() -> None:
    nodes = [BY_NAME["two GPUs"].node(seed) for seed in (1, 1, 2)]
    assert nodes[0] == nodes[1]
    assert nodes[0].seed != nodes[2].seed
    assert {node.sensors.nvml.gain_std for node in nodes} == {GAIN_STD}
    assert {node.sensors.nvml.offset_std_w for node in nodes} == {OFFSET_STD_W}
    assert (nodes[0].tensor_parallel, nodes[0].shape.name) == (2, "qwen3-14b")
    assert BY_NAME["low load"].node(1).tensor_parallel == 1
