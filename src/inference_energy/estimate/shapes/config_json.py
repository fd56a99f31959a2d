"""A model's shape from its Hugging Face config.json, or from the shipped catalogue (data/models.json).

A required key that is absent is an error that names it; nothing is guessed. Of a model with vision or audio parts only
the language model (`text_config`) is read. Each model of the catalogue comes with the page its config.json is from.

A config.json leaves out whatever the model's code fixes: biases, extra norms, and the defaults of absent keys. `Family`
holds these per `model_type`. Source: the configuration and modelling files of each type in Hugging Face transformers.

Attention: grouped queries keep 2 * n_kv * d_head numbers per token and layer. Multi-head latent attention (MLA) keeps
one latent vector and one rotary key, kv_lora_rank + qk_rope_head_dim (DeepSeek-V2, arXiv 2405.04434, section 2.1); the
estimate assumes its absorbed form, against the latent vector. A layer with a sliding window sees the last
`sliding_window` tokens.

MLPs: dense ones, routed experts and shared experts; the keys also say which layers have which.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.estimate.shapes.precision import kv_bytes, precision_in_config, precision_named
from inference_energy.estimate.shapes.shape import Attention, ModelShape


def shape_of(model: str, precision: str | None = None, kv_precision: str | None = None) -> ModelShape:
    """Return the shape of a shipped model by name, alias or repository, or of a config.json by its path.

    Raises:
        InputError: there is neither such a model nor such a file, or its shape cannot be read.
    """
    lower_name = model.lower()
    for name, entry in catalogue_models().items():
        names = (name, entry["repository"], entry["repository"].split("/")[-1], *entry["aliases"])
        if lower_name in (alias.lower() for alias in names):
            return shape_from_config(entry["config"], name, precision, kv_precision)
    path = Path(model).expanduser()
    if path.exists():
        return shape_from_file(path, None, precision, kv_precision)
    raise InputError(
        f"{model}: neither a file nor a model that is shipped; give the path of a config.json, or one of: "
        f"{', '.join(catalogue_models())}",
        key="model",
    )


@cache
def catalogue_models() -> dict[str, dict[str, Any]]:
    """Return the entries of the catalogue by name: `repository`, `source`, `published`, `aliases`, `config`."""
    text = files("inference_energy.estimate").joinpath("data/models.json").read_text()
    entries: dict[str, dict[str, Any]] = json.loads(text)["models"]
    return entries


def shape_from_file(
    path: Path, name: str | None = None, precision: str | None = None, kv_precision: str | None = None
) -> ModelShape:
    """Return the shape that a config.json describes, given its path or its folder; see `shape_from_config`."""
    file = path / "config.json" if path.is_dir() else path
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a config.json: a JSON object is expected")
    return shape_from_config(content, name or file.resolve().parent.name, precision, kv_precision)


_NESTED = ("text_config", "language_config", "llm_config")


def shape_from_config(
    config: Mapping[str, Any], name: str, precision: str | None = None, kv_precision: str | None = None
) -> ModelShape:
    """Return the shape that a config.json describes.

    Args:
        config: the content of the config.json.
        name: the model's name.
        precision: precision of the weights (bf16, fp8, int8, int4); None: as the config states.
        kv_precision: precision of the key-value cache; None: as the config states, else 16 bit.

    Raises:
        InputError: a key is missing, or the architecture is not supported.
    """
    inner = next((config[key] for key in _NESTED if isinstance(config.get(key), Mapping)), None)
    text = dict(config) if inner is None else {**_shared_keys(config), **inner}
    model_type = str(text.get("model_type", ""))
    _check_is_supported(name, text)
    family = family_of(model_type)
    keys = Keys(name, {**family.defaults, **text})
    layers, hidden = keys.count("num_hidden_layers"), keys.count("hidden_size")
    attention, biases = projections(keys, family)
    full, windowed, window = layers_of(keys)
    mlp, experts, gates = mlp_weights(keys, family)
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", family.ties)))
    weights = precision_named(precision) if precision else precision_in_config(text)
    kv, kv_source = kv_bytes(text, kv_precision)
    norms = family.norms * hidden * layers + hidden
    notes = [f"weights {weights.name} ({weights.source}); KV cache {kv:g} bytes a number ({kv_source})"]
    if not family.is_listed:
        notes.append(f"model_type {model_type or '(absent)'} is not known: counted as a gated decoder like Llama")
    if inner is not None:
        notes.append("the language model alone: vision and audio parts are not counted")
    return ModelShape(
        name=name,
        model_type=model_type,
        layers=layers,
        hidden=hidden,
        embedding=keys.count("vocab_size") * hidden,
        tied=tied,
        attention=attention,
        mlp=mlp,
        experts=experts.weights,
        experts_per_layer=experts.per_layer,
        experts_per_token=experts.per_token,
        small=norms + biases + gates,
        full=full,
        windowed=windowed,
        window=window,
        weights=weights,
        kv_bytes=kv,
        notes=tuple(notes),
    )


def _shared_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the outer config that apply to the language model inside."""
    shared = ("quantization_config", "torch_dtype", "dtype", "tie_word_embeddings")
    return {key: config[key] for key in shared if key in config}


