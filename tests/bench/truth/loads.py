"""Random loads for engines, and a loop that drives an engine, with the reference beside it where wanted."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from inference_energy.bench.config import EngineSettings, Node
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest
from inference_energy.bench.truth.step import StepPhysics
from tests.bench.truth.reference import Item, ReferenceEngine

MOST_STEPS = 5000


@dataclass(frozen=True)
class Ask:
    """One request of a load: it arrives before step `step` begins; `family` shares the first `shared` blocks."""

    step: int
    prompt: int
    output: int
    family: int | None
    shared: int


@dataclass(frozen=True)
class Load:
    """What is asked of which engine; `aborts` are (step, whether while it is under way, which of those that live)."""

    settings: EngineSettings
    asks: tuple[Ask, ...]
    aborts: tuple[tuple[int, bool, int], ...] = ()
    rests: tuple[int, ...] = ()


@st.composite
def loads(draw: st.DrawFn, aborts: bool = True) -> Load:
    """Small engines under much pressure: few blocks, small budgets, shared prompts, aborts at any moment."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    blocks = draw(st.integers(2, 24))
    longest = blocks * size
    seqs = draw(st.integers(1, 8))
    settings = EngineSettings(
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs, 40)),
        block_size=size,
        num_gpu_blocks=blocks,
        max_model_len=longest,
        enable_prefix_caching=draw(st.integers(0, 5)) > 0,
    )

    def ask() -> Ask:
        prompt = draw(st.integers(1, max(1, min(longest - 1, 60))))
        output = draw(st.one_of(st.just(1), st.integers(1, longest - prompt)))
        family = draw(st.sampled_from([None, 0, 0, 1]))
        return Ask(draw(st.integers(0, 40)), prompt, output, family, draw(st.integers(0, 12)))

    asks = tuple(sorted((ask() for _ in range(draw(st.integers(1, 14)))), key=lambda ask: ask.step))
    moments = st.tuples(st.integers(0, 60), st.booleans(), st.integers(0, 13))
    return Load(
        settings,
        asks,
        tuple(draw(st.lists(moments, max_size=6))) if aborts else (),
        tuple(draw(st.lists(st.integers(0, 60), max_size=3))),
    )


def names_of(number: int, ask: Ask, size: int) -> tuple[int, ...]:
    """One name for each full block of the prompt: the first `shared` are those of its family."""
    if ask.family is None:
        return ()
    full = ask.prompt // size
    return tuple(
        1000 * (ask.family + 1) + place if place < ask.shared else 10**6 * (number + 1) + place for place in range(full)
    )


def physics_of(settings: EngineSettings, tensor_parallel: int = 1) -> StepPhysics:
    """An 8B model on H100s."""
    node = Node(engine=settings, tensor_parallel=tensor_parallel)
    return StepPhysics(node.device, node.shape, settings, tensor_parallel)


@dataclass
class Run:
    """An engine after a load, all its requests, and the reference's, in the same order."""

    engine: BenchEngine
    requests: list[BenchRequest] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    reference: ReferenceEngine | None = None

    @property
    def rows(self) -> int:
        return len(self.engine.segments)


ROW = ("decoding", "context", "prefill", "pairs", "sequences", "samples", "prompts", "cached", "preemptions")
STATE = ("running", "waiting", "blocks")


def run(load: Load, *, compare: bool = False, tensor_parallel: int = 1) -> Run:
    """Drive an engine until nothing is left to do, with the reference in step; `compare`: check that they agree."""
    engine = BenchEngine(physics_of(load.settings, tensor_parallel), start_ns=10**9)
    reference = ReferenceEngine(load.settings, load.settings.num_gpu_blocks or 0)
    done = Run(engine, reference=reference)
    asks = list(load.asks)

    def abort(step: int, under_way: bool) -> None:
        for when, while_under_way, which in load.aborts:
            if (when, while_under_way) == (step, under_way) and which < len(done.requests):
                engine.abort(done.requests[which])
                reference.abort(done.items[which])
                if compare:
                    check_state(done)

    for moment in range(MOST_STEPS):
        while asks and asks[0].step <= moment:
            ask, number = asks.pop(0), len(done.requests)
            names = names_of(number, ask, load.settings.block_size)
            done.requests.append(BenchRequest(number, ask.prompt, ask.output, names))
            done.items.append(Item(number, ask.prompt, ask.output, names))
            engine.add(done.requests[-1])
            reference.add(done.items[-1])
        abort(moment, under_way=False)
        if moment in load.rests or not engine.has_work:
            if not engine.has_work and not asks:
                return done
            engine.rest(engine.now_ns + 30_000_000)
        if not engine.has_work:
            continue
        end_ns = engine.begin()
        row = reference.begin()
        if compare:
            check_row(done, row)
            check_state(done)
        abort(moment, under_way=True)
        changed, expected = engine.complete(), reference.complete(end_ns)
        if compare:
            assert sorted(r.request_id for r in changed) == sorted(item.number for item in expected)
            check_state(done)
    raise AssertionError("the load does not end")


def check_row(done: Run, row: dict[str, float]) -> None:
    """The log's last row is what the reference says."""
    log = done.engine.segments
    assert {name: getattr(log, name)[-1] for name in ROW + STATE} == row
    assert log.start_ns[-1] == (log.end_ns[-2] if len(log) > 1 else 10**9)
    assert log.end_ns[-1] == done.engine.now_ns > log.start_ns[-1]


def check_state(done: Run) -> None:
    """Engine and reference are in the same state."""
    engine, reference = done.engine, done.reference
    assert reference is not None
    assert list(engine.running) == [item.number for item in reference.running]
    assert [r.request_id for r in engine.waiting] == [item.number for item in reference.waiting]
    assert engine.blocks.used == reference.used
    decoding = [item.number for item in reference.running if item.decodes_now]
    assert [r.request_id for r in engine.decoding()] == decoding
    for request, item in zip(done.requests, done.items, strict=True):
        assert engine.generated(request) == item.made
        assert request.preemptions == item.preemptions
        assert request.first_token_ns == item.first_ns
        # The engine looks at it only when it leaves or begins to decode.
        if item.number not in decoding:
            assert request.last_token_ns == item.last_ns
            assert request.generated == item.made
    assert (engine.blocks.queries, engine.blocks.hits) == (reference.queries, reference.hits)
