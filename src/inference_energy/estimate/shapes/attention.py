"""Attention: its projections, its cache and its work, for grouped queries, latent (MLA) and sliding windows.

Grouped queries keep 2 * n_kv * d_head numbers a token and layer. Multi-head latent attention keeps one latent vector
and one rotary key, kv_lora_rank + qk_rope_head_dim (DeepSeek-V2, arXiv 2405.04434, section 2.1); it is computed in its
absorbed form, against the latent vector. A layer with a sliding window sees the last `sliding_window` tokens.
"""

from typing import Any

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.families import Family
from inference_energy.estimate.shapes.keys import Keys
from inference_energy.estimate.shapes.shape import Attention

_FULL = ("full_attention", "attention", "global_attention")
_WINDOWED = ("sliding_attention", "chunked_attention", "local_attention")
_NO_WINDOW = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
"""Types that have a `sliding_window` which counts only with `use_sliding_window`."""


def projections(keys: Keys, family: Family) -> tuple[int, int]:
    """Weights of the projections of all layers, and their biases, norms of heads and sinks."""
    layers, hidden, heads = (keys.count(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    if keys.optional("kv_lora_rank"):
        return _latent(keys, layers, hidden, heads)
    kv_heads = keys.optional("num_key_value_heads") or heads
    size = head_dim(keys)
    weights = hidden * size * (2 * heads + 2 * kv_heads)
    small = 0
    if family.qkv_bias or keys.flag("attention_bias"):
        small += size * (heads + 2 * kv_heads)
    if keys.flag("attention_bias") and not family.qkv_bias:
        small += hidden
    if family.qk_norm:
        small += 2 * size
    if family.sinks:
        small += heads
    return layers * weights, layers * small


def layers_of(keys: Keys) -> tuple[Attention, Attention, int]:
    """Attention of the layers that see all, of those with a window, and the window in tokens (0: none).

    Raises:
        InputError: a layer is of a kind that is not known, or a window is meant but not stated.
    """
    windowed, window = _windowed_layers(keys)
    layers = keys.count("num_hidden_layers")
    elements, flops = _each(keys)

    def part(count: int) -> Attention:
        return Attention(count, count * elements, count * flops)

    return part(layers - windowed), part(windowed), window


def head_dim(keys: Keys) -> int:
    """Size of a head."""
    return keys.optional("head_dim") or keys.count("hidden_size") // keys.count("num_attention_heads")


def _each(keys: Keys) -> tuple[float, float]:
    """Numbers kept for a token by a layer, and FLOPs for a pair."""
    heads = keys.count("num_attention_heads")
    latent = keys.optional("kv_lora_rank")
    if latent:
        kept = latent + keys.count("qk_rope_head_dim")
        return float(kept), 2.0 * heads * (kept + latent)
    size = head_dim(keys)
    return 2.0 * (keys.optional("num_key_value_heads") or heads) * size, 4.0 * heads * size


def _latent(keys: Keys, layers: int, hidden: int, heads: int) -> tuple[int, int]:
    rank, rope = keys.count("kv_lora_rank"), keys.count("qk_rope_head_dim")
    nope, value = keys.count("qk_nope_head_dim"), keys.count("v_head_dim")
    q_rank = keys.optional("q_lora_rank")
    query = heads * (nope + rope)
    weights = hidden * q_rank + q_rank * query if q_rank else hidden * query
    weights += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    return layers * weights, layers * (rank + (q_rank or 0))


def _windowed_layers(keys: Keys) -> tuple[int, int]:
    """How many layers have a window, and its length."""
    content, layers = keys.content, keys.count("num_hidden_layers")
    kinds = content.get("layer_types")
    if isinstance(kinds, list):
        return _listed(keys, kinds)
    window = content.get("sliding_window")
    if not window or content.get("use_sliding_window") is False:
        return 0, 0
    model_type = str(content.get("model_type", ""))
    if model_type in _NO_WINDOW and not content.get("use_sliding_window"):
        return 0, 0
    if model_type in _NO_WINDOW:  # the first `max_window_layers` layers see all
        return layers - min(int(content.get("max_window_layers", layers)), layers), int(window)
    if model_type == "gpt_oss":
        return (layers + 1) // 2, int(window)
    every = content.get("sliding_window_pattern") or content.get("_sliding_window_pattern")
    every = every or {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}.get(model_type)
    return (layers - layers // int(every) if every else layers), int(window)


def _listed(keys: Keys, kinds: list[Any]) -> tuple[int, int]:
    layers = keys.count("num_hidden_layers")
    if len(kinds) != layers:
        raise InputError(f"{keys.name}: config.json: layer_types lists {len(kinds)} layers, not {layers}")
    strange = sorted({str(kind) for kind in kinds if kind not in (*_FULL, *_WINDOWED)})
    if strange:
        raise InputError(
            f"{keys.name}: config.json: layer_types: {', '.join(strange)} is not known, only full and sliding-window "
            "attention"
        )
    windowed = sum(kind in _WINDOWED for kind in kinds)
    return (windowed, keys.first("sliding_window", "attention_chunk_size")) if windowed else (0, 0)