_UNSUPPORTED = (
    "mamba_n_heads",
    "mamba_num_heads",
    "ssm_cfg",
    "ssm_state_size",
    "rwkv_version",
    "linear_num_key_heads",
)


def _check_is_supported(name: str, config: Mapping[str, Any]) -> None:
    """Raise InputError for an encoder, or for layers other than attention."""
    if config.get("is_encoder_decoder"):
        raise InputError(
            f"{name}: config.json: is_encoder_decoder: models with an encoder are not known, only decoders"
        )
    unsupported = [key for key in _UNSUPPORTED if config.get(key)]
    if unsupported:
        raise InputError(
            f"{name}: config.json: {', '.join(unsupported)}: state-space and linear-attention layers are not known, "
            "only full and sliding-window attention"
        )


class Keys:
    """The keys of one model's config.json, with errors that name the key.

    Args:
        name: the model's name, for messages.
        content: the content of its config.json.
    """

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self.name = name
        self.content = content

    def count(self, key: str) -> int:
        """Return a required whole number above zero.

        Raises:
            InputError: the key is absent or not such a number.
        """
        value = self.content.get(key)
        if value is None:
            raise InputError(f"{self.name}: config.json lacks {key}; is this the config.json of a decoder?")
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise InputError(f"{self.name}: config.json: {key} is {value!r}; a whole number above 0 is expected")
        return value

    def optional(self, *keys: str) -> int | None:
        """Return the value of the first key that is present and neither null nor 0; None if there is none."""
        for key in keys:
            if self.content.get(key):
                return self.count(key)
        return None

    def first(self, *keys: str) -> int:
        """Return the value of the first key that is present.

        Raises:
            InputError: no key is.
        """
        value = self.optional(*keys)
        return self.count(keys[0]) if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return whether a key is set; `default` if it is absent."""
        return bool(self.content.get(key, default))


@dataclass(frozen=True)
class Family:
    """Features that a model type has beyond the numbers of its config.json.

    Attributes:
        is_listed: False for a type that is not in `FAMILIES`; the features are then those of a plain gated decoder.
        norms: normalisation vectors of the hidden size per layer.
        qk_norm: whether queries and keys each have a norm of the head's size.
        qkv_bias: whether the query, key and value projections have biases, whatever `attention_bias` says.
        sinks: whether attention has one sink per head and layer.
        expert_bias: whether the experts and the router have biases.
        router_bias: whether the router has one number per expert and layer.
        gated: whether the MLP has three matrices instead of two.
        ties: the value of `tie_word_embeddings` where the key is absent.
        defaults: values of keys that are absent.
    """

    is_listed: bool = True
    norms: int = 2
    qk_norm: bool = False
    qkv_bias: bool = False
    sinks: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    gated: bool = True
    ties: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


_LLAMA = Family()


_QWEN2 = Family(qkv_bias=True)


_QWEN3 = Family(qk_norm=True)


_GEMMA2 = Family(norms=4, ties=True, defaults={"head_dim": 256, "vocab_size": 256000})


_GEMMA3 = Family(
    norms=4,
    qk_norm=True,
    ties=True,
    defaults={"head_dim": 256, "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4},
)


_DEEPSEEK_V3 = Family(router_bias=True)


_TWO_MATRICES = Family(gated=False, qkv_bias=True)


FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "phi3": _LLAMA,
    "olmo2": _LLAMA,
    "granite": _LLAMA,
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "gemma": Family(ties=True, defaults={"head_dim": 256, "vocab_size": 256000}),
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "deepseek_v2": Family(),
    "deepseek_v3": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "glm4_moe": Family(router_bias=True),
    "gpt_oss": Family(sinks=True, expert_bias=True),
    "gpt_neox": _TWO_MATRICES,
    "phi": _TWO_MATRICES,
    "starcoder2": _TWO_MATRICES,
}


UNKNOWN = Family(is_listed=False)


def family_of(model_type: str | None) -> Family:
    """Return the features of a model type; those of a plain gated decoder if it is not listed."""
    return FAMILIES.get(model_type or "", UNKNOWN)


_FULL = ("full_attention", "attention", "global_attention")


_WINDOWED = ("sliding_attention", "chunked_attention", "local_attention")


_NO_WINDOW = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
"""Types whose `sliding_window` counts only with `use_sliding_window`."""


def projections(keys: Keys, family: Family) -> tuple[int, int]:
    """Return the weights of all layers' projections, and the count of their biases, head norms and sinks."""
    layers, hidden, heads = (keys.count(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    if keys.optional("kv_lora_rank"):
        return _latent_projections(keys, layers, hidden, heads)
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
    """Return the attention of the full layers and of the windowed layers, and the window in tokens (0: none).

    Raises:
        InputError: a layer is of an unknown kind, or the length of a window is missing.
    """
    windowed, window = _windowed_layers(keys)
    layers = keys.count("num_hidden_layers")
    elements, flops = _attention_of_layer(keys)

    def part(count: int) -> Attention:
        return Attention(count, count * elements, count * flops)

    return part(layers - windowed), part(windowed), window


def head_dim(keys: Keys) -> int:
    """Return the size of a head."""
    return keys.optional("head_dim") or keys.count("hidden_size") // keys.count("num_attention_heads")


def _attention_of_layer(keys: Keys) -> tuple[float, float]:
    """Return what a layer caches per token [numbers] and computes per pair of tokens [FLOPs]."""
    heads = keys.count("num_attention_heads")
    latent = keys.optional("kv_lora_rank")
    if latent:
        cached = latent + keys.count("qk_rope_head_dim")
        return float(cached), 2.0 * heads * (cached + latent)
    size = head_dim(keys)
    return 2.0 * (keys.optional("num_key_value_heads") or heads) * size, 4.0 * heads * size


def _latent_projections(keys: Keys, layers: int, hidden: int, heads: int) -> tuple[int, int]:
    """Return the weights and norms of all layers with latent attention (MLA)."""
    rank, rope = keys.count("kv_lora_rank"), keys.count("qk_rope_head_dim")
    nope, value = keys.count("qk_nope_head_dim"), keys.count("v_head_dim")
    q_rank = keys.optional("q_lora_rank")
    query = heads * (nope + rope)
    weights = hidden * q_rank + q_rank * query if q_rank else hidden * query
    weights += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    return layers * weights, layers * (rank + (q_rank or 0))


def _windowed_layers(keys: Keys) -> tuple[int, int]:
    """Return the number of layers with a window, and its length."""
    content, layers = keys.content, keys.count("num_hidden_layers")
    kinds = content.get("layer_types")
    if isinstance(kinds, list):
        return _windowed_by_type(keys, kinds)
    window = content.get("sliding_window")
    if not window or content.get("use_sliding_window") is False:
        return 0, 0
    model_type = str(content.get("model_type", ""))
    if model_type in _NO_WINDOW and not content.get("use_sliding_window"):
        return 0, 0
    if model_type in _NO_WINDOW:  # the first `max_window_layers` layers are full
        return layers - min(int(content.get("max_window_layers", layers)), layers), int(window)
    if model_type == "gpt_oss":
        return (layers + 1) // 2, int(window)
    every = content.get("sliding_window_pattern") or content.get("_sliding_window_pattern")
    every = every or {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}.get(model_type)
    return (layers - layers // int(every) if every else layers), int(window)


def _windowed_by_type(keys: Keys, kinds: list[Any]) -> tuple[int, int]:
    """Return the number of layers with a window, and its length, from `layer_types`."""
    layers = keys.count("num_hidden_layers")
    if len(kinds) != layers:
        raise InputError(f"{keys.name}: config.json: layer_types lists {len(kinds)} layers, not {layers}")
    unknown = sorted({str(kind) for kind in kinds if kind not in (*_FULL, *_WINDOWED)})
    if unknown:
        raise InputError(
            f"{keys.name}: config.json: layer_types: {', '.join(unknown)} is not known, only full and sliding-window "
            "attention"
        )
    windowed = sum(kind in _WINDOWED for kind in kinds)
    return (windowed, keys.first("sliding_window", "attention_chunk_size")) if windowed else (0, 0)


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


@dataclass(frozen=True)
class Experts:
    """Routed experts: the weights of all layers, and the experts per layer and per token."""

    weights: int = 0
    per_layer: int = 0
    per_token: int = 0


def mlp_weights(keys: Keys, family: Family) -> tuple[int, Experts, int]:
    """Return the weights of dense MLPs and shared experts, the routed experts, and the weights of routers and biases.

    Raises:
        InputError: a key is missing.
    """
    layers, hidden = keys.count("num_hidden_layers"), keys.count("hidden_size")
    matrices = 3 if family.gated else 2
    per_layer = keys.optional(*_EXPERTS)
    if per_layer is None:
        wide = keys.count("intermediate_size")
        bias = layers * ((matrices - 1) * wide + hidden) if keys.flag("mlp_bias") else 0
        return layers * matrices * hidden * wide, Experts(), bias
    sparse = _sparse_layers(keys, layers)
    wide = keys.first("moe_intermediate_size", "intermediate_size")
    expert = matrices * hidden * wide
    dense = (layers - sparse) * matrices * hidden * _dense_width(keys) if sparse < layers else 0
    shared = keys.optional("n_shared_experts", "num_shared_experts")
    shared_width = keys.optional("shared_expert_intermediate_size") or (shared or 0) * wide
    small = sparse * hidden * per_layer
    if keys.optional("shared_expert_intermediate_size"):
        small += sparse * hidden  # the shared expert's gate
    if family.router_bias:
        small += sparse * per_layer
    if family.expert_bias:
        small += sparse * per_layer * ((matrices - 1) * wide + hidden + 1)
    return (
        dense + sparse * matrices * hidden * shared_width,
        Experts(sparse * per_layer * expert, per_layer, keys.first(*_EXPERTS_PER_TOKEN)),
        small,
    )


def _dense_width(keys: Keys) -> int:
    return keys.first("intermediate_size_mlp", "intermediate_size")


def _sparse_layers(keys: Keys, layers: int) -> int:
    """Return the number of layers with routed experts."""
    first = int(keys.content.get("first_k_dense_replace") or 0)
    listed = keys.content.get("moe_layers")
    if isinstance(listed, list):
        return len(listed)
    dense_only = set(keys.content.get("mlp_only_layers") or ())
    step = keys.optional("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    return sum(layer >= first and layer not in dense_only and (layer + 1) % step == 0 for layer in range(layers))
