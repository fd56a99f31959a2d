"""Configurations to estimate, as arrays: which model on which GPU under which load.

Missing inputs are NaN; an estimator that needs a missing input gives a reason instead of a number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference_energy.errors import InputError
from inference_energy.estimate.gpus import GpuSheet
from inference_energy.estimate.shapes.shape import Array, ModelShape, touched_share, windowed_pairs

Index = NDArray[np.intp]
T = TypeVar("T")


@dataclass(frozen=True)
class Cases:
    """Configurations; every array has shape (cases,).

    Attributes:
        shapes: the distinct models.
        model: index of each case's model in `shapes`.
        cards: the distinct GPUs.
        card: index of each case's GPU in `cards`.
        gpus: GPUs that serve one copy of the model together (tensor parallel).
        batch: mean running batch [requests].
        input_tokens: tokens per prompt.
        output_tokens: tokens per answer.
        context: mean context position of a decode step [tokens]: prompt plus half the answer, unless given.
        throughput: output tokens/s of all these GPUs together.
        ttft_s: time to first token.
    """

    shapes: tuple[ModelShape, ...]
    model: Index
    cards: tuple[GpuSheet, ...]
    card: Index
    gpus: Array
    batch: Array
    input_tokens: Array
    output_tokens: Array
    context: Array
    throughput: Array
    ttft_s: Array

    @classmethod
    def of(
        cls,
        models: Sequence[ModelShape],
        gpus: Sequence[GpuSheet],
        *,
        tensor_parallel: ArrayLike = 1,
        batch: ArrayLike = np.nan,
        input_tokens: ArrayLike = np.nan,
        output_tokens: ArrayLike = np.nan,
        context: ArrayLike = np.nan,
        throughput: ArrayLike = np.nan,
        ttft_s: ArrayLike = np.nan,
    ) -> "Cases":
        """Build cases from parallel sequences; a sequence of length one holds for all cases.

        Raises:
            InputError: a value is infinite, or below its lower bound.
        """
        inputs = {
            "tensor_parallel": tensor_parallel,
            "batch": batch,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "context": context,
            "throughput": throughput,
            "ttft_s": ttft_s,
        }
        arrays = {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in inputs.items()}
        for name, values in arrays.items():
            # NaN compares as False, so missing inputs pass.
            too_low = values < 0 if name in ("input_tokens", "context", "ttft_s") else values <= 0
            if np.any(too_low | np.isinf(values)):
                raise InputError(f"{name}: {values[too_low | np.isinf(values)][0]:g} cannot be; write a number above 0")
        count = max(len(models), len(gpus), *(len(values) for values in arrays.values()))
        shapes, model = _indexed(models, count)
        cards, card = _indexed(gpus, count)
        full = {name: np.broadcast_to(values, (count,)) for name, values in arrays.items()}
        position = full["input_tokens"] + full["output_tokens"] / 2
        return cls(
            shapes,
            model,
            cards,
            card,
            full["tensor_parallel"],
            full["batch"],
            full["input_tokens"],
            full["output_tokens"],
            np.where(np.isnan(full["context"]), position, full["context"]),
            full["throughput"],
            full["ttft_s"],
        )

    def __len__(self) -> int:
        return len(self.model)

    def of_model(self, value: Callable[[ModelShape], float]) -> Array:
        """Return a number of each case's model."""
        return np.array([value(shape) for shape in self.shapes], dtype=np.float64)[self.model]

    def of_gpu(self, value: Callable[[GpuSheet], float | None]) -> Array:
        """Return a number of each case's GPU; NaN if its data sheet has none."""
        figures = [value(gpu) for gpu in self.cards]
        return np.array([np.nan if figure is None else figure for figure in figures], dtype=np.float64)[self.card]

    @cached_property
    def active(self) -> Array:
        """Active parameters N."""
        return self.of_model(lambda shape: shape.active_parameters)

    @cached_property
    def tdp_w(self) -> Array:
        """TDP of one GPU [W]."""
        return self.of_gpu(lambda gpu: gpu.tdp_w)

    @cached_property
    def bandwidth(self) -> Array:
        """Memory bandwidth of one GPU [bytes/s]."""
        return self.of_gpu(lambda gpu: gpu.bandwidth_bytes_per_s)

    @cached_property
    def peak_flops(self) -> Array:
        """Dense peak of one GPU at the precision in which the model's weights are computed [1/s]."""
        table = np.array([[gpu.peak_flops(shape.weights.name) for gpu in self.cards] for shape in self.shapes])
        return np.asarray(table[self.model, self.card], dtype=np.float64)

    @cached_property
    def step_bytes(self) -> Array:
        """Bytes of weights that a decode step reads on all GPUs together, with the expected share of experts."""
        touched = touched_share(self.of_model(lambda shape: shape.expert_share), self.batch)
        return (
            self.of_model(lambda shape: shape.fixed_bytes) + self.of_model(lambda shape: shape.expert_bytes) * touched
        )

    @cached_property
    def kv_read_bytes(self) -> Array:
        """Bytes of the key-value cache that a decode step reads for one request."""
        seen = np.minimum(self.context, self.of_model(lambda shape: shape.window))
        full = self.of_model(lambda shape: shape.kv_bytes * shape.full.kv_elements)
        return full * self.context + self.of_model(lambda shape: shape.kv_bytes * shape.windowed.kv_elements) * seen

    @cached_property
    def prefill_flops(self) -> Array:
        """FLOPs of reading one prompt; 0 for a prompt of 0 tokens."""
        tokens = self.input_tokens
        pairs = windowed_pairs(tokens, self.of_model(lambda shape: shape.window))
        return (
            2.0 * self.of_model(lambda shape: shape.computed_parameters) * tokens
            + self.of_model(lambda shape: shape.full.pair_flops) * tokens**2 / 2
            + self.of_model(lambda shape: shape.windowed.pair_flops) * pairs
        )

    @cached_property
    def memory_share(self) -> Array:
        """Weights and cache as a share of the GPUs' memory; above 1 they do not fit. Unknown loads count as none."""
        used = self.of_model(lambda shape: shape.resident_bytes) + np.nan_to_num(self.batch * self.kv_resident_bytes)
        return used / (self.gpus * self.of_gpu(lambda gpu: gpu.memory_bytes))

    @cached_property
    def kv_resident_bytes(self) -> Array:
        """Bytes of the key-value cache that one request occupies: what a step reads, or that of all its tokens."""
        everything = self.of_model(lambda shape: shape.kv_bytes_per_token) * self.context
        return np.where(self.of_model(lambda shape: shape.keeps_all) > 0, everything, self.kv_read_bytes)

    @cached_property
    def most_tokens_per_s(self) -> Array:
        """Output tokens/s that no step can exceed on the data sheet: each token is computed, and each step reads.

        A step of B tokens reads the weights once and each request's cache, at the full bandwidth; without a batch the
        cache of each token alone bounds it. The computed weights take 2 FLOPs each at the highest dense peak. Decoding
        several tokens a step (speculation) can exceed the first bound and not the second.
        """
        highest = self.of_gpu(lambda gpu: max(gpu.bf16_flops, gpu.fp8_flops or 0.0, gpu.int8_flops or 0.0))
        by_compute = self.gpus * highest / (2.0 * self.of_model(lambda shape: shape.computed_parameters))
        read = np.where(np.isnan(self.batch), 0.0, self.step_bytes / self.batch) + np.nan_to_num(self.kv_read_bytes)
        with np.errstate(divide="ignore"):
            return np.asarray(np.fmin(by_compute, self.gpus * self.bandwidth / read), dtype=np.float64)


def _indexed(items: Sequence[T], count: int) -> tuple[tuple[T, ...], Index]:
    """Return the distinct items, and the index of each case's item among them."""
    index_of: dict[int, int] = {}
    unique: list[T] = []
    for item in items:
        if id(item) not in index_of:
            index_of[id(item)] = len(unique)
            unique.append(item)
    index = np.fromiter((index_of[id(item)] for item in items), dtype=np.intp, count=len(items))
    return tuple(unique), np.broadcast_to(index, (count,))
