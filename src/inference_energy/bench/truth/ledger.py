"""Log of an engine and its energy ledger: what ran in each stretch of time, and which request caused which joule.

Of a step's energy, on all GPUs of the group, each request gets
    its own FLOPs (its tokens, its sampled position, its pairs of tokens) at `flop_j` or `thin_flop_j`,
    its own keys and values at `byte_j`,
    an equal part of the rest (weights, floor, leakage, waiting for the host), as long as it is in the step.
Energy at rest belongs to no request. Where the power limit stretched a step, its rest is larger. Every joule is given
out once, so the requests' energies and the rest add up to the node's. The rule is a convention, as every split of a
shared cost is; its sum is known and conserved.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference_energy.bench.truth.step import StepPhysics

POWER_CAP = 0x4
THERMAL_SLOWDOWN = 0x20
GPU_IDLE = 0x1
"""NVML's bits of clocks event reasons: SwPowerCap, SwThermalSlowdown, GpuIdle."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_INTEGER_COLUMNS = (
    "start_ns",
    "end_ns",
    "decoding",
    "context",
    "prefill",
    "sequences",
    "samples",
    "prompts",
    "cached",
    "preemptions",
    "running",
    "waiting",
    "blocks",
    "events",
)
_FLOAT_COLUMNS = ("pairs", "gpu_w", "host_w", "temperature_c")


@dataclass(slots=True, eq=False)
class BenchRequest:
    """A request as the engine sees it, and how far it has been computed.

    Attributes:
        request_id: number within the bench.
        prompt_tokens: length of the prompt.
        output_tokens: number of tokens that will be generated.
        block_hashes: one value for each full block of the prompt, equal only where all tokens up to it are equal;
            empty where nothing may be reused.
        arrival_ns: when the server got it.
        cached_tokens: prompt tokens taken from the prefix cache at its first admission.
        generated: tokens generated up to its last event; while it decodes, see `BenchEngine.generated`.
        first_token_ns, last_token_ns: ends of the steps that generated them; 0 before.
        chunks: prefill computed for it: (step, tokens, pairs of token and earlier token).
        decodes: stretches of decoding that have ended: (first step, context in that step, steps).
        prefills: completed prefills, each of which sampled a token.
        preemptions: number of times it lost its blocks.
    """

    request_id: int
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    arrival_ns: int = 0
    cached_tokens: int = 0
    generated: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    preemptions: int = 0
    prefills: int = 0
    chunks: list[tuple[int, int, float]] = field(default_factory=list)
    decodes: list[tuple[int, int, int]] = field(default_factory=list)
    # Used by the engine alone: tokens computed, tokens to compute before decoding, step before the first that decodes,
    # last step.
    computed: int = 0
    target: int = 0
    joined_step: int = -1
    finish_step: int = -1

    @property
    def finished(self) -> bool:
        """Whether all its tokens are there."""
        return self.generated >= self.output_tokens


class Segments:
    """Log of an engine: one row for each stretch of time in which nothing changed, a step or a rest.

    Attributes:
        start_ns, end_ns: time of the stretch; each begins where the one before ended.
        decoding, context, prefill, pairs, sequences, samples: what a step computed, as in `StepPhysics.cost`; all 0 at
            rest.
        prompts, cached: tokens of the prompts whose first token the step made, and those of them from the cache.
        preemptions: requests that lost their blocks when the step began.
        running, waiting, blocks: the engine's state during it.
        gpu_w: power of each GPU.
        host_w: power of the CPU packages.
        temperature_c: temperature of the GPUs at the end.
        events: bits of NVML's clocks event reasons.
    """

    def __init__(self) -> None:
        for name in _INTEGER_COLUMNS:
            setattr(self, name, array("q"))
        for name in _FLOAT_COLUMNS:
            setattr(self, name, array("d"))

    start_ns: "array[int]"
    end_ns: "array[int]"
    decoding: "array[int]"
    context: "array[int]"
    prefill: "array[int]"
    sequences: "array[int]"
    samples: "array[int]"
    prompts: "array[int]"
    cached: "array[int]"
    preemptions: "array[int]"
    running: "array[int]"
    waiting: "array[int]"
    blocks: "array[int]"
    events: "array[int]"
    pairs: "array[float]"
    gpu_w: "array[float]"
    host_w: "array[float]"
    temperature_c: "array[float]"

    def __len__(self) -> int:
        return len(self.end_ns)

    def rest(self, start_ns: int, end_ns: int, gpu_w: float, host_w: float, temperature_c: float) -> None:
        """Append a stretch without a step."""
        values: dict[str, float] = {
            "start_ns": start_ns,
            "end_ns": end_ns,
            "events": GPU_IDLE,
            "gpu_w": gpu_w,
            "host_w": host_w,
            "temperature_c": temperature_c,
        }
        for name in (*_INTEGER_COLUMNS, *_FLOAT_COLUMNS):
            getattr(self, name).append(values.get(name, 0))

    def integers(self, name: str) -> Integers:
        """Return a column of integers, shape (rows,)."""
        return np.array(getattr(self, name), dtype=np.int64)

    def floats(self, name: str) -> Floats:
        """Return a column, shape (rows,)."""
        return np.array(getattr(self, name), dtype=np.float64)


