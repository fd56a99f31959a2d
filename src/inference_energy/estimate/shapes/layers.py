"""Weights, cache and FLOPs of a decoder's layers, from the keys of its config.json and its family.

Attention: grouped queries keep 2 * n_kv * d_head numbers per token and layer. Multi-head latent attention (MLA) keeps
one latent vector and one rotary key, kv_lora_rank + qk_rope_head_dim (DeepSeek-V2, arXiv 2405.04434, section 2.1); the
estimate assumes its absorbed form, against the latent vector. Factored attention (Step-3, arXiv 2507.19427) puts the
queries through a narrower vector. A layer with a sliding window sees the last `sliding_window` tokens.

Sparse attention (DeepSeek-V3.2, arXiv 2512.02556, section 2.1): an indexer with index_n_heads heads compares a token
with all earlier ones by keys of index_head_dim fp8 numbers and a scale of 4 bytes; attention then reads the index_topk
best of them. The cache of all tokens stays.

MLPs: dense ones, routed experts and shared experts, and a dense MLP beside the experts; the keys also say which layers
have which.
"""

from dataclasses import dataclass
from typing import Any

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.families import Family
from inference_energy.estimate.shapes.keys import Keys, shortened
from inference_energy.estimate.shapes.shape import Attention

_FULL = ("full_attention", "attention", "global_attention")
_WINDOWED = ("sliding_attention", "chunked_attention", "local_attention")
_INDEX_BYTES = 1.0
_INDEX_SCALE_BYTES = 4.0


def norm_numbers(keys: Keys, family: Family) -> int:
    """Return the numbers in the normalization vectors of the hidden size, in all layers and after them."""
    per_layer = family.norms(keys) if callable(family.norms) else family.norms
    vectors = 2 if keys.switch(family.norm_bias) else 1
    return vectors * keys.count("hidden_size") * (per_layer * keys.layers + family.final_norm)


def projections(keys: Keys, family: Family) -> tuple[int, int]:
    """Return the weights of all layers' projections, and the count of their biases, head norms and sinks."""
    layers, hidden, heads = keys.layers, keys.count("hidden_size"), keys.count("num_attention_heads")
    qkv_bias, o_bias = keys.switch(family.qkv_bias), keys.switch(family.o_bias)
    if keys.has("kv_lora_rank"):
        weights, small, out_bias = _latent_projections(keys, hidden, heads, has_bias=qkv_bias)
        return layers * weights, layers * (small + (out_bias if o_bias else 0))
    kv_heads, size = _kv_heads(keys), head_dim(keys)
    weights = hidden * size * (2 * heads + 2 * kv_heads)
    small = (size * (heads + 2 * kv_heads) if qkv_bias else 0) + (hidden if o_bias else 0)
    if family.attention == "factored":
        between = keys.count("share_q_dim")
        weights += hidden * between + between * heads * size - hidden * heads * size
        small += between
    if family.qk_norm != "none" and keys.switch(family.has_qk_norm):
        small += 2 * size if family.qk_norm == "head" else size * (heads + kv_heads)
    if family.sinks:
        small += heads
    return layers * weights, layers * small


def attention_of_layers(keys: Keys, family: Family, kv_bytes: float) -> tuple[Attention, Attention, int, bool]:
    """Return the attention over the whole context and that within a window.

    Returns:
        The attention of the full layers; of the windowed layers; the window in tokens (0: none); and whether the
        windowed layers keep the cache of all tokens nevertheless.

    Raises:
        InputError: a layer is of an unknown kind, or the length of a window is missing.
    """
    windowed, window = _windowed_layers(keys, family)
    layers = keys.layers
    elements, flops = _attention_of_layer(keys)

    def part(count: int) -> Attention:
        return Attention(count, count * elements, count * flops)

    if not keys.has("index_topk"):
        return part(layers - windowed), part(windowed), window, False
    if windowed:
        raise keys.error("index_topk", ": sparse attention together with windows is not known")
    size = keys.count("index_head_dim")
    index_bytes = layers * (_INDEX_BYTES * size + _INDEX_SCALE_BYTES)
    index = Attention(0, index_bytes / kv_bytes, layers * 2.0 * keys.count("index_n_heads") * size)
    return index, part(layers), keys.count("index_topk"), True


def head_dim(keys: Keys) -> int:
    """Return the size of a head.

    Raises:
        InputError: it is not stated, and the heads do not divide the hidden size.
    """
    stated = keys.optional("head_dim")
    if stated:
        return stated
    hidden, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    if hidden % heads:
        raise keys.error("hidden_size", f" is {hidden}, no multiple of {heads} heads, and head_dim is missing")
    return hidden // heads


@dataclass(frozen=True)
class Experts:
    """Routed experts: the weights of all layers, and the experts per layer and per token."""

    weights: int = 0
    per_layer: int = 0
    per_token: int = 0


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_topk",
    "moe_k",
    "moe_top_k",
)
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)


