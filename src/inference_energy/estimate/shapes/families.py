"""What a model_type means beyond the numbers of its config.json.

A config.json leaves out what the model's code fixes: biases, extra norms, and defaults of keys that are absent.
Source: the configuration and modelling files of each type in Hugging Face transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """Features of a model type.

    Attributes:
        known: False where the type is not in the list, and the features are a plain gated decoder's.
        norms: vectors of the hidden size a layer has for normalisation.
        qk_norm: a norm of one head's size for queries and one for keys.
        qkv_bias: biases of the query, key and value projections, whatever `attention_bias` says.
        sinks: one number a head and layer.
        expert_bias: biases inside the experts and of the router.
        router_bias: one number an expert and layer.
        gated: the MLP has three matrices, not two.
        ties: `tie_word_embeddings` where the key is absent.
        defaults: keys that the type fills in when they are absent.
    """

    known: bool = True
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

UNKNOWN = Family(known=False)


def family_of(model_type: str | None) -> Family:
    """The features of a model type; those of a plain gated decoder where it is not known."""
    return FAMILIES.get(model_type or "", UNKNOWN)
