"""Single moments of the engine that are easy to get wrong, each told as a story."""

import pytest

from inference_energy.bench.config import EngineSettings, Node
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import GPU_IDLE, THERMAL_SLOWDOWN, BenchRequest
from inference_energy.bench.truth.step import StepPhysics
from inference_energy.errors import InputError
from tests.bench.truth.loads import physics_of


def engine_with(blocks: int = 8, size: int = 4, budget: int = 64, seqs: int = 4, caching: bool = True) -> BenchEngine:
    settings = EngineSettings(
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        block_size=size,
        num_gpu_blocks=blocks,
        max_model_len=blocks * size,
        enable_prefix_caching=caching,
    )
    return BenchEngine(physics_of(settings))


def steps(engine: BenchEngine, count: int) -> None:
    for _ in range(count):
        engine.begin()
        engine.complete()


def finish(engine: BenchEngine) -> int:
    count = 0
    while engine.has_work:
        steps(engine, 1)
        count += 1
        assert count < 1000
    return count


def test_first_token_comes_with_the_prompt_and_one_with_each_step_after() -> None:
    engine = engine_with()
    request = BenchRequest(1, 5, 3)
    engine.add(request)
    ends = [engine.begin()]
    assert engine.complete() == [request]
    assert engine.generated(request) == 1
    for expected in ([], [request]):
        ends.append(engine.begin())
        assert engine.complete() == expected
    assert (request.first_token_ns, request.last_token_ns) == (ends[0], ends[2])
    assert request.finished
    assert not engine.has_work


def test_one_output_token_needs_one_step() -> None:
    engine = engine_with()
    request = BenchRequest(1, 5, 1)
    engine.add(request)
    assert finish(engine) == 1
    assert request.generated == 1
    assert request.decodes == []
    assert request.first_token_ns == request.last_token_ns == engine.now_ns


def test_token_of_a_step_under_way_is_not_there_yet() -> None:
    engine = engine_with()
    request = BenchRequest(1, 4, 5)
    engine.add(request)
    steps(engine, 2)
    engine.begin()
    assert engine.generated(request) == 2
    engine.complete()
    assert engine.generated(request) == 3


def test_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    engine = engine_with(blocks=16, budget=10)
    engine.add(BenchRequest(1, 24, 2))
    assert finish(engine) == 4
    assert list(engine.segments.prefill) == [10, 10, 4, 0]
    assert list(engine.segments.samples) == [0, 0, 1, 1]
    assert list(engine.segments.prompts) == [0, 0, 24, 0]


def test_decoding_comes_before_prompts_in_the_budget() -> None:
    engine = engine_with(blocks=16, budget=4)
    engine.add(BenchRequest(1, 4, 10))
    steps(engine, 1)
    engine.add(BenchRequest(2, 9, 1))
    steps(engine, 3)
    assert list(engine.segments.decoding) == [0, 1, 1, 1]
    assert list(engine.segments.prefill) == [4, 3, 3, 3]


def test_preempted_youngest_is_computed_anew_with_its_own_tokens() -> None:
    engine = engine_with(blocks=4, size=4)
    old, young = BenchRequest(1, 4, 12), BenchRequest(2, 4, 8)
    engine.add(old)
    engine.add(young)
    steps(engine, 6)
    # The prompts took a block each, the tokens fed back one more each from the second step on, and at the sixth both
    # want a third: the four of the young one must go.
    assert engine.preemptions == young.preemptions == 1
    assert young.generated == 5
    assert young in engine.waiting
    finish(engine)
    assert old.preemptions == 0
    assert (old.generated, young.generated) == (12, 8)
    # 4 tokens of the prompt, and then these with the 5 of its own.
    assert [tokens for _, tokens, _ in young.chunks] == [4, 9]
    assert young.prefills == 2
    assert sum(engine.segments.prompts) == 8


def test_stale_turn_does_not_end_a_request_that_is_computed_anew() -> None:
    """The step in which a preempted request would have ended must not end it while its prompt is computed again."""
    engine = engine_with(blocks=3, size=8, budget=2, seqs=2)
    old, young = BenchRequest(1, 1, 17), BenchRequest(2, 1, 3)
    engine.add(old)
    steps(engine, 15)
    engine.add(young)
    finish(engine)
    assert (old.generated, young.generated) == (17, 3)


def test_prompt_that_was_not_computed_is_not_found_by_the_next() -> None:
    """A request goes in the midst of its prompt; the next with the same prompt finds what was computed, no more."""
    engine = engine_with(blocks=16, budget=10)
    names = tuple(range(6))
    first, second = BenchRequest(1, 24, 1, names), BenchRequest(2, 24, 1, names)
    engine.add(first)
    steps(engine, 1)
    engine.abort(first)
    engine.add(second)
    finish(engine)
    assert second.cached_tokens == 8
    assert sum(tokens for _, tokens, _ in second.chunks) == 16


