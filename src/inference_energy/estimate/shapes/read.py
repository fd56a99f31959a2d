"""A model's shape from its Hugging Face config.json.

A key that is needed and absent is an error that names it; nothing is guessed. Models with vision or audio parts are
read for their language model (`text_config`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_energy.contracts.tables import read_json
from inference_energy.errors import InputError
from inference_energy.estimate.shapes.attention import layers_of, projections
from inference_energy.estimate.shapes.experts import mlp_weights
from inference_energy.estimate.shapes.families import family_of
from inference_energy.estimate.shapes.keys import Keys
from inference_energy.estimate.shapes.precision import asked, kv_bytes, of_config
from inference_energy.estimate.shapes.shape import ModelShape

_NESTED = ("text_config", "language_config", "llm_config")
_UNKNOWN_PARTS = (
    "mamba_n_heads",
    "mamba_num_heads",
    "ssm_cfg",
    "ssm_state_size",
    "rwkv_version",
    "linear_num_key_heads",
)


def shape_from_file(
    path: Path, name: str | None = None, precision: str | None = None, kv_precision: str | None = None
) -> ModelShape:
    """The shape in a config.json, or in that of a folder; see `shape_from_config`."""
    file = path / "config.json" if path.is_dir() else path
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a config.json: a JSON object is expected")
    return shape_from_config(content, name or file.resolve().parent.name, precision, kv_precision)


def shape_from_config(
    config: Mapping[str, Any], name: str, precision: str | None = None, kv_precision: str | None = None
) -> ModelShape:
    """The shape that a config.json describes.

    Args:
        config: its content.
        name: how the model is called.
        precision: of the weights (bf16, fp8, int8, int4); None: as the config states.
        kv_precision: of the key-value cache; None: as the config states, else 16 bit.

    Raises:
        InputError: a key is missing, or the architecture is of a kind that is not known.
    """
    inner = next((config[key] for key in _NESTED if isinstance(config.get(key), Mapping)), None)
    text = dict(config) if inner is None else {**_outer(config), **inner}
    model_type = str(text.get("model_type", ""))
    _refuse(name, text)
    family = family_of(model_type)
    keys = Keys(name, {**family.defaults, **text})
    layers, hidden = keys.count("num_hidden_layers"), keys.count("hidden_size")
    attention, biases = projections(keys, family)
    full, windowed, window = layers_of(keys)
    mlp, experts, gates = mlp_weights(keys, family)
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", family.ties)))
    weights = asked(precision) if precision else of_config(text)
    kv, kv_source = kv_bytes(text, kv_precision)
    norms = family.norms * hidden * layers + hidden
    notes = [f"weights {weights.name} ({weights.source}); KV cache {kv:g} bytes a number ({kv_source})"]
    if not family.known:
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
        experts_per_layer=experts.a_layer,
        experts_per_token=experts.a_token,
        small=norms + biases + gates,
        full=full,
        windowed=windowed,
        window=window,
        weights=weights,
        kv_bytes=kv,
        notes=tuple(notes),
    )


def _outer(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the outer config holds for the language model inside."""
    kept = ("quantization_config", "torch_dtype", "dtype", "tie_word_embeddings")
    return {key: config[key] for key in kept if key in config}


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    if config.get("is_encoder_decoder"):
        raise InputError(
            f"{name}: config.json: is_encoder_decoder: models with an encoder are not known, only decoders"
        )
    found = [key for key in _UNKNOWN_PARTS if config.get(key)]
    if found:
        raise InputError(
            f"{name}: config.json: {', '.join(found)}: state-space and linear-attention layers are not known, only "
            "full and sliding-window attention"
        )
