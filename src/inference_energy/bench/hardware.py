"""GPUs and models that the bench knows: data sheets, constants of time and energy, shapes of dense transformers.

Data-sheet numbers: NVIDIA's data sheets (H100 SXM5 80 GB; A100 SXM4 80 GB; GeForce RTX 4090 Laptop, dense bf16 with
32-bit accumulation). The constants of the H100 are fitted by `validation.calibration` to published rows and measured
windows (residuals: docs/validation/bench.md); its idle powers are measured. The other two GPUs are not fitted: they
have the H100's efficiencies, floors that scale with the power limit, an energy per FLOP that scales with power limit
over peak, and an energy per byte that scales with power limit over bandwidth.

Shapes follow each model's published config.json. One multiply-accumulate is 2 FLOPs, so a token takes 2 FLOPs for each
weight it meets, and 4 * layers * heads * head_dim for each earlier token it attends to (scores and values); Kaplan et
al. 2020 (arXiv 2001.08361), section 2.1.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from inference_energy.contracts.config_keys import is_structural, keys_left, listed
from inference_energy.contracts.outside import as_count
from inference_energy.errors import InputError


class FrozenSettings(BaseModel):
    """Base of the bench's settings: immutable, without unknown keys, and with finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Device(FrozenSettings):
    """One kind of GPU.

    From the data sheet: `memory_bytes`, `bandwidth_bytes_per_s`, `peak_flops` (dense bf16), `power_limit_w`,
    `link_bytes_per_s` (to its peers, one direction).

    Time: `memory_share` and `flop_share` are the parts of bandwidth and peak that are reached; the shorter of the two
    times overlaps with the longer except for a part `exposed_share`; `reduce_latency_s` is the latency of one
    all-reduce.

    Energy: the floor is `cold_idle_w` without a model, `loaded_idle_w` with one and no request, `busy_w` while a step
    computes and `gap_w` between its kernels. Each byte of memory traffic adds `byte_j` and each FLOP `flop_j`, or
    `thin_flop_j` where it decodes or samples. The chip warms towards `ambient_c` plus `k_per_w` times its power with
    the time constant `thermal_time_s`, and each kelvin above its temperature at cold idle leaks `leakage_w_per_k` more.
    Above `hot_c` clocks fall.

    Sensors: whether NVML `averages_power`, as on Ampere and newer but for GA100 (NVML API reference,
    nvmlDeviceGetPowerUsage); where it does not, all power is instantaneous, and that of the memory is not shown.
    """

    name: str
    label: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    peak_flops: float
    power_limit_w: float
    link_bytes_per_s: float
    memory_share: float
    flop_share: float
    exposed_share: float
    reduce_latency_s: float
    cold_idle_w: float
    loaded_idle_w: float
    busy_w: float
    gap_w: float
    byte_j: float
    flop_j: float
    thin_flop_j: float
    memory_idle_w: float
    ambient_c: float = 30.0
    k_per_w: float = 0.055
    thermal_time_s: float = 25.0
    leakage_w_per_k: float = 0.3
    hot_c: float = 87.0
    sm_clock_mhz: int = 1980
    idle_clock_mhz: int = 345
    averages_power: bool = True


H100 = Device(
    name="h100",
    label="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 2**30 * 0.995,
    bandwidth_bytes_per_s=3.35e12,
    peak_flops=989e12,
    power_limit_w=700.0,
    link_bytes_per_s=450e9,
    memory_share=0.80,
    flop_share=0.61,
    exposed_share=0.38,
    reduce_latency_s=6.3e-6,
    cold_idle_w=71.0,
    loaded_idle_w=122.0,
    busy_w=229.0,
    gap_w=294.0,
    byte_j=88e-12,
    flop_j=0.745e-12,
    thin_flop_j=1.31e-12,
    memory_idle_w=35.0,
)


