"""True energies of requests: conserved, not negative, and what a split step by step gives."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.bench.config import EngineSettings
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest, Ledger, ledger, step_ends_ns
from tests.bench.truth.loads import Load, Run, loads, physics_of, run

pytestmark = pytest.mark.slow

ROUNDING = 1e-12
PARTS = st.sampled_from([1, 2, 8])


def ledger_of(done: Run) -> Ledger:
    return ledger(done.engine.segments, done.requests, done.engine.physics)


def node_energy_j(engine: BenchEngine) -> float:
    """All GPUs' energy, straight from the log."""
    log = engine.segments
    rows = zip(log.start_ns, log.end_ns, log.gpu_w, strict=True)
    return engine.physics.tensor_parallel * sum((end - start) / 1e9 * power_w for start, end, power_w in rows)


def split_by_hand(done: Run) -> list[list[float]]:
    """[prefill, decode] energy of each request: each step split among those that the reference saw in it."""
    physics, log, device = done.engine.physics, done.engine.segments, done.engine.physics.device
    parts = physics.tensor_parallel
    places = [place for place in range(len(log)) if log.sequences[place]]
    in_step: list[list[tuple[int, str, list[int], bool]]] = [[] for _ in places]
    for number, item in enumerate(done.items):
        for kind, step, contexts, sampled in item.work:
            in_step[step].append((number, kind, contexts, sampled))
    energies = [[0.0, 0.0] for _ in done.items]
    for place, members in zip(places, in_step, strict=True):
        assert len(members) == log.sequences[place]
        left_j = parts * log.gpu_w[place] * (log.end_ns[place] - log.start_ns[place]) / 1e9
        for number, kind, contexts, sampled in members:
            decode = kind == "decode"
            flop_j = device.thin_flop_j if decode else device.flop_j
            flops = physics.token_flops * len(contexts) + physics.pair_flops * sum(contexts)
            kv_bytes = physics.kv_bytes * (contexts[0] if decode else len(contexts))
            own_j = flops * flop_j + kv_bytes * device.byte_j + sampled * physics.sample_flops * device.thin_flop_j
            energies[number][decode] += parts * own_j
            left_j -= parts * own_j
        for number, kind, _, _ in members:
            energies[number][kind == "decode"] += left_j / len(members)
    return energies


@given(loads(), PARTS)
@settings(max_examples=300)
def test_every_joule_is_given_out_once(load: Load, parts: int) -> None:
    done = run(load, tensor_parallel=parts)
    split = ledger_of(done)
    assert split.total_j == pytest.approx(node_energy_j(done.engine), rel=ROUNDING)
    given_j = split.prefill_j.sum() + split.decode_j.sum() + split.rest_j
    assert given_j == pytest.approx(split.total_j, rel=ROUNDING)
    assert np.all(split.prefill_j >= 0)
    assert np.all(split.decode_j >= -ROUNDING * split.total_j)
    computed = np.array([bool(request.chunks) for request in done.requests])
    assert np.all((split.prefill_j > 0) == computed)


@given(loads(), PARTS)
@settings(max_examples=300)
def test_split_is_that_of_each_step(load: Load, parts: int) -> None:
    done = run(load, tensor_parallel=parts)
    split, by_hand = ledger_of(done), np.array(split_by_hand(done))
    scale_j = ROUNDING * split.total_j
    np.testing.assert_allclose(split.prefill_j, by_hand[:, 0], rtol=1e-9, atol=scale_j)
    np.testing.assert_allclose(split.decode_j, by_hand[:, 1], rtol=1e-9, atol=scale_j)


@given(loads(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_the_requests_does_not_matter(load: Load, chance: random.Random) -> None:
    done = run(load)
    order = list(range(len(done.requests)))
    chance.shuffle(order)
    straight = ledger_of(done)
    shuffled = ledger(done.engine.segments, [done.requests[place] for place in order], done.engine.physics)
    assert np.array_equal(shuffled.prefill_j, straight.prefill_j[order])
    assert np.array_equal(shuffled.decode_j, straight.decode_j[order])
    assert (shuffled.rest_j, shuffled.total_j) == (straight.rest_j, straight.total_j)


def served(*requests: BenchRequest, parts: int = 1, rest_ns: int = 0, budget: int = 8192) -> BenchEngine:
    """An engine that has served requests that came together."""
    settings_ = EngineSettings(max_num_seqs=16, max_num_batched_tokens=budget)
    engine = BenchEngine(physics_of(settings_, parts))
    engine.rest(rest_ns)
    for request in requests:
        engine.add(request)
    while engine.has_work:
        engine.begin()
        engine.complete()
    return engine


@pytest.mark.parametrize("parts", [1, 4])
def test_request_alone_gets_all_of_its_steps(parts: int) -> None:
    request = BenchRequest(1, 700, 40)
    engine = served(request, parts=parts, rest_ns=2_000_000_000, budget=256)
    split = ledger(engine.segments, [request], engine.physics)
    log = engine.segments
    steps_j = [
        parts * power_w * (end - start) / 1e9
        for start, end, power_w, busy in zip(log.start_ns, log.end_ns, log.gpu_w, log.sequences, strict=True)
        if busy
    ]
    assert split.prefill_j[0] == pytest.approx(sum(steps_j[:3]), rel=ROUNDING)
    assert split.decode_j[0] == pytest.approx(sum(steps_j[3:]), rel=ROUNDING)
    assert split.rest_j == pytest.approx(parts * sum(log.gpu_w[:2]), rel=ROUNDING)


def test_two_alike_get_the_same() -> None:
    twins = [BenchRequest(1, 300, 50), BenchRequest(2, 300, 50)]
    engine = served(*twins)
    split = ledger(engine.segments, twins, engine.physics)
    assert split.prefill_j[0] == split.prefill_j[1]
    assert split.decode_j[0] == split.decode_j[1]


def test_order_of_those_that_come_together_does_not_matter() -> None:
    sizes = [(300, 50), (20, 90), (900, 4)]
    energies = []
    for order in ([0, 1, 2], [2, 0, 1]):
        requests = {place: BenchRequest(place, *sizes[place]) for place in order}
        engine = served(*requests.values())
        split = ledger(engine.segments, [requests[place] for place in range(3)], engine.physics)
        energies.append([*split.prefill_j, *split.decode_j])
    assert energies[0] == pytest.approx(energies[1], rel=1e-9)


def test_longer_context_costs_its_own_request_more() -> None:
    short, long = BenchRequest(1, 100, 50), BenchRequest(2, 4000, 50)
    engine = served(short, long)
    split = ledger(engine.segments, [short, long], engine.physics)
    costs = engine.physics
    device = costs.device
    more_j = 50 * 3900 * (costs.kv_bytes * device.byte_j + costs.pair_flops * device.thin_flop_j)
    # The one output token that comes with the prompt is not decoded.
    assert split.decode_j[1] - split.decode_j[0] == pytest.approx(more_j * 49 / 50, rel=1e-6)


def test_step_ends_are_those_of_steps() -> None:
    request = BenchRequest(1, 30, 5)
    engine = served(request, rest_ns=1_500_000_000)
    ends = step_ends_ns(engine.segments)
    assert len(ends) == engine.step == 5
    assert (ends[0], ends[-1]) == (request.first_token_ns, request.last_token_ns)


def test_empty_log_has_no_energy() -> None:
    engine = BenchEngine(physics_of(EngineSettings()))
    split = ledger(engine.segments, [], engine.physics)
    assert (split.rest_j, split.total_j, len(split.prefill_j)) == (0.0, 0.0, 0)
