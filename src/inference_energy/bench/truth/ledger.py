"""Who caused which joule: the true energy of each request, and what no request caused.

Of a step's energy, on all GPUs of the group, each request gets
    its own FLOPs (its tokens, its sampled position, its pairs of tokens) at `flop_j` or `thin_flop_j`,
    its own keys and values at `byte_j`,
    an equal part of the rest (weights, floor, heat, waiting for the host), as long as it is in the step.
Energy at rest belongs to no request. Where the power limit stretched a step, its rest is larger. Every joule is given
out once, so the requests' energies and the rest add up to the node's. The rule is a convention, as every split of a
shared cost is; what it must be is known and conserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference_energy.bench.truth.request import Request
from inference_energy.bench.truth.segments import Floats, Integers, Segments
from inference_energy.bench.truth.step import StepPhysics


@dataclass(frozen=True)
class Ledger:
    """True energies in J, of all GPUs of one engine.

    Attributes:
        prefill_j, decode_j: of each request, shape (requests,), in the order given.
        rest_j: what was used while no step ran.
        total_j: the engine's energy.
    """

    prefill_j: Floats
    decode_j: Floats
    rest_j: float
    total_j: float


def ledger(segments: Segments, requests: Sequence[Request], physics: StepPhysics) -> Ledger:
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
    for place, request in enumerate(requests):
        prefill_j[place] = _prefill_j(request, shared_j, costs)
        decode_j[place] = _decode_j(request, shared_until_j, costs)
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


def _prefill_j(request: Request, shared_j: Floats, costs: _Costs) -> float:
    energy_j = 0.0
    for step, tokens, pairs in request.chunks:
        energy_j += shared_j[step] + tokens * (costs.token_j + costs.kv_j) + pairs * costs.pair_j
    return energy_j + costs.sample_j * request.prefills


def _decode_j(request: Request, shared_until_j: Floats, costs: _Costs) -> float:
    energy_j = 0.0
    for first, context, count in request.decodes:
        contexts = count * context + count * (count - 1) // 2
        energy_j += shared_until_j[first + count] - shared_until_j[first]
        energy_j += count * (costs.thin_token_j + costs.sample_j) + contexts * (costs.thin_pair_j + costs.kv_j)
    return energy_j


def step_ends_ns(segments: Segments) -> Integers:
    """When each step ended, shape (steps,): token k of a stretch of decoding is there at the end of its step."""
    return segments.integers("end_ns")[segments.integers("sequences") > 0]
