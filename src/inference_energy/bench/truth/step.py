"""Time, power and heat of one engine step, by a roofline with an energy for each byte and each FLOP.

    t = max(t_memory, t_compute) + exposed * min(t_memory, t_compute) + t_reduce + t_host
    E = busy_w t_gpu + gap_w t_host + byte_j * bytes + flop_j * FLOPs + leakage t      (each GPU)

FLOPs of decoding and sampling, whose matrices are thin, cost `thin_flop_j` instead of `flop_j`.

A step reads all weights once, whatever its batch, and the keys and values of every context in it. Where E / t would
exceed the power limit, the step takes longer instead: the cost of its bytes and FLOPs stays the same. Roofline:
Williams, Waterman, Patterson, CACM 52(4), 2009. Energy roofline: Choi, Bedard, Fowler, Vuduc, IPDPS 2013. Temperature
and leakage follow a first-order model.
"""

import math

from inference_energy.bench.config import EngineSettings
from inference_energy.bench.hardware import BenchModelShape, Device
from inference_energy.errors import InputError

ACTIVATION_BYTES = 2.0
REDUCES_PER_LAYER = 2
HOT_STRETCH_PER_K = 0.03


class StepPhysics:
    """Cost of a step for one model on `tensor_parallel` GPUs of one kind.

    Args:
        device: the GPU.
        shape: the model.
        engine: the engine's settings.
        tensor_parallel: GPUs that share the model.

    Raises:
        InputError: the model or its longest context does not fit into the GPUs' memory, or the power limit is below
            what a GPU draws whatever it computes.
    """

    def __init__(
        self, device: Device, shape: BenchModelShape, engine: EngineSettings, tensor_parallel: int = 1
    ) -> None:
        self.device = device
        self.shape = shape
        self.engine = engine
        self.tensor_parallel = tensor_parallel
        parts = float(tensor_parallel)
        self.step_bytes = shape.step_bytes / parts
        self.kv_bytes = shape.kv_bytes_per_token / parts
        self.token_flops = shape.flops_per_token / parts
        self.sample_flops = shape.flops_per_sample / parts
        self.pair_flops = shape.flops_per_pair / parts
        self._s_per_byte = 1.0 / (device.bandwidth_bytes_per_s * device.memory_share)
        self._s_per_flop = 1.0 / (device.peak_flops * device.flop_share)
        sent = ACTIVATION_BYTES * shape.hidden * 2 * (parts - 1) / parts
        reduces = REDUCES_PER_LAYER * shape.layers if tensor_parallel > 1 else 0
        self._reduce_s = reduces * device.reduce_latency_s
        self._reduce_s_per_token = reduces * sent / device.link_bytes_per_s
        self.blocks = self._blocks_that_fit()
        self._check_power_limit()

    def cost(
        self, decoding: int, context: int, prefill: int, pairs: float, sequences: int, samples: int, leakage_w: float
    ) -> tuple[float, float, bool]:
        """Return the duration [s], the power of each GPU [W], and whether the power limit stretched the step.

        Args:
            decoding: requests that get one token each.
            context: sum of their contexts [tokens], the new token included.
            prefill: prompt tokens computed.
            pairs: pairs of a prompt token and a token it attends to.
            sequences: requests in the step.
            samples: positions that are sampled.
            leakage_w: power that leaks because of heat.
        """
        device = self.device
        moved = self.step_bytes + self.kv_bytes * (context + prefill)
        thin_flops = self.token_flops * decoding + self.sample_flops * samples + self.pair_flops * context
        wide_flops = self.token_flops * prefill + self.pair_flops * pairs
        memory_s = moved * self._s_per_byte
        compute_s = (thin_flops + wide_flops) * self._s_per_flop
        gpu_s = (
            memory_s + device.exposed_share * compute_s
            if memory_s > compute_s
            else compute_s + device.exposed_share * memory_s
        )
        gpu_s += self._reduce_s + self._reduce_s_per_token * (decoding + prefill)
        host_s = self.engine.step_host_s + self.engine.sequence_host_s * sequences
        dynamic_j = device.byte_j * moved + device.flop_j * wide_flops + device.thin_flop_j * thin_flops
        static_j = device.busy_w * gpu_s + device.gap_w * host_s
        duration_s = gpu_s + host_s
        power_w = (static_j + dynamic_j) / duration_s + leakage_w
        if power_w <= device.power_limit_w:
            return duration_s, power_w, False
        # More time at the busy floor until the mean falls to the limit.
        spare_w = device.power_limit_w - device.busy_w - leakage_w
        duration_s = (dynamic_j + (device.gap_w - device.busy_w) * host_s) / spare_w
        return duration_s, device.power_limit_w, True

    def _check_power_limit(self) -> None:
        """Check the power limit: it is kept by spending more time at the busy floor, so it must be above the floor."""
        device = self.device
        # Leakage is largest when a GPU has drawn its limit for a long time.
        leakage_w = device.leakage_w_per_k * device.k_per_w * max(0.0, device.power_limit_w - device.cold_idle_w)
        floor_w = device.busy_w + leakage_w
        if device.power_limit_w <= floor_w:
            raise InputError(
                f"bench: power_limit_w: a busy {device.label} draws {floor_w:.0f} W whatever it computes; "
                f"write more than that, not {device.power_limit_w:g}"
            )

    def _blocks_that_fit(self) -> int:
        """Return the blocks that fit beside the weights, by vLLM's rule: memory times the share it may use."""
        device, engine, parts = self.device, self.engine, self.tensor_parallel
        usable = device.memory_bytes * engine.gpu_memory_utilization - self.shape.resident_bytes / parts
        blocks = int(usable * 0.96 / (self.kv_bytes * engine.block_size))
        if blocks * engine.block_size < engine.max_model_len:
            gib = self.shape.resident_bytes / parts / 2**30
            raise InputError(
                f"bench: {self.shape.name} on {parts} x {device.label}: {gib:.1f} GiB of weights a GPU and a context "
                f"of {engine.max_model_len} tokens do not fit; take a larger tensor_parallel, fewer bytes a weight, "
                "or a smaller max_model_len"
            )
        stated = engine.num_gpu_blocks
        if stated is None:
            return blocks
        if stated * engine.block_size < engine.max_model_len:
            raise InputError(
                f"bench: engine.num_gpu_blocks: {stated} blocks of {engine.block_size} tokens do not hold a context of "
                f"{engine.max_model_len} tokens; write a larger number, or a smaller max_model_len"
            )
        if stated > blocks:
            raise InputError(f"bench: engine.num_gpu_blocks: {blocks} fit beside the weights; write no more than that")
        return stated


class Thermal:
    """Temperature of one GPU; all GPUs of a tensor-parallel group share it, since they do the same.

    Attributes:
        temperature_c: present temperature.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.rest_c = device.ambient_c + device.k_per_w * device.cold_idle_w
        self.temperature_c = self.rest_c

    @property
    def leakage_w(self) -> float:
        """Power above that of a chip at the temperature of cold idle."""
        return self._device.leakage_w_per_k * (self.temperature_c - self.rest_c)

    def advance(self, duration_s: float, power_w: float) -> None:
        """Advance the temperature over a stretch of constant power."""
        target_c = self._device.ambient_c + self._device.k_per_w * power_w
        self.temperature_c += (target_c - self.temperature_c) * (
            1.0 - math.exp(-duration_s / self._device.thermal_time_s)
        )
