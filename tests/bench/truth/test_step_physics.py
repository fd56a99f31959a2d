"""Time and power of a step: what must hold for every device and model."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference_energy.bench.config import EngineSettings, Node
from inference_energy.bench.hardware import DEVICES, SHAPES
from inference_energy.bench.truth.step import StepPhysics
from inference_energy.errors import InputError

SHORT = EngineSettings(max_model_len=512)


def fits(gpu: str, model: str, parts: int) -> bool:
    try:
        StepPhysics(DEVICES[gpu], SHAPES[model], SHORT, parts)
    except InputError:
        return False
    return True


NODES = [node for node in itertools.product(DEVICES, SHAPES, (1, 4)) if fits(*node)]
PHYSICS = st.sampled_from(NODES).map(lambda node: StepPhysics(DEVICES[node[0]], SHAPES[node[1]], SHORT, node[2]))
LEAKAGE_W = st.floats(0, 10)


def decode(physics: StepPhysics, batch: int, context: int, leakage_w: float = 0.0) -> tuple[float, float, bool]:
    """A step in which `batch` requests of `context` tokens each get a token."""
    return physics.cost(batch, batch * context, 0, 0.0, batch, batch, leakage_w)


def prefill(physics: StepPhysics, tokens: int, leakage_w: float = 0.0) -> tuple[float, float, bool]:
    """A step that computes one prompt."""
    return physics.cost(0, 0, tokens, 0.5 * tokens * (tokens + 1), 1, 1, leakage_w)


def llama(parts: int = 1, **changes: float) -> StepPhysics:
    node = Node()
    return StepPhysics(node.device.model_copy(update=changes), node.shape, node.engine, parts)


def test_each_device_serves_some_model() -> None:
    assert {gpu for gpu, _, _ in NODES} == set(DEVICES)
    assert {model for _, model, _ in NODES} == set(SHAPES)


@given(PHYSICS, st.integers(1, 512), st.integers(1, 8192), LEAKAGE_W)
def test_larger_batch_takes_no_less_time_and_no_more_energy_a_token(
    physics: StepPhysics, batch: int, context: int, leakage_w: float
) -> None:
    one, more = decode(physics, batch, context, leakage_w), decode(physics, batch + 1, context, leakage_w)
    assert more[0] >= one[0]
    assert more[0] * more[1] / (batch + 1) <= one[0] * one[1] / batch * (1 + 1e-12)
    assert more[0] * more[1] > one[0] * one[1]


@given(PHYSICS, st.integers(0, 64), st.integers(1, 4096), st.integers(0, 4096), st.integers(0, 4096), LEAKAGE_W)
def test_more_work_takes_more_time_and_energy(
    physics: StepPhysics, batch: int, context: int, tokens: int, further: int, leakage_w: float
) -> None:
    assume(batch or tokens)

    def step(tokens: int, context: int) -> tuple[float, float, bool]:
        pairs = 0.5 * tokens * (tokens + 1)
        sequences = batch + bool(tokens)
        return physics.cost(batch, batch * context, tokens, pairs, sequences, sequences, leakage_w)

    base = step(tokens, context)
    for more in (step(tokens + further, context), step(tokens, context + further)):
        assert more[0] >= base[0]
        assert more[0] * more[1] >= base[0] * base[1] * (1 - 1e-12)


@given(PHYSICS, st.integers(0, 512), st.integers(1, 8192), st.integers(0, 16384), LEAKAGE_W)
def test_power_stays_between_idle_and_the_limit(
    physics: StepPhysics, batch: int, context: int, tokens: int, leakage_w: float
) -> None:
    assume(batch or tokens)
    device = physics.device
    pairs = 0.5 * tokens * (tokens + 1)
    sequences = batch + bool(tokens)
    duration_s, power_w, capped = physics.cost(batch, batch * context, tokens, pairs, sequences, sequences, leakage_w)
    assert duration_s > 0
    assert min(device.busy_w, device.gap_w) + leakage_w < power_w <= device.power_limit_w
    assert capped == (power_w == device.power_limit_w)


@pytest.mark.parametrize("leakage_w", [0.0, 8.0])
def test_cap_binds_for_a_heavy_prefill_and_costs_time_at_the_floor(leakage_w: float) -> None:
    free, capped = llama(power_limit_w=5000.0), llama(power_limit_w=450.0)
    duration_s, power_w, bound = prefill(free, 8192, leakage_w)
    longer_s, limit_w, bound_too = prefill(capped, 8192, leakage_w)
    assert not bound
    assert bound_too
    assert limit_w == 450.0 < power_w
    assert longer_s > duration_s
    # Its bytes and FLOPs cost what they cost; all that is added is time at the busy floor.
    added_j = (capped.device.busy_w + leakage_w) * (longer_s - duration_s)
    assert longer_s * limit_w == pytest.approx(duration_s * power_w + added_j, rel=1e-12)


def test_cap_begins_without_a_jump() -> None:
    _, power_w, _ = prefill(llama(power_limit_w=5000.0), 4096)
    at, below = llama(power_limit_w=power_w), llama(power_limit_w=power_w * (1 - 1e-9))
    assert not prefill(at, 4096)[2]
    assert prefill(below, 4096)[2]
    assert prefill(below, 4096)[0] == pytest.approx(prefill(at, 4096)[0], rel=1e-6)


def test_single_request_is_bound_by_memory_and_leaves_power_free() -> None:
    physics = llama(exposed_share=0.0)
    device, host_s = physics.device, physics.engine.step_host_s + physics.engine.sequence_host_s
    duration_s, power_w, capped = decode(physics, 1, 128)
    assert not capped
    assert power_w < device.power_limit_w
    moved = physics.step_bytes + 128 * physics.kv_bytes
    memory_s = moved / (device.bandwidth_bytes_per_s * device.memory_share)
    assert duration_s == pytest.approx(memory_s + host_s, rel=1e-12)


def test_empty_batch_costs_what_the_weights_cost() -> None:
    """The limit of no work: weights are read, the host takes its time, and nothing else is left."""
    physics = llama()
    device, host_s = physics.device, physics.engine.step_host_s
    weights_s = physics.step_bytes / (device.bandwidth_bytes_per_s * device.memory_share)
    energy_j = device.byte_j * physics.step_bytes + device.busy_w * weights_s + device.gap_w * host_s
    for leakage_w in (0.0, 5.0):
        duration_s, power_w, _ = physics.cost(0, 0, 0, 0.0, 0, 0, leakage_w)
        assert duration_s == pytest.approx(weights_s + host_s, rel=1e-12)
        assert power_w * duration_s == pytest.approx(energy_j + leakage_w * duration_s, rel=1e-12)


def test_large_prefill_is_bound_by_compute() -> None:
    physics = llama(power_limit_w=5000.0, exposed_share=0.0)
    device, tokens = physics.device, 8000
    flops = physics.token_flops * tokens + physics.pair_flops * tokens * (tokens + 1) / 2 + physics.sample_flops
    compute_s = flops / (device.peak_flops * device.flop_share)
    host_s = physics.engine.step_host_s + physics.engine.sequence_host_s
    assert prefill(physics, tokens)[0] == pytest.approx(compute_s + host_s, rel=1e-12)


def test_keys_and_values_are_read_for_contexts_and_written_for_prompts() -> None:
    """With free FLOPs, a token of context and a token of a prompt move the same bytes."""
    physics = llama(exposed_share=0.0, flop_j=0.0, thin_flop_j=0.0)
    device = physics.device
    base = physics.cost(1, 100, 1, 0.0, 2, 2, 0.0)
    for more in (physics.cost(1, 150, 1, 0.0, 2, 2, 0.0), physics.cost(1, 100, 51, 0.0, 2, 2, 0.0)):
        moved_s = 50 * physics.kv_bytes / (device.bandwidth_bytes_per_s * device.memory_share)
        assert more[0] - base[0] == pytest.approx(moved_s, rel=1e-6)
        moved_j = 50 * physics.kv_bytes * device.byte_j + device.busy_w * moved_s
        assert more[0] * more[1] - base[0] * base[1] == pytest.approx(moved_j, rel=1e-6)


def test_shorter_time_is_exposed_by_its_share() -> None:
    physics = {share: llama(power_limit_w=5000.0, exposed_share=share) for share in (0.0, 0.5, 1.0)}
    for step in (lambda p: prefill(p, 4000)[0], lambda p: decode(p, 8, 500)[0]):
        nothing, half, all_ = (step(physics[share]) for share in (0.0, 0.5, 1.0))
        assert nothing < all_
        assert half == pytest.approx((nothing + all_) / 2, rel=1e-12)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_gpus_share_weights_keys_and_flops(parts: int) -> None:
    one, many = llama(), llama(parts)
    for name in ("step_bytes", "kv_bytes", "token_flops", "sample_flops", "pair_flops"):
        assert getattr(many, name) * parts == pytest.approx(getattr(one, name), rel=1e-12)
    # The dynamic energy of all GPUs is that of one; it shows where floors, latency and heat are taken away.
    bare = {"busy_w": 0.0, "gap_w": 0.0, "power_limit_w": 5000.0}
    for step in (lambda p: decode(p, 16, 500), lambda p: prefill(p, 1000)):
        alone_s, alone_w, _ = step(llama(**bare))
        shared_s, shared_w, _ = step(llama(parts, **bare))
        assert parts * shared_s * shared_w == pytest.approx(alone_s * alone_w, rel=1e-9)
        assert alone_s / parts < shared_s < alone_s


def test_gpus_wait_for_each_other() -> None:
    fast, slow = llama(4, reduce_latency_s=0.0), llama(4, reduce_latency_s=20e-6)
    reduces = 2 * Node().shape.layers
    assert decode(slow, 1, 100)[0] - decode(fast, 1, 100)[0] == pytest.approx(reduces * 20e-6, rel=1e-9)
    alone = llama(1, reduce_latency_s=20e-6)
    assert decode(alone, 1, 100)[0] == decode(llama(1, reduce_latency_s=0.0), 1, 100)[0]
    node = Node()
    link = llama(4, link_bytes_per_s=1e9), llama(4, link_bytes_per_s=1e18)
    # A ring sends 2 (n - 1) / n of each activation, 2 bytes each.
    sent_s = reduces * 64 * node.shape.hidden * 2 * 2 * 3 / 4 / 1e9
    assert decode(link[0], 64, 100)[0] - decode(link[1], 64, 100)[0] == pytest.approx(sent_s, rel=1e-6)


def test_model_that_is_too_large_is_refused_with_a_way_out() -> None:
    node = Node(model="llama-3.1-70b")
    with pytest.raises(InputError, match=r"llama-3\.1-70b on 1 x .*larger tensor_parallel"):
        StepPhysics(node.device, node.shape, node.engine)
    assert StepPhysics(node.device, node.shape, node.engine, 4).blocks > 0
    with pytest.raises(InputError, match="smaller max_model_len"):
        StepPhysics(node.device, node.shape, EngineSettings(max_model_len=10**7), 4)
    # A number of blocks does not make room for weights.
    with pytest.raises(InputError, match="larger tensor_parallel"):
        StepPhysics(node.device, node.shape, EngineSettings(num_gpu_blocks=1000))


def test_blocks_fill_the_memory_beside_the_weights() -> None:
    node = Node()
    physics = StepPhysics(node.device, node.shape, node.engine)
    taken = node.shape.resident_bytes + physics.blocks * node.engine.block_size * node.shape.kv_bytes_per_token
    usable = node.device.memory_bytes * node.engine.gpu_memory_utilization
    assert 0.9 * usable < taken <= usable
    half = node.engine.model_copy(update={"gpu_memory_utilization": 0.5})
    assert StepPhysics(node.device, node.shape, half).blocks < physics.blocks


def test_number_of_blocks_must_hold_the_longest_request_and_fit() -> None:
    node = Node()

    def blocks(number: int, longest: int) -> int:
        settings_ = EngineSettings(num_gpu_blocks=number, max_model_len=longest)
        return StepPhysics(node.device, node.shape, settings_).blocks

    assert blocks(10, 160) == 10
    with pytest.raises(InputError, match="num_gpu_blocks"):
        blocks(10, 161)
    with pytest.raises(InputError, match=r"num_gpu_blocks: \d+ fit"):
        blocks(10**6, 160)


def test_power_limit_below_the_floor_is_refused() -> None:
    node = Node()
    floor_w = node.device.busy_w
    with pytest.raises(InputError, match="power_limit_w"):
        llama(power_limit_w=floor_w + 1.0)
    physics = llama(power_limit_w=floor_w + 20.0)
    leakage_w = physics.device.leakage_w_per_k * physics.device.k_per_w * (floor_w + 20.0)
    duration_s, power_w, capped = prefill(physics, 8192, leakage_w)
    assert capped
    assert 0 < duration_s < 60
    assert power_w == floor_w + 20.0