@dataclass(frozen=True)
class Ledger:
    """True energies in J, of all GPUs of one engine.

    Attributes:
        prefill_j, decode_j: energies of each request, shape (requests,), in the order given.
        rest_j: energy while no step ran.
        total_j: energy of the engine.
    """

    prefill_j: Floats
    decode_j: Floats
    rest_j: float
    total_j: float


def ledger(segments: Segments, requests: Sequence[BenchRequest], physics: StepPhysics) -> Ledger:
    """Split the energy of an engine's log.

    Args:
        segments: the log.
        requests: all requests the engine ever computed for, each out of the engine (finished or aborted).
        physics: the engine's physics.
    """
    duration_s = (segments.integers("end_ns") - segments.integers("start_ns")) / 1e9
    energy_j = physics.tensor_parallel * segments.floats("gpu_w") * duration_s
    in_step = segments.integers("sequences") > 0
    steps = {name: segments.integers(name)[in_step] for name in ("decoding", "context", "prefill", "samples")}
    sequences = segments.integers("sequences")[in_step]
    pairs = segments.floats("pairs")[in_step]
    costs = _Costs(physics)
    own_j = (
        costs.thin_token_j * steps["decoding"]
        + costs.token_j * steps["prefill"]
        + costs.sample_j * steps["samples"]
        + costs.thin_pair_j * steps["context"]
        + costs.pair_j * pairs
        + costs.kv_j * (steps["context"] + steps["prefill"])
    )
    shared_j = (energy_j[in_step] - own_j) / sequences
    shared_until_j = np.concatenate(([0.0], np.cumsum(shared_j)))
    prefill_j, decode_j = np.zeros(len(requests)), np.zeros(len(requests))
    for index, request in enumerate(requests):
        prefill_j[index] = _prefill_j(request, shared_j, costs)
        decode_j[index] = _decode_j(request, shared_until_j, costs)
    return Ledger(prefill_j, decode_j, float(energy_j[~in_step].sum()), float(energy_j.sum()))


class _Costs:
    """Energy of one token, sampled position, pair and token of keys and values, over all GPUs."""

    def __init__(self, physics: StepPhysics) -> None:
        parts, device = physics.tensor_parallel, physics.device
        self.token_j = parts * physics.token_flops * device.flop_j
        self.pair_j = parts * physics.pair_flops * device.flop_j
        self.thin_token_j = parts * physics.token_flops * device.thin_flop_j
        self.thin_pair_j = parts * physics.pair_flops * device.thin_flop_j
        self.sample_j = parts * physics.sample_flops * device.thin_flop_j
        self.kv_j = parts * physics.kv_bytes * device.byte_j


def _prefill_j(request: BenchRequest, shared_j: Floats, costs: _Costs) -> float:
    energy_j = 0.0
    for step, tokens, pairs in request.chunks:
        energy_j += shared_j[step] + tokens * (costs.token_j + costs.kv_j) + pairs * costs.pair_j
    return energy_j + costs.sample_j * request.prefills


def _decode_j(request: BenchRequest, shared_until_j: Floats, costs: _Costs) -> float:
    energy_j = 0.0
    for first, context, count in request.decodes:
        contexts = count * context + count * (count - 1) // 2
        energy_j += shared_until_j[first + count] - shared_until_j[first]
        energy_j += count * (costs.thin_token_j + costs.sample_j) + contexts * (costs.thin_pair_j + costs.kv_j)
    return energy_j


def step_ends_ns(segments: Segments) -> Integers:
    """Return the end of each step, shape (steps,): token k of a stretch of decoding exists from the end of its step."""
    return segments.integers("end_ns")[segments.integers("sequences") > 0]