def _scaled(
    name: str,
    label: str,
    *,
    memory_gib: float,
    bandwidth: float,
    peak: float,
    limit_w: float,
    link: float,
    idle_w: float,
    sm_clock_mhz: int,
    averages_power: bool = True,
) -> Device:
    """Return a GPU with the H100's efficiencies, and energies scaled by data-sheet numbers."""
    power = limit_w / H100.power_limit_w
    per_flop = power * H100.peak_flops / peak
    return H100.model_copy(
        update={
            "name": name,
            "label": label,
            "memory_bytes": memory_gib * 2**30 * 0.995,
            "bandwidth_bytes_per_s": bandwidth,
            "peak_flops": peak,
            "power_limit_w": limit_w,
            "link_bytes_per_s": link,
            "cold_idle_w": idle_w,
            "loaded_idle_w": idle_w * H100.loaded_idle_w / H100.cold_idle_w,
            "busy_w": H100.busy_w * power,
            "gap_w": H100.gap_w * power,
            "byte_j": H100.byte_j * power * H100.bandwidth_bytes_per_s / bandwidth,
            "flop_j": H100.flop_j * per_flop,
            "thin_flop_j": H100.thin_flop_j * per_flop,
            "memory_idle_w": H100.memory_idle_w * power,
            "k_per_w": H100.k_per_w / power,
            "leakage_w_per_k": H100.leakage_w_per_k * power,
            "sm_clock_mhz": sm_clock_mhz,
            "averages_power": averages_power,
        }
    )


A100 = _scaled(
    "a100",
    "NVIDIA A100-SXM4-80GB",
    memory_gib=80,
    bandwidth=2.039e12,
    peak=312e12,
    limit_w=400.0,
    link=300e9,
    idle_w=56.0,
    sm_clock_mhz=1410,
    averages_power=False,  # its chip is a GA100
)
LAPTOP = _scaled(
    "laptop",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    memory_gib=16,
    bandwidth=576e9,
    peak=86e12,
    limit_w=150.0,
    link=16e9,
    idle_w=9.0,
    sm_clock_mhz=2040,
)

DEVICES = {device.name: device for device in (H100, A100, LAPTOP)}


class BenchModelShape(FrozenSettings):
    """A dense decoder with grouped-query attention and a gated MLP.

    `weight_bytes_per_parameter` and `kv_bytes_per_element` are 2 for bf16, 1 for 8 bit, 0.5 for 4 bit.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool = False
    weight_bytes_per_parameter: float = 2.0
    kv_bytes_per_element: float = 2.0

    @property
    def body_parameters(self) -> int:
        """Number of weights in the layers, which every token meets."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate + 2 * self.hidden) + self.hidden

    @property
    def head_parameters(self) -> int:
        """Number of weights in the output layer, which only a sampled position meets."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """Number of all weights."""
        return self.body_parameters + self.head_parameters * (1 if self.tied_embeddings else 2)

    @property
    def resident_bytes(self) -> float:
        """Bytes of all weights."""
        return self.parameters * self.weight_bytes_per_parameter

    @property
    def step_bytes(self) -> float:
        """Bytes of weights read by one engine step: all but the input embedding, of which only rows are read."""
        return (self.body_parameters + self.head_parameters) * self.weight_bytes_per_parameter

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of keys and values for one token of context."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes_per_element

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one token in the layers, without attention to other tokens."""
        return 2.0 * self.body_parameters

    @property
    def flops_per_sample(self) -> float:
        """FLOPs of the output layer for one sampled position."""
        return 2.0 * self.head_parameters

    @property
    def flops_per_pair(self) -> float:
        """FLOPs for one token's attention to one other."""
        return 4.0 * self.layers * self.heads * self.head_dim


_GATED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "granite", "olmo2", "seed_oss")
"""Model types of dense gated decoders, whose biases and norms of heads are too few to count here."""

_FIXED_BY_TYPE = {"mistral": "num_key_value_heads", "qwen3": "head_dim"}
"""Keys whose absence stands for a number that the type fixes."""

