"""The engine's sums, step for step, against an engine that keeps lists."""

import pytest
from hypothesis import given, settings

from inference_energy.bench.truth.ledger import BenchRequest
from tests.bench.truth.loads import Load, Run, loads, run

pytestmark = pytest.mark.slow


def assert_empty(done: Run) -> None:
    """Nothing is left of what was asked, and nothing of it can come back."""
    engine = done.engine
    assert not engine.has_work
    assert not engine.busy
    assert engine.decoding() == []
    assert (engine._decoding, engine._context, engine.blocks.used) == (0, 0, 0)
    assert engine.blocks.free == engine.blocks.total
    assert not any(engine._phases)
    assert engine._prefilling == []
    assert engine._joining == []
    # Entries of requests that lost their turn stay until their step comes; none of them is anyone's turn.
    assert all(request.finish_step != finish for finish, _, request in engine._finishing)


@given(loads())
@settings(max_examples=1500)
def test_engine_does_what_the_reference_does(load: Load) -> None:
    done = run(load, compare=True)
    assert_empty(done)
    assert sum(r.preemptions for r in done.requests) == done.engine.preemptions


@given(loads(aborts=False))
@settings(max_examples=200)
def test_every_request_gets_all_its_tokens(load: Load) -> None:
    done = run(load)
    assert_empty(done)
    for request in done.requests:
        assert request.finished
        assert request.generated == request.output_tokens
        assert sum(count for _, _, count in request.decodes) + request.prefills == request.output_tokens
        assert 0 < request.first_token_ns <= request.last_token_ns
    log = done.engine.segments
    assert sum(log.samples) == sum(request.output_tokens for request in done.requests)
    assert sum(log.prompts) == sum(request.prompt_tokens for request in done.requests)


@given(loads())
@settings(max_examples=200)
def test_an_engine_that_has_ended_all_serves_anew(load: Load) -> None:
    done = run(load)
    engine = done.engine
    engine.blocks.clear()
    again = BenchRequest(10**6, 1, load.settings.max_model_len - 1)
    engine.add(again)
    steps = 0
    while engine.has_work:
        engine.begin()
        engine.complete()
        steps += 1
    assert steps == again.output_tokens == again.generated
    assert_empty(done)
