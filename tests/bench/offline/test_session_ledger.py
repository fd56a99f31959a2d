"""The true energy of every request of a whole session, and that none is lost or made up."""

from typing import Any

import numpy as np
import pytest

from inference_energy.bench.offline.session import SimulatedSession, simulate
from tests.bench.offline.plans import WARMUP, Load, node, phase, plan

LOADS = (WARMUP, Load(rate_qps=12.0, prompt=600, output=300), Load("users", users=30, prompt=400, output=200))
SCARCE = {"max_model_len": 1024, "num_gpu_blocks": 400}
"""Blocks for some 6400 tokens: 30 users need 18000."""


def shared_prompts() -> list[list[int]]:
    head = list(range(2000, 2200))
    return [[*head, *range(10_000 + 500 * n, 10_400 + 500 * n)] for n in range(150)]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "preempted": ({"engine": SCARCE}, {}),
    "preempted and cut off": ({"engine": SCARCE}, {"drain_s": 0.3}),
    "two nodes of two GPUs": ({"engine": SCARCE, "nodes": 2, "tensor_parallel": 2}, {"drain_s": 0.3}),
    "power cap": ({"power_limit_w": 400.0}, {}),
    "shared prefixes": ({"engine": SCARCE}, {"drain_s": 0.3, "contents": shared_prompts()}),
}


def case(name: str) -> SimulatedSession:
    settings, extra = CASES[name]
    loads = [load if "contents" not in extra else Load(**{**vars(load), "prefix_reuse": True}) for load in LOADS]
    return simulate(plan(*loads, **extra), node(**settings))


@pytest.mark.parametrize("name", CASES)
def test_the_requests_and_the_rest_add_up_to_each_nodes_energy(name: str) -> None:
    session = case(name)
    if name.startswith("preempted") or name == "shared prefixes":
        assert session.engines[0].preemptions > 5
    if "drain_s" in CASES[name][1]:
        assert (session.requests["status"] == "aborted").sum() > 5
    if name == "shared prefixes":
        assert session.requests["cached_tokens"].sum() > 1000
    parts = session.node.tensor_parallel
    for engine, trace, own in zip(session.engines, session.traces, session.truth.ledgers, strict=True):
        given_out_j = own.prefill_j.sum() + own.decode_j.sum() + own.rest_j
        assert given_out_j == pytest.approx(own.total_j, rel=1e-9)
        lengths_s = np.diff(np.append(trace["start_ns"], engine.now_ns)) / 1e9
        assert own.total_j == pytest.approx(parts * float((trace["gpu_w"] * lengths_s).sum()), rel=1e-9)
        assert own.prefill_j.min() >= 0
        assert own.decode_j.min() >= 0


def test_the_whole_sessions_energy_is_that_of_its_requests_and_its_rests() -> None:
    session = case("two nodes of two GPUs")
    energies = session.truth.request_energies
    assert list(energies["request_id"]) == list(session.requests["request_id"])
    rest_j = sum(own.rest_j for own in session.truth.ledgers)
    total_j = session.truth.gpu_energy_j(session.origin_ns, session.engines[0].now_ns)
    requests_j = float(energies[["prefill_energy_j", "decode_energy_j"]].to_numpy().sum())
    assert requests_j + rest_j == pytest.approx(total_j, rel=1e-9)
    # The load's power is far above idle: most of its windows' energy is the requests'.
    start_ns, end_ns = phase(session, "window", "users")
    assert requests_j > 0.8 * session.truth.gpu_energy_j(start_ns, end_ns)


def test_a_request_that_was_cut_off_is_charged_for_what_it_had() -> None:
    session = case("preempted and cut off")
    energies = session.truth.request_energies.set_index("request_id")
    aborted = session.requests[session.requests["status"] == "aborted"]
    begun = aborted.loc[aborted["first_token_ns"].notna(), "request_id"]
    assert len(begun) > 3
    assert (energies.loc[begun, "prefill_energy_j"] > 0).all()