_NEEDED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
_USED = (*_NEEDED, "num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def from_config(name: str, config: Mapping[str, Any]) -> BenchModelShape:
    """Return the shape that a model's config.json states.

    Raises:
        InputError: a number is missing or cannot be, or the model is not a dense gated decoder with full attention.
    """
    if any(config.get(key) for key in _EXPERTS):
        raise InputError(f"model {name}: the bench knows dense models only, not mixtures of experts")
    model_type = config.get("model_type") or "llama"
    if model_type not in _GATED:
        raise InputError(f"model {name}: model_type {model_type!r}: the bench knows {', '.join(_GATED)}")
    fixed = _FIXED_BY_TYPE.get(model_type)
    needed = _NEEDED if fixed is None else (*_NEEDED, fixed)
    if absent := [key for key in needed if config.get(key) is None]:
        raise InputError(f"model {name}: its config.json lacks {', '.join(absent)}")
    used = (
        _USED if config.get("sliding_window") and config.get("use_sliding_window") is not False else (*_USED, *_WINDOW)
    )
    if left := [key for key in keys_left(config, used) if is_structural(key)]:
        raise InputError(
            f"model {name}: config.json: {listed(left)}: the bench knows dense gated decoders with full attention only"
        )
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise InputError(f"model {name}: config.json: tie_word_embeddings is {str(tied)[:60]!r}, not true or false")

    def count(key: str) -> int | None:
        value = config.get(key)
        number = as_count(value)
        if value is not None and (not number or number > _MOST):
            raise InputError(f"model {name}: config.json: {key} is {str(value)[:60]!r}, not a whole number above 0")
        return number

    layers, hidden, heads, intermediate, vocabulary = (count(key) or 1 for key in _NEEDED)
    return BenchModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=count("num_key_value_heads") or heads,
        head_dim=count("head_dim") or hidden // heads,
        intermediate=intermediate,
        vocabulary=vocabulary,
        tied_embeddings=tied,
        weight_bytes_per_parameter=_weight_bytes(name, config),
    )


_WINDOW = ("sliding_window", "max_window_layers")
_MOST = 10**8


def _weight_bytes(name: str, config: Mapping[str, Any]) -> float:
    """Return the bytes per weight that a config.json states."""
    quantized = config.get("quantization_config")
    if not quantized:
        return 2.0
    method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
    if method in ("fp8", "fbgemm_fp8"):
        return 1.0
    if method in ("awq", "gptq") and quantized.get("bits") in (4, 8):
        return float(quantized["bits"]) / 8
    raise InputError(
        f"model {name}: config.json: quantization_config {str(method)[:60]!r}: the bench knows fp8, and awq and gptq "
        "with 4 or 8 bits"
    )


def to_config(shape: BenchModelShape) -> dict[str, Any]:
    """Return a shape as a config.json, with quantized weights as Hugging Face's models state them."""
    quantized = {1.0: {"quant_method": "fp8"}, 0.5: {"quant_method": "awq", "bits": 4}}
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": "bfloat16",
    }
    if shape.weight_bytes_per_parameter in quantized:
        config["quantization_config"] = quantized[shape.weight_bytes_per_parameter]
    return config


SHAPES = {
    shape.name: shape
    for shape in (
        BenchModelShape(
            name="llama-3.1-8b",
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            intermediate=14336,
            vocabulary=128256,
        ),
        BenchModelShape(
            name="qwen3-14b",
            layers=40,
            hidden=5120,
            heads=40,
            kv_heads=8,
            head_dim=128,
            intermediate=17408,
            vocabulary=151936,
        ),
        BenchModelShape(
            name="llama-3.1-70b",
            layers=80,
            hidden=8192,
            heads=64,
            kv_heads=8,
            head_dim=128,
            intermediate=28672,
            vocabulary=128256,
        ),
    )
}
