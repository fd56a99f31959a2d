"""One configuration with round numbers, and cases made of it."""

from typing import Any

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration, parse_calibration
from inference_energy.estimate.estimator import Basis
from inference_energy.estimate.gpus import GpuSheet
from inference_energy.estimate.reference_rows import MeasuredRow
from inference_energy.estimate.shapes.precision import WeightPrecision
from inference_energy.estimate.shapes.shape import Attention, ModelShape

BF16 = WeightPrecision("bf16", "none", 16.0, "made")


def shape(name: str = "round", **changes: Any) -> ModelShape:
    """10 billion weights without an input table of their own, 100 kB of cache a token."""
    content: dict[str, Any] = {
        "name": name,
        "model_type": "llama",
        "layers": 10,
        "hidden": 1000,
        "embedding": 0,
        "tied": True,
        "attention": 2_000_000_000,
        "mlp": 8_000_000_000,
        "experts": 0,
        "experts_per_layer": 0,
        "experts_per_token": 0,
        "small": 0,
        "full": Attention(10, 50_000.0, 40_000.0),
        "windowed": Attention(),
        "window": 0,
        "weights": BF16,
        "kv_bytes": 2.0,
    }
    return ModelShape(**{**content, **changes})


def experts(**changes: Any) -> ModelShape:
    """2 billion weights that all tokens meet, 8 billion in 8 experts of which a token meets 2."""
    own: dict[str, Any] = {"mlp": 0, "experts": 8_000_000_000, "experts_per_layer": 8, "experts_per_token": 2}
    return shape("round-moe", **{**own, **changes})


def gpu(name: str = "H100-SXM", **changes: Any) -> GpuSheet:
    """500 W, 2 TB/s, 1000 TFLOP/s."""
    content: dict[str, Any] = {
        "name": name,
        "aliases": (),
        "driver_names": (),
        "tdp_w": 500.0,
        "memory_bytes": 80e9,
        "bandwidth_bytes_per_s": 2e12,
        "bf16_flops": 1e15,
        "fp8_flops": 2e15,
        "int8_flops": None,
        "node_w": 1000.0,
        "source": "made",
        "note": "",
    }
    return GpuSheet(**{**content, **changes})


def cases(model: ModelShape | None = None, card: GpuSheet | None = None, **load: Any) -> Cases:
    """One case, batch 10, prompts of 100 and answers of 200 tokens, 1000 tokens/s unless told otherwise."""
    given: dict[str, Any] = {"batch": 10.0, "input_tokens": 100.0, "output_tokens": 200.0, "throughput": 1000.0}
    return Cases.of([model or shape()], [card or gpu()], **{**given, **load})


def calibration(**changes: Any) -> EnergyCalibration:
    """200 pJ/byte, 2 pJ/FLOP, 10 mJ/token, known exactly; rows scatter by 5 %."""
    content: dict[str, Any] = {
        "kind": "energy-roofline calibration",
        "name": "made",
        "gpus": ["H100-SXM"],
        "coefficients": [
            {"term": "byte", "value": 200e-12},
            {"term": "flop", "value": 2e-12},
            {"term": "token", "value": 0.010},
        ],
        "covariance": np.zeros((3, 3)).tolist(),
        "relative_std": 0.05,
        "t_95": 2.0,
        "prompts": "inside",
        "models": ["round"],
        "batches": [1, 512],
        "dense_only": True,
    }
    return parse_calibration({**content, **changes}, "made")


def row(**changes: Any) -> MeasuredRow:
    """A measured row of the round model."""
    nothing = float("nan")
    content: dict[str, Any] = {
        "label": "made row",
        "source": "made",
        "shape": shape(),
        "gpu": gpu(),
        "tensor_parallel": 1.0,
        "batch": 10.0,
        "input_tokens": nothing,
        "output_tokens": nothing,
        "context_tokens": 200.0,
        "throughput": nothing,
        "ttft_s": nothing,
        "output_j": 1.0,
        "prompt_j": nothing,
    }
    return MeasuredRow(**{**content, **changes})


def basis(*rows: MeasuredRow, **changes: Any) -> Basis:
    """What estimators rest on, without rows unless some are given."""
    return Basis(**{"rows": rows, "calibration": calibration(), **changes})
