"""A model's shape from its Hugging Face config.json, or from the shipped catalogue (data/models.json).

A required key that is absent is an error that names it, and so is a key that matters and is not used; nothing is
guessed. Of a model with vision or audio parts only the language model (`text_config`) is read. Each model of the
catalogue comes with the page its config.json is from. What a config.json leaves out is in `families`, and how layers
are counted in `layers`.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from inference_energy.contracts.config_keys import is_off, listed
from inference_energy.contracts.outside import MIB, decode_json, read_bytes
from inference_energy.errors import InputError
from inference_energy.estimate.shapes.families import Family, family_of
from inference_energy.estimate.shapes.keys import Keys, shortened
from inference_energy.estimate.shapes.layers import attention_of_layers, mlp_weights, norm_numbers, projections
from inference_energy.estimate.shapes.precision import kv_bytes, precision_in_config, precision_named
from inference_energy.estimate.shapes.shape import ModelShape

MAX_BYTES = 4 * MIB
"""Size of a config.json. The largest published ones, with a mapping for each layer, have a few hundred KiB."""

MOST_PARAMETERS = 10**14
"""Fifty times the largest published model."""


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
    path = Path(model)
    try:
        path = path.expanduser()
        is_there = path.exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL byte, no such home
        is_there = False
    if is_there:
        return shape_from_file(path, None, precision, kv_precision)
    raise InputError(
        f"{shortened(model)[1:-1]}: neither a file nor a model that is shipped; give the path of a config.json, "
        f"or one of: {', '.join(catalogue_models())}",
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
    try:
        content = decode_json(read_bytes(file, MAX_BYTES))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error
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
        InputError: a key is missing, has a value that cannot be, or matters and is not known; or the architecture is
            not supported. The message names the key.
    """
    text, is_nested = _language_model(name, config)
    model_type, family = family_of(_text_of(name, text, "model_type"), text.get("architectures"))
    _check_is_decoder(name, text, model_type)
    keys = Keys(name, text, family.aliases, family.defaults)
    family.prepare(keys)
    keys.expect(family.expects)
    if not family.is_listed:
        _check_is_gated(keys)
    keys.require("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    hidden, vocabulary = keys.count("hidden_size"), keys.count("vocab_size")
    weights = precision_named(precision) if precision else precision_in_config(text)
    kv, kv_source = kv_bytes(text, kv_precision)
    attention, small = projections(keys, family)
    full, windowed, window, keeps_all = attention_of_layers(keys, family, kv)
    mlp, experts, gates = mlp_weights(keys, family)
    small += norm_numbers(keys, family) + gates
    small += vocabulary if keys.switch(family.head_bias) else 0
    positions = 0 if family.positions is None else keys.count(family.positions) + family.positions_more
    shape = ModelShape(
        name=name,
        model_type=model_type,
        layers=keys.layers,
        hidden=hidden,
        embedding=vocabulary * hidden,
        tied=keys.flag("tie_word_embeddings", family.ties),
        positions=positions * hidden,
        attention=attention,
        mlp=mlp,
        experts=experts.weights,
        experts_per_layer=experts.per_layer,
        experts_per_token=experts.per_token,
        small=small,
        full=full,
        windowed=windowed,
        window=window,
        keeps_all=keeps_all,
        weights=weights,
        kv_bytes=kv,
        notes=(
            f"weights {weights.name} ({weights.source}); KV cache {kv:g} bytes a number ({kv_source})",
            *_notes(keys, family, model_type, is_nested=is_nested),
        ),
    )
    if shape.parameters > MOST_PARAMETERS:
        raise InputError(
            f"{name}: config.json: its numbers make {shape.parameters:.2g} parameters, more than any model has; see "
            f"hidden_size {hidden}, num_hidden_layers {shape.layers}, vocab_size {vocabulary}"
        )
    return shape


def _notes(keys: Keys, family: Family, model_type: str, *, is_nested: bool) -> list[str]:
    """Return the assumptions about a model; raise InputError for a key that matters and was not used."""
    ignored = keys.refuse_overlooked(is_listed=family.is_listed)
    notes = []
    if not family.is_listed:
        _check_says_ties(keys, model_type)
        notes.append(
            f"model_type {shortened(model_type) if model_type else '(absent)'} is not known: counted as a gated "
            "decoder like Llama, as all its keys allow"
        )
    if ignored:
        notes.append(f"keys of config.json that are not known here and were taken as harmless: {listed(ignored)}")
    if is_nested:
        notes.append("the language model alone: vision and audio parts are not counted")
    if keys.has("num_nextn_predict_layers"):
        notes.append("without the layers for multi-token prediction (num_nextn_predict_layers)")
    return notes


_SHARED_WITH_NESTED = ("quantization_config", "torch_dtype", "dtype", "tie_word_embeddings", "architectures")


def _language_model(name: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the keys of the language model, and whether they are those of a part of the config."""
    for nested in _NESTED:
        inner = config.get(nested)
        if is_off(inner):
            continue
        if not isinstance(inner, Mapping):
            raise InputError(f"{name}: config.json: {nested} is {shortened(inner)}; an object is expected")
        around = {key: config[key] for key in _SHARED_WITH_NESTED if key in config}
        return {**around, **inner, "architectures": config.get("architectures")}, True
    return dict(config), False


_ENCODERS_TEXT = """
bert roberta xlm-roberta xlm-roberta-xl camembert albert distilbert electra deberta deberta-v2 mpnet modernbert
nomic_bert new longformer big_bird funnel convbert mobilebert squeezebert roformer ernie ernie_m esm xlm xlnet
flaubert ibert nystromformer layoutlm data2vec-text rembert megatron-bert luke gte jina eurobert neobert bert-
generation t5 mt5 umt5 byt5 longt5 switch_transformers t5gemma bart mbart pegasus pegasus_x m2m_100 nllb-moe marian
plbart led blenderbot blenderbot-small prophetnet bigbird_pegasus fsmt whisper speech_to_text moonshine clip siglip
siglip2 vit wav2vec2 hubert wavlm git
"""
_ENCODERS = frozenset(_ENCODERS_TEXT.split())
_STATE_SPACE_TEXT = """
mamba mamba2 falcon_mamba jamba bamba zamba zamba2 rwkv rwkv5 rwkv6 rwkv7 recurrent_gemma griffin falcon_h1
granitemoehybrid nemotron_h nemotron-nas minimax minimax_text_01 minimax_m1 qwen3_next lfm2 lfm2_moe phi4flash plamo2
kimi_linear hgrn hymba xlstm retnet samba stripedhyena olmo_hybrid
"""
_STATE_SPACE = frozenset(_STATE_SPACE_TEXT.split())
_NOT_A_DECODER = ("Model", "Classification", "MaskedLM", "RewardModel", "QuestionAnswering", "Retrieval", "Embedding")
_DECODER = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ChatModel", "ChatGLMModel")


def _check_is_decoder(name: str, config: Mapping[str, Any], model_type: str) -> None:
    """Raise InputError for an encoder, a pooling head, or layers other than attention."""

    def refused(key: str, value: object, kind: str) -> InputError:
        return InputError(
            f"{name}: config.json: {key} {shortened(value)}: {kind} not known, only decoders with full, sliding-window "
            "and latent attention"
        )

    if not is_off(config.get("is_encoder_decoder")):
        raise refused("is_encoder_decoder", config["is_encoder_decoder"], "models with an encoder are")
    if model_type in _ENCODERS:
        raise refused("model_type", model_type, "encoders are")
    for key in ("is_causal", "use_bidirectional_attention"):
        if key in config and bool(config[key]) != (key == "is_causal"):
            raise refused(key, config[key], "encoders are")
    architectures = config.get("architectures") or []
    for architecture in architectures if isinstance(architectures, list) else [architectures]:
        named = str(architecture)
        if named.endswith(_NOT_A_DECODER) and not named.endswith(_DECODER):
            raise refused("architectures", named, "models that classify, score or embed are")
    found = [key for key in config if _STATE.match(key) and not is_off(config[key]) and not _is_full(key, config[key])]
    if found:
        raise refused(found[0], config[found[0]], "state-space and linear-attention layers are")
    if model_type in _STATE_SPACE:
        raise refused("model_type", model_type, "state-space and linear-attention layers are")


_STATE = re.compile(
    r"mamba|n_mamba|use_mamba|ssm|rwkv|lru_|linear_(num|attn|key|value|conv)|attn_type_list|hybrid_|conv_kernel|d_conv|"
    r"time_step_|layers_block_type|block_types|mb_per_layer|conv_L_cache|state_size|d_state|attn_layer_(period|offset)"
)
"""Keys of state-space, recurrent and linear-attention layers, named first since they tell most of the model."""


def _is_full(key: str, value: object) -> bool:
    """Return whether `attn_type_list` states full attention, 1, for every layer (MiniMax-M2)."""
    return key == "attn_type_list" and isinstance(value, list) and all(kind == 1 for kind in value)


_GATED_ACTIVATIONS = ("silu", "swish", "swiglu", "geglu", "gelu_pytorch_tanh", "fast_swiglu")


def _check_is_gated(keys: Keys) -> None:
    """Raise InputError if the MLP of a type that is not known need not be a gated one."""
    for key in ("hidden_act", "hidden_activation", "activation_function"):
        activation = keys.get(key)
        if activation is not None and activation not in _GATED_ACTIVATIONS:
            raise keys.error(
                key,
                f" {shortened(activation)}: the model_type is not known, and its MLP may have two matrices or three",
            )


def _check_says_ties(keys: Keys, model_type: str) -> None:
    """Raise InputError if a type that is not known leaves open whether its two tables are one."""
    if keys.get("tie_word_embeddings") is None:
        raise keys.error(
            "tie_word_embeddings",
            f" is missing, and the default of model_type {shortened(model_type)} is not known; write true if input "
            "table and output layer are one, else false",
        )


def _text_of(name: str, config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}: config.json: {key} is {shortened(value)}; a text is expected")
    return value