def mlp_weights(keys: Keys, family: Family) -> tuple[int, Experts, int]:
    """Return the weights of dense MLPs and shared experts, the routed experts, and the weights of routers and biases.

    Raises:
        InputError: a key is missing.
    """
    layers, hidden = keys.layers, keys.count("hidden_size")
    matrices = 3 if family.gated else 2
    has_bias = keys.switch(family.mlp_bias)

    def bias(wide: int) -> int:
        return (matrices - 1) * wide + hidden

    per_layer = keys.one_of(*_EXPERTS)
    if per_layer is None:
        _ignore_without_experts(keys)
        wide = keys.count("intermediate_size")
        return layers * matrices * hidden * wide, Experts(), layers * bias(wide) if has_bias else 0
    per_token = keys.one_of(*_EXPERTS_PER_TOKEN) or keys.count(_EXPERTS_PER_TOKEN[0])
    if per_token > per_layer:
        raise InputError(f"{keys.name}: config.json: {per_token} of {per_layer} experts for each token cannot be")
    sparse = _sparse_layers(keys, layers)
    wide = keys.first("moe_intermediate_size", "intermediate_size")
    dense_wide = keys.first("intermediate_size_mlp", "intermediate_size") if sparse < layers else 0
    keys.get("intermediate_size")  # stated beside moe_intermediate_size even where no layer is dense
    dense = (layers - sparse) * matrices * hidden * dense_wide
    beside = _shared_width(keys, family, wide)
    if family.residual is not None and keys.switch(family.has_residual):
        beside += keys.count(family.residual)
    small = sparse * hidden * per_layer
    if has_bias:
        small += (layers - sparse) * bias(dense_wide)
    if family.shared_gate:
        small += sparse * hidden
    if family.router_bias:
        small += sparse * per_layer
    if family.expert_bias:
        small += sparse * per_layer * (bias(wide) + 1)
    return (
        dense + sparse * matrices * hidden * beside,
        Experts(sparse * per_layer * matrices * hidden * wide, per_layer, per_token),
        small,
    )


def _shared_width(keys: Keys, family: Family, expert_width: int) -> int:
    """Return the width of all shared experts of a layer together."""
    if family.shared is not None:
        return keys.count(family.shared)
    if keys.get("use_mixed_mlp_moe") is not None and not keys.flag("use_mixed_mlp_moe"):
        return 0
    count, width = keys.one_of(*_SHARED), keys.optional(*_SHARED_WIDTH)
    return (count or 1) * width if width else (count or 0) * expert_width


def _ignore_without_experts(keys: Keys) -> None:
    """Mark the keys that describe experts as used, since there are none: small siblings of a family state them too."""
    for key in (
        *(*_EXPERTS, *_EXPERTS_PER_TOKEN, *_SHARED, *_SHARED_WIDTH),
        *(
            "moe_intermediate_size",
            "decoder_sparse_step",
            "mlp_only_layers",
            "use_mixed_mlp_moe",
            "moe_layer_num_skipped",
        ),
    ):
        keys.get(key)


def _kv_heads(keys: Keys) -> int:
    heads = keys.count("num_attention_heads")
    kv_heads = heads if keys.get("num_key_value_heads") is None else keys.count("num_key_value_heads")
    if kv_heads > heads:
        raise keys.error("num_key_value_heads", f" is {kv_heads}, more than the {heads} heads of the queries")
    return kv_heads


def _attention_of_layer(keys: Keys) -> tuple[float, float]:
    """Return what a layer caches per token [numbers] and computes per pair of tokens [FLOPs]."""
    heads = keys.count("num_attention_heads")
    latent = keys.optional("kv_lora_rank")
    if latent:
        cached = latent + keys.count("qk_rope_head_dim")
        return float(cached), 2.0 * heads * (cached + latent)
    size = head_dim(keys)
    return 2.0 * _kv_heads(keys) * size, 4.0 * heads * size


def _latent_projections(keys: Keys, hidden: int, heads: int, *, has_bias: bool) -> tuple[int, int, int]:
    """Return a layer's weights, norms and biases with latent attention (MLA), and the bias of its output."""
    rank, rope = keys.count("kv_lora_rank"), keys.count("qk_rope_head_dim")
    nope, value = keys.count("qk_nope_head_dim"), keys.count("v_head_dim")
    for stated in ("num_key_value_heads", "head_dim", "qk_head_dim"):  # they follow from the ones above
        keys.get(stated)
    q_rank = keys.optional("q_lora_rank") or 0
    query = heads * (nope + rope)
    weights = hidden * q_rank + q_rank * query if q_rank else hidden * query
    weights += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    small = rank + q_rank
    if has_bias:
        small += q_rank + rank + rope
    if keys.has("index_topk"):
        if not q_rank:
            raise keys.error("index_topk", ": an indexer without q_lora_rank is not known")
        size, index_heads = keys.count("index_head_dim"), keys.count("index_n_heads")
        weights += q_rank * index_heads * size + hidden * (size + index_heads)
        small += 2 * size
    return weights, small, hidden


