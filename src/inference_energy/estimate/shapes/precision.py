"""Precision of weights and of the key-value cache: bytes per number.

A quantised checkpoint keeps some weights in 16 bit: the embedding, the output layer, norms and routers, and whatever
its `modules_to_not_convert` names. `scope` says which weights are quantised: those of all linear layers, or those of
the experts alone. The scales of 4 bit weights count: MXFP4 has 8 bit for each 32 weights (OCP
Microscaling Formats specification 1.0), GPTQ and AWQ 16 bit for each group, mostly 128.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inference_energy.contracts.outside import as_count
from inference_energy.errors import InputError, Setting

Precision = Literal["bf16", "fp8", "int8", "int4"]
Scope = Literal["none", "linear", "experts"]

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8", "int8", "int4")
BITS: dict[Precision, float] = {"bf16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.0}
_16_BIT = ("bfloat16", "float16", "float32", "half", "auto")
_EXPERTS_ONLY = ("mxfp4",)
_NAMED = (Setting("precision", "bf16, fp8, int8 or int4"),)
"""What helps where the precision in a config.json is not known."""


@dataclass(frozen=True)
class WeightPrecision:
    """The precision in which weights are stored.

    Attributes:
        name: precision of the quantised weights; `bf16` if none are quantised.
        scope: which weights are quantised; the others take 16 bit.
        bits: bits per quantised weight, with its share of the scales.
        source: where this is known from, in words.
    """

    name: Precision
    scope: Scope
    bits: float
    source: str

    @property
    def bytes_quantised(self) -> float:
        """Bytes per quantised weight."""
        return self.bits / 8


def precision_named(name: str) -> WeightPrecision:
    """Return the precision that a user names; it holds for all linear layers.

    Raises:
        InputError: there is no such precision.
    """
    if name not in BITS:
        raise InputError(f"write one of {', '.join(PRECISIONS)}, not {name!r}", key="precision")
    precision: Precision = name
    scope: Scope = "none" if precision == "bf16" else "linear"
    return WeightPrecision(precision, scope, BITS[precision], "as asked for")


def precision_in_config(config: Mapping[str, Any]) -> WeightPrecision:
    """Return the precision that a config.json states.

    Raises:
        InputError: the method of its `quantization_config` is unknown.
    """
    quantised = _quantisation(config)
    if not quantised:
        dtype = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16")
        if dtype not in _16_BIT:
            raise InputError(f"config.json: torch_dtype {dtype[:60]!r} is not known", write=_NAMED)
        note = ", served in 16 bit as vLLM does" if dtype == "float32" else ""
        return WeightPrecision("bf16", "none", 16.0, f"torch_dtype {dtype}{note}")
    method = str(quantised.get("quant_method", ""))
    source = f"quantization_config: {method or 'no quant_method'}"
    if method in _EXPERTS_ONLY:
        return WeightPrecision("int4", "experts", 4.25, source)
    if method in ("fp8", "fbgemm_fp8"):
        return WeightPrecision("fp8", "linear", 8.0, source)
    if method in ("gptq", "awq", "gptq_marlin", "awq_marlin", "auto-round"):
        return _integers(_whole(quantised, "bits", "w_bit") or 4, quantised, source)
    if method == "bitsandbytes":
        return _integers(4 if quantised.get("load_in_4bit") else 8, {"group_size": 64}, source)
    if method == "compressed-tensors":
        return _compressed_tensors(quantised, source)
    if method == "modelopt":
        algorithm = str(quantised.get("quant_algo", "")).upper()
        if algorithm == "FP8":
            return WeightPrecision("fp8", "linear", 8.0, f"{source}, {algorithm}")
        if algorithm == "NVFP4":
            return WeightPrecision("int4", "linear", 4.5, f"{source}, {algorithm}")
    raise InputError(f"config.json: quantization_config.quant_method {method[:60]!r} is not known", write=_NAMED)


def kv_bytes(config: Mapping[str, Any], precision: str | None) -> tuple[float, str]:
    """Return the bytes per number in the key-value cache, and where this is known from.

    Raises:
        InputError: there is no such precision.
    """
    if precision is not None:
        if precision not in BITS:
            raise InputError(f"write one of {', '.join(PRECISIONS)}, not {precision!r}", key="kv_precision")
        return BITS[precision] / 8, "as asked for"
    quantised = _quantisation(config)
    scheme = quantised.get("kv_cache_scheme")
    bits = _whole(scheme, "num_bits") if isinstance(scheme, Mapping) else None
    if bits:
        return bits / 8, f"kv_cache_scheme: {bits} bit"
    algorithm = quantised.get("kv_cache_quant_algo")
    if algorithm and str(algorithm).upper() == "FP8":
        return 1.0, "kv_cache_quant_algo: FP8"
    return 2.0, "16 bit, as vLLM keeps it unless told otherwise"


def _integers(bits: int, quantised: Mapping[str, Any], source: str) -> WeightPrecision:
    # -1 stands for one group: a whole row.
    is_row = any(quantised.get(key) == -1 for key in ("group_size", "q_group_size"))
    scales = 0.0 if is_row else 16.0 / (_whole(quantised, "group_size", "q_group_size") or 128)
    if bits not in (4, 8):
        raise InputError(f"config.json: quantization_config with {bits} bits; 4 and 8 are known")
    return WeightPrecision("int4" if bits == 4 else "int8", "linear", bits + scales, f"{source}, {bits} bit")


def _compressed_tensors(quantised: Mapping[str, Any], source: str) -> WeightPrecision:
    groups = quantised.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            continue
        bits, kind = _whole(weights, "num_bits") or 0, str(weights.get("type", ""))
        if bits == 8 and kind == "float":
            return WeightPrecision("fp8", "linear", 8.0, source)
        if bits in (4, 8) and kind == "int":
            return _integers(bits, {"group_size": weights.get("group_size") or -1}, source)
        if bits == 4 and kind == "float":
            return WeightPrecision("int4", "linear", 4.5, source)
    raise InputError("config.json: quantization_config.config_groups states no weights of 4 or 8 bit")


MOST_BITS = 2**20


def _quantisation(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object `quantization_config`, empty if there is none."""
    quantised = config.get("quantization_config")
    if not quantised:
        return {}
    if not isinstance(quantised, Mapping):
        raise InputError(f"config.json: quantization_config is {str(quantised)[:60]!r}; an object is expected")
    return quantised


def _whole(content: Mapping[str, Any], *keys: str) -> int | None:
    """Return the first of the keys that is present and not 0, as a whole number; None if none is."""
    for key in keys:
        value = content.get(key)
        if not value:
            continue
        number = as_count(value)
        if number is None or number > MOST_BITS:
            raise InputError(
                f"config.json: quantization_config: {key} is {str(value)[:60]!r}; a whole number is expected"
            )
        return number
    return None
