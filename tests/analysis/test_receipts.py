"""Receipts: what each request is charged."""

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from inference_energy.analysis.attribution import attribute_session, proportional
from inference_energy.config.analysis import AnalysisConfig, ImpactConfig
from inference_energy.contracts import receipts, requests
from inference_energy.contracts.figure import Reason, missing_figure
from inference_energy.contracts.io import read_table, write_table
from inference_energy.stages.chain import RawSession, session_parts

weights = st.lists(st.integers(0, 100_000), min_size=1, max_size=50).map(lambda w: np.array(w, dtype=np.int64))


@given(st.floats(1e-3, 1e9), weights)
def test_receipts_sum_to_the_energy(energy_j, w):
    charged = proportional(energy_j, w)
    if w.sum() == 0:
        assert charged is None
    else:
        assert charged.sum() == pytest.approx(energy_j, rel=1e-9)
        assert (charged[w == 0] == 0).all()


@given(st.floats(1e-3, 1e9), weights, st.randoms())
def test_the_order_of_requests_does_not_matter(energy_j, w, random):
    if w.sum() == 0:
        return
    order = list(range(len(w)))
    random.shuffle(order)
    assert proportional(energy_j, w[order]) == pytest.approx(proportional(energy_j, w)[order], rel=1e-12)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="negative"):
        proportional(1.0, np.array([1, -1]))


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    truth = synthetic.build_session(root)
    files = RawSession.below(root, "bench", "base", "small")
    plan = synthetic.plan([truth])
    config = AnalysisConfig.model_validate(plan["analysis"])
    return truth, files, session_parts(files, config, ImpactConfig.model_validate(plan["impact"])), config


@pytest.mark.parametrize("policy", ["completion_tokens", "total_tokens"])
def test_receipts_of_a_session(session, tmp_path, policy):
    truth, files, parts, config = session
    found = attribute_session(
        requests=files.requests, energy=parts.energy, config=config.model_copy(update={"attribution": policy})
    )
    write_table(tmp_path / "receipts.parquet", found, receipts.SCHEMA)
    stored = read_table(tmp_path / "receipts.parquet", receipts.SCHEMA)
    asked = read_table(files.requests, requests.SCHEMA)
    assert set(stored["cell"]) == {"low", "high"}
    for name, window in truth.windows.items():
        own = stored[stored["cell"] == name]
        total_j = parts.energy.windows[name].figures["energy_total_j"].value
        assert len(own) == (asked["cell"] == name).sum()
        assert own["energy_j"].sum() == pytest.approx(total_j, rel=1e-9)
        assert own["idle_energy_j"].sum() == pytest.approx(70.0 * window["duration_s"], rel=1e-3)
        assert set(own["policy"]) == {policy}
        assert own["prefill_energy_j"].isna().all()


def test_a_request_is_charged_for_its_tokens_inside(session):
    truth, files, parts, config = session
    found = attribute_session(requests=files.requests, energy=parts.energy, config=config).set_index("request_id")
    window = truth.windows["low"]
    per_token_j = parts.energy.windows["low"].figures["energy_total_per_output_token_j"].value
    asked = read_table(files.requests, requests.SCHEMA)
    straddling = 0
    for request in asked[asked["cell"] == "low"].to_dict("records"):
        times = synthetic.token_times_ns(request)
        inside = int(((times >= window["start_ns"]) & (times < window["end_ns"])).sum())
        straddling += 0 < inside < request["completion_tokens"]
        assert found.loc[request["request_id"], "energy_j"] == pytest.approx(inside * per_token_j, rel=1e-9)
    assert straddling > 0


def test_no_valid_energy_no_receipts(session):
    _, files, parts, config = session
    low = parts.energy.windows["low"]
    broken = missing_figure("J", "total", "gpu", "counter", Reason("gap", "A hole."))
    windows = {"low": structs.replace(low, figures={**low.figures, "energy_total_j": broken})}
    energy = structs.replace(parts.energy, windows=windows)
    found = attribute_session(requests=files.requests, energy=energy, config=config)
    assert len(found) > 0
    assert found["energy_j"].isna().all()
    assert found["idle_energy_j"].isna().all()


def test_under_total_tokens_prompts_are_charged_too(session):
    truth, files, parts, config = session
    policy = config.model_copy(update={"attribution": "total_tokens"})
    found = attribute_session(requests=files.requests, energy=parts.energy, config=policy).set_index("request_id")
    window = truth.windows["high"]
    total_j = parts.energy.windows["high"].figures["energy_total_j"].value
    per_token_j = total_j / (window["output_tokens"] + window["prompt_tokens"])
    asked = read_table(files.requests, requests.SCHEMA)
    for request in asked[asked["cell"] == "high"].to_dict("records"):
        times = synthetic.token_times_ns(request)
        inside = int(((times >= window["start_ns"]) & (times < window["end_ns"])).sum())
        inside += request["prompt_tokens"] * (window["start_ns"] <= request["first_token_ns"] < window["end_ns"])
        assert found.loc[request["request_id"], "energy_j"] == pytest.approx(inside * per_token_j, rel=1e-9)


@pytest.mark.parametrize(
    ("column", "policy", "charged"),
    [
        ("completion_tokens", "completion_tokens", False),
        ("prompt_tokens", "total_tokens", False),
        ("prompt_tokens", "completion_tokens", True),
    ],
)
def test_nobody_is_charged_for_a_request_that_has_no_counts(session, tmp_path, column, policy, charged):
    truth, files, parts, config = session
    asked = read_table(files.requests, requests.SCHEMA)
    window = truth.windows["low"]
    inside = (asked["cell"] == "low") & asked["first_token_ns"].between(window["start_ns"], window["end_ns"])
    asked.loc[asked.index[inside][3], column] = None
    write_table(tmp_path / "requests.parquet", asked, requests.SCHEMA)
    config = config.model_copy(update={"attribution": policy})
    found = attribute_session(requests=tmp_path / "requests.parquet", energy=parts.energy, config=config)
    assert found.loc[found["cell"] == "low", "energy_j"].notna().all() == charged
    assert found.loc[found["cell"] == "high", "energy_j"].notna().all()