def test_same_prompt_is_computed_once_but_for_its_last_token_s_block() -> None:
    engine = engine_with(blocks=16)
    names = tuple(range(3))
    for number in (1, 2):
        engine.add(BenchRequest(number, 12, 1, names))
        finish(engine)
    assert list(engine.segments.prefill) == [12, 4]
    assert list(engine.segments.cached) == [0, 8]
    assert (engine.blocks.queries, engine.blocks.hits) == (24, 8)


def test_without_prefix_caching_nothing_is_found() -> None:
    engine = engine_with(blocks=16, caching=False)
    for number in (1, 2):
        engine.add(BenchRequest(number, 12, 1, (1, 2, 3)))
        finish(engine)
    assert list(engine.segments.prefill) == [12, 12]
    assert (engine.blocks.queries, engine.blocks.hits) == (0, 0)


@pytest.mark.parametrize("under_way", [False, True])
def test_aborted_request_keeps_what_it_has(under_way: bool) -> None:
    engine = engine_with()
    request, other = BenchRequest(1, 4, 9), BenchRequest(2, 4, 4)
    engine.add(request)
    engine.add(other)
    steps(engine, 3)
    last_ns = engine.now_ns
    if under_way:
        engine.begin()
        engine.abort(request)
        assert engine.complete() == [other]
    else:
        engine.abort(request)
    assert request.generated == 3
    assert request.last_token_ns == last_ns
    # A step that was under way decoded for it, though nobody saw the token.
    assert request.decodes == [(1, 5, 2 + under_way)]
    finish(engine)
    assert request.generated == 3
    assert other.generated == 4
    assert engine.blocks.used == 0


def test_aborting_twice_or_after_the_end_changes_nothing() -> None:
    engine = engine_with()
    request = BenchRequest(1, 4, 2)
    engine.add(request)
    finish(engine)
    engine.abort(request)
    engine.abort(BenchRequest(2, 4, 2))
    assert (request.generated, engine.blocks.used) == (2, 0)


def test_request_aborted_while_waiting_is_never_computed() -> None:
    engine = engine_with(seqs=1)
    first, second = BenchRequest(1, 4, 3), BenchRequest(2, 4, 3)
    engine.add(first)
    engine.add(second)
    steps(engine, 1)
    engine.abort(second)
    finish(engine)
    assert second.chunks == []
    assert second.generated == 0


@pytest.mark.parametrize(("prompt", "output"), [(30, 3), (33, 1), (0, 4), (4, 0)])
def test_request_that_never_fits_is_refused(prompt: int, output: int) -> None:
    engine = engine_with(blocks=8, size=4)
    with pytest.raises(InputError, match="max_model_len"):
        engine.add(BenchRequest(1, prompt, output))
    assert not engine.has_work


def test_longest_request_just_fits() -> None:
    engine = engine_with(blocks=8, size=4)
    engine.add(BenchRequest(1, 30, 2))
    assert finish(engine) == 2


def test_rest_is_logged_without_a_gap_at_the_idle_power() -> None:
    engine = engine_with()
    engine.rest(3_500_000_000)
    log = engine.segments
    assert engine.now_ns == 3_500_000_000
    assert list(log.start_ns) == [0, *log.end_ns[:-1]]
    assert set(log.events) == {GPU_IDLE}
    assert set(log.sequences) == set(log.running) == {0}
    device = engine.physics.device
    assert log.gpu_w[0] == device.loaded_idle_w
    assert list(log.gpu_w) == sorted(log.gpu_w)
    assert log.gpu_w[-1] < device.loaded_idle_w + device.leakage_w_per_k * device.k_per_w * device.loaded_idle_w
    engine.rest(3_400_000_000)
    assert engine.now_ns == 3_500_000_000


def test_cold_rest_takes_the_power_given() -> None:
    engine = engine_with()
    engine.rest(10_000_000_000, engine.physics.device.cold_idle_w)
    assert set(engine.segments.gpu_w) == {engine.physics.device.cold_idle_w}


def test_hot_chip_is_slower_and_says_so() -> None:
    node = Node()
    hot = node.device.model_copy(update={"hot_c": 20.0})
    ends = {}
    for device in (node.device, hot):
        engine = BenchEngine(StepPhysics(device, node.shape, node.engine))
        engine.add(BenchRequest(1, 100, 1))
        ends[device.hot_c] = engine.begin()
        assert bool(engine.segments.events[-1] & THERMAL_SLOWDOWN) == (device is hot)
    assert ends[20.0] > ends[node.device.hot_c]