def _windowed_layers(keys: Keys, family: Family) -> tuple[int, int]:
    """Return the number of layers with a window, and its length."""
    layers = keys.layers
    kinds = keys.layer_list("layer_types")
    use, skipped = keys.get("use_sliding_window"), keys.get("max_window_layers")
    pattern = keys.get("sliding_window_pattern")
    if kinds is not None:
        return _windowed_by_type(keys, kinds)
    if family.window == "chunked":
        return _chunked_layers(keys)
    window = keys.optional("sliding_window")
    if window is None or not keys.flag("use_sliding_window", default=family.window != "opt_in"):
        return 0, 0
    if family.window == "opt_in" and use is not None:  # the first `max_window_layers` layers are full
        return layers - min(keys.index("max_window_layers", 0) if skipped is not None else 0, layers), window
    if family.window == "alternate":
        return (layers + 1) // 2, window
    if isinstance(pattern, str):
        return _windowed_by_letters(keys, pattern), window
    every = keys.optional("sliding_window_pattern") or family.pattern
    return (layers - layers // every if every else layers), window


def _windowed_by_letters(keys: Keys, pattern: str) -> int:
    """Return the number of windowed layers of a pattern such as `LLLG` (EXAONE 4: L local, G global), repeated."""
    if not pattern or len(pattern) > keys.layers or set(pattern) - {"L", "G"}:
        raise keys.error("sliding_window_pattern", f" is {shortened(pattern)}; a whole number, or letters L and G")
    return sum(pattern[layer % len(pattern)] == "L" for layer in range(keys.layers))


def _chunked_layers(keys: Keys) -> tuple[int, int]:
    """Return the number of layers that attend within chunks, and the chunk's length (Llama 4).

    A token sees its chunk up to itself, counted as the whole chunk, which bounds it from above. Layers that do not
    rotate positions see everything: those with a 0 in `no_rope_layers`, by default every fourth.
    """
    chunk = keys.optional("attention_chunk_size")
    rotates = keys.layer_list("no_rope_layers") if keys.has("no_rope_layers") else None
    if chunk is None:
        return 0, 0
    if rotates is None:
        every = keys.optional("no_rope_layer_interval") or 4
        rotates = [(layer + 1) % every != 0 for layer in range(keys.layers)]
    return sum(map(bool, rotates)), chunk


def _windowed_by_type(keys: Keys, kinds: list[Any]) -> tuple[int, int]:
    """Return the number of layers with a window, and its length, from `layer_types`."""
    unknown = sorted({shortened(kind).strip("'") for kind in kinds if kind not in (*_FULL, *_WINDOWED)})
    if unknown:
        raise keys.error(
            "layer_types", f": {', '.join(unknown[:4])} is not known, only full and sliding-window attention"
        )
    windowed = sum(kind in _WINDOWED for kind in kinds)
    chunked = "chunked_attention" in kinds
    window, chunk = keys.get("sliding_window"), keys.get("attention_chunk_size")
    if not windowed:
        return 0, 0
    if chunked and chunk is not None:
        return windowed, keys.count("attention_chunk_size")
    return windowed, keys.count("sliding_window" if window is not None or not chunked else "attention_chunk_size")


def _sparse_layers(keys: Keys, layers: int) -> int:
    """Return the number of layers with routed experts."""
    sparse = set(range(layers))
    for key in ("first_k_dense_replace", "moe_layer_num_skipped", "moe_layer_start_index"):
        sparse &= set(range(min(keys.index(key, 0), layers), layers))
    end = keys.get("moe_layer_end_index")
    if end is not None and end != -1:
        sparse &= set(range(keys.index("moe_layer_end_index", layers) + 1))
    for key in ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", "moe_layer_frequency"):
        step = keys.optional(key) or 1
        sparse &= set(range(step - 1, layers, step))
    sparse &= _by_frequency(keys, layers)
    for key in ("moe_layers", "moe_layers_enum"):
        listed = keys.layer_numbers(key)
        if listed is not None:
            sparse &= listed
    sparse -= keys.layer_numbers("mlp_only_layers") or set()
    kinds = keys.layer_list("mlp_layer_types")
    if kinds is not None:
        if set(map(str, kinds)) - {"sparse", "dense"}:
            raise keys.error("mlp_layer_types", f" is {shortened(kinds)}; `sparse` and `dense` are known")
        sparse &= {layer for layer, kind in enumerate(kinds) if kind == "sparse"}
    if not sparse:
        raise InputError(f"{keys.name}: config.json: it has experts, but no layer with them")
    return len(sparse)


def _by_frequency(keys: Keys, layers: int) -> set[int]:
    """Return the layers that `moe_layer_freq` names: each n-th from the first (DeepSeek), or those with a 1."""
    if isinstance(keys.get("moe_layer_freq"), list):
        marks = keys.layer_list("moe_layer_freq") or []
        return {layer for layer, mark in enumerate(marks) if mark}
    return set(range(0, layers, keys.optional("moe_layer_freq") or 1))
