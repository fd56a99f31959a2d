"""Model families: the features of each `model_type` that its config.json leaves out.

A config.json states numbers; the model's code fixes the rest: biases, norms, the number of matrices in an MLP, and the
values of absent keys. Source of all: the configuration and modelling files of each type in Hugging Face transformers
4.57, or beside the weights where transformers has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inference_energy.estimate.shapes.keys import Keys

Feature = bool | str
"""Always or never there; or the name of the key that switches it on, or with `!` before it off."""


@dataclass(frozen=True)
class Family:
    """Features that a model type has beyond the numbers of its config.json.

    Attributes:
        is_listed: False for a type that is not in `FAMILIES`; the features are then those of a plain gated decoder.
        attention: `grouped` queries (or latent ones, if the config has `kv_lora_rank`), or `factored` (Step-3).
        norms: normalization vectors of the hidden size per layer.
        norm_bias: whether a norm has a bias beside its weight.
        final_norm: number of norms after the last layer, or after the embedding.
        qk_norm: norm of queries and keys: of a head's size, of the size of all heads, or none.
        has_qk_norm: whether `qk_norm` is there.
        qkv_bias: whether query, key and value projections have biases.
        o_bias: whether the output projection has.
        mlp_bias: whether the MLP has.
        head_bias: whether the output layer has.
        sinks: whether attention has one sink per head and layer.
        expert_bias: whether experts and router have biases.
        router_bias: whether the router has one number per expert and layer.
        gated: whether the MLP has three matrices instead of two.
        ties: the value of `tie_word_embeddings` where the key is absent.
        shared: key of the width of a shared expert in each layer with experts, if its presence is not stated.
        shared_gate: whether the shared expert has a gate.
        residual: key of the width of a dense MLP beside the experts of each layer.
        has_residual: whether that MLP is there.
        window: which layers `sliding_window` is for, if `layer_types` is absent: all; those that
            `use_sliding_window` and `max_window_layers` leave (`opt_in`); all but each n-th (`pattern`); every other
            one from the first (`alternate`); or chunks in layers that rotate positions (`chunked`).
        pattern: n of `pattern`, where the key is absent.
        positions: key of the length of a learned position table.
        positions_more: rows that the table has beyond that length.
        aliases: the type's names of keys, and the usual name of each.
        defaults: values of keys that are absent.
        expects: further keys that the type states, and the values that are known (empty: any changes no count).
        prepare: fills in what the type derives from other keys.
    """

    is_listed: bool = True
    attention: Literal["grouped", "factored"] = "grouped"
    norms: int | Callable[[Keys], int] = 2
    norm_bias: Feature = False
    final_norm: int = 1
    qk_norm: Literal["none", "head", "heads"] = "none"
    has_qk_norm: Feature = True
    qkv_bias: Feature = "attention_bias"
    o_bias: Feature = "attention_bias"
    mlp_bias: Feature = "mlp_bias"
    head_bias: Feature = False
    sinks: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    gated: bool = True
    ties: bool = False
    shared: str | None = None
    shared_gate: bool = False
    residual: str | None = None
    has_residual: Feature = True
    window: Literal["all", "opt_in", "pattern", "alternate", "chunked"] = "all"
    pattern: int | None = None
    positions: str | None = None
    positions_more: int = 0
    aliases: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    expects: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    prepare: Callable[[Keys], None] = lambda _: None


def family_of(model_type: str, architectures: object = None) -> tuple[str, Family]:
    """Return the type and its features; that of the architecture if the type is not listed, else a plain decoder's.

    Some models state a `model_type` that is not theirs (Grok-2: `git`) or none, but the class that loads them.
    """
    if model_type in FAMILIES:
        return model_type, FAMILIES[model_type]
    names = architectures if isinstance(architectures, list) else []
    for name in names:
        if isinstance(name, str) and name in _OF_ARCHITECTURE:
            return _OF_ARCHITECTURE[name], FAMILIES[_OF_ARCHITECTURE[name]]
    return model_type, UNKNOWN


def _derive(**derived: Callable[[Keys], Any]) -> Callable[[Keys], None]:
    """Return a `prepare` that fills in each absent key."""

    def prepare(keys: Keys) -> None:
        for key, value in derived.items():
            if keys.get(key) is None:
                keys.content[key] = value(keys)

    return prepare


_FOUR_WIDE = _derive(intermediate_size=lambda keys: 4 * keys.count("hidden_size"))


def _falcon(keys: Keys) -> None:
    heads = keys.count("num_attention_heads")
    if keys.flag("new_decoder_architecture"):
        kv_heads = keys.optional("num_kv_heads") or heads
    else:
        kv_heads = 1 if keys.flag("multi_query", default=True) else heads
        keys.get("num_kv_heads")
    keys.content["num_key_value_heads"] = kv_heads
    keys.get("parallel_attn")
    keys.get("multi_query")
    _FOUR_WIDE(keys)


def _falcon_norms(keys: Keys) -> int:
    if keys.flag("new_decoder_architecture"):
        return keys.optional("num_ln_in_parallel_attn") or 2
    return 1 if keys.flag("parallel_attn", default=True) else 2


def _one_kv_head(keys: Keys) -> None:
    if keys.flag("multi_query", default=True):
        keys.content["num_key_value_heads"] = 1
    _FOUR_WIDE(keys)


def _chatglm(keys: Keys) -> None:
    if keys.flag("multi_query_attention"):
        keys.content["num_key_value_heads"] = keys.count("multi_query_group_num")
    keys.get("multi_query_group_num")


def _flattened(*nested: str, ratio: str | None = None) -> Callable[[Keys], None]:
    """Return a `prepare` that reads keys of nested objects like keys of the outer one."""

    def prepare(keys: Keys) -> None:
        for outer in nested:
            inner = keys.get(outer)
            if inner is None:
                continue
            if not isinstance(inner, Mapping):
                raise keys.error(outer, " is no object with keys")
            part = Keys(keys.name, inner, _NESTED_NAMES)
            for key in (*_NESTED_NAMES.values(), "qk_ln"):
                if part.get(key) is not None:
                    keys.content[key] = part.content[key]
            attention = part.get("attn_type")
            if attention == "multiquery_attention":
                keys.content["num_key_value_heads"] = 1
            elif attention not in (None, "multihead_attention", "grouped_query_attention"):
                raise keys.error(outer, f".attn_type {attention!r} is not known")
            part.refuse_overlooked(is_listed=True)
        if ratio:
            keys.content["intermediate_size"] = keys.count(ratio) * keys.count("hidden_size")

    return prepare


_NESTED_NAMES = {
    "kv_n_heads": "num_key_value_heads",
    "ffn_hidden_size": "intermediate_size",
    "moe_num_experts": "moe_num_experts",
    "moe_top_k": "moe_top_k",
}


def _half_wide(keys: Keys) -> None:
    """Qwen's first generation states the width of gate and up projection together."""
    keys.content["intermediate_size"] = keys.count("intermediate_size") // 2


def _full_word_vectors(keys: Keys) -> None:
    width = keys.get("word_embed_proj_dim")
    if width is not None and width != keys.get("hidden_size"):
        raise keys.error("word_embed_proj_dim", f" is {width}: embeddings of another width are not known")
    if not keys.flag("do_layer_norm_before", default=True):
        raise keys.error("do_layer_norm_before", " is false: norms after the layers are not known")


_LLAMA = Family()
_QWEN2 = Family(qkv_bias=True, o_bias=False, window="opt_in", defaults={"max_window_layers": 28})
_QWEN2_MOE = replace(
    _QWEN2, shared_gate=True, defaults={"shared_expert_intermediate_size": 5632, "max_window_layers": 28}
)
_QWEN3 = replace(
    _LLAMA,
    qk_norm="head",
    window="opt_in",
    defaults={"head_dim": 128, "max_window_layers": 28},
    expects={"use_qk_norm": (True,)},
)
_MISTRAL = replace(_LLAMA, qkv_bias=False, o_bias=False, mlp_bias=False, defaults={"num_key_value_heads": 8})
_GEMMA = Family(ties=True, defaults={"head_dim": 256, "vocab_size": 256000})
_GEMMA2 = replace(_GEMMA, norms=4, window="pattern", pattern=2)
_GEMMA3 = replace(
    _GEMMA,
    norms=4,
    qk_norm="head",
    window="pattern",
    pattern=6,
    aliases={"_sliding_window_pattern": "sliding_window_pattern"},
    defaults={
        "head_dim": 256,
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
    },
)
_DEEPSEEK_V3 = Family(router_bias=True)
_GLM = Family(qkv_bias="attention_bias", o_bias=False)
_ALL_BIASES = Family(
    gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True, ties=True, prepare=_FOUR_WIDE
)
_N_NAMES = {
    "n_embd": "hidden_size",
    "n_embed": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
}
_GPT2 = replace(
    _ALL_BIASES, aliases=_N_NAMES, positions="n_positions", defaults={"n_positions": 1024, "vocab_size": 50257}
)
_GPTJ = replace(_ALL_BIASES, aliases=_N_NAMES, norms=1, qkv_bias=False, o_bias=False, head_bias=True, ties=False)
_FALCON = Family(
    gated=False,
    norms=_falcon_norms,
    norm_bias=True,
    qkv_bias="bias",
    o_bias="bias",
    mlp_bias="bias",
    ties=True,
    aliases={**_N_NAMES, "ffn_hidden_size": "intermediate_size", "n_head_kv": "num_kv_heads"},
    defaults={"parallel_attn": True, "multi_query": True},
    prepare=_falcon,
)
_CHATGLM = Family(
    qkv_bias="add_qkv_bias",
    o_bias="add_bias_linear",
    mlp_bias="add_bias_linear",
    aliases={
        "num_layers": "num_hidden_layers",
        "ffn_hidden_size": "intermediate_size",
        "padded_vocab_size": "vocab_size",
        "kv_channels": "head_dim",
    },
    expects={"post_layer_norm": (True,), "rmsnorm": (True,)},
    prepare=_chatglm,
)
_COHERE = Family(norms=1, qk_norm="heads", has_qk_norm="use_qk_norm", mlp_bias=False, ties=True)
_HUNYUAN = Family(
    qk_norm="head",
    has_qk_norm="use_qk_norm",
    aliases={"attention_head_dim": "head_dim"},
    defaults={"use_mixed_mlp_moe": True},
    expects={"cla_share_factor": ()},
)
_MPT_NAMES = {"d_model": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}
_ERNIE = Family(qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", ties=True)
_STABLELM = Family(
    norms=lambda keys: 1 if keys.flag("use_parallel_residual") else 2,
    norm_bias=True,
    qk_norm="heads",
    has_qk_norm="qk_layernorm",
    qkv_bias="use_qkv_bias",
    o_bias=False,
    mlp_bias=False,
)
_OLMO2 = Family(qk_norm="heads", mlp_bias=False)
_LLAMA4 = Family(
    window="chunked",
    shared="intermediate_size",
    defaults={"attention_chunk_size": 8192},
    expects={"use_qk_norm": (), "intermediate_size_mlp": (), "for_llm_compressor": ()},
)
_GROK = Family(
    norms=4,
    residual="intermediate_size",
    has_residual="residual_moe",
    qkv_bias=False,
    o_bias=False,
    defaults={"head_dim": 128},
    expects={"max_attn_value": ()},
)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "ministral": _MISTRAL,
    "mixtral": _MISTRAL,
    "phi3": replace(
        _LLAMA,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        expects={"full_attn_mod": (1,), "interpolate_factor": (), "attention_bias": (False,), "mlp_bias": (False,)},
    ),
    "phimoe": Family(norm_bias=True, head_bias="lm_head_bias", mlp_bias=False),
    "qwen": Family(
        qkv_bias=True,
        o_bias="!no_bias",
        mlp_bias="!no_bias",
        aliases={"kv_channels": "head_dim"},
        defaults={"no_bias": True},
        prepare=_half_wide,
    ),
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_moe": _QWEN2_MOE,
    "qwen3": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "deepseek": _LLAMA,
    "deepseek_v2": Family(),
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v32": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "dots1": replace(_DEEPSEEK_V3, qk_norm="head"),
    "glm": _GLM,
    "glm4": replace(_GLM, norms=4),
    "glm4_moe": replace(_GLM, qk_norm="head", has_qk_norm="use_qk_norm", router_bias=True),
    "chatglm": _CHATGLM,
    "gpt_oss": Family(sinks=True, expert_bias=True, window="alternate", defaults={"attention_bias": True}),
    "granite": _LLAMA,
    "granitemoe": _LLAMA,
    "granitemoeshared": _LLAMA,
    "olmo": Family(norms=0, final_norm=0),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, window="pattern", pattern=4),
    "olmoe": _OLMO2,
    "cohere": _COHERE,
    "cohere2": replace(
        _COHERE,
        qk_norm="none",
        window="pattern",
        pattern=4,
        expects={
            "use_qk_norm": (False,),
            "use_gated_activation": (True,),
            "use_parallel_block": (True,),
            "use_embedding_sharing": (True,),
            "layer_switch": (),
        },
    ),
    "nemotron": Family(gated=False, norm_bias=True),
    "arcee": Family(gated=False),
    "seed_oss": Family(o_bias="attention_out_bias", defaults={"attention_bias": True}),
    "smollm3": replace(_LLAMA, ties=True),
    "exaone": Family(aliases={"num_layers": "num_hidden_layers"}),
    "exaone4": Family(qk_norm="head", window="pattern", pattern=4),
    "internlm": Family(qkv_bias="bias", o_bias="bias", defaults={"bias": True}),
    "internlm2": Family(qkv_bias="bias", o_bias="bias", defaults={"bias": True}),
    "internlm3": Family(qkv_bias="qkv_bias", o_bias="bias", mlp_bias="bias"),
    "baichuan": _LLAMA,
    "minicpm": replace(_LLAMA, ties=True),
    "minicpm3": replace(
        _LLAMA,
        ties=True,
        prepare=_derive(v_head_dim=lambda keys: keys.count("hidden_size") // keys.count("num_attention_heads")),
    ),
    "stablelm": _STABLELM,
    "stablelm_epoch": _STABLELM,
    "minimax_m2": Family(
        qk_norm="heads",
        has_qk_norm="use_qk_norm",
        router_bias=True,
        qkv_bias=False,
        o_bias=False,
        expects={"qk_norm_type": ("per_layer",), "use_routing_bias": (True,), "attn_type_list": ()},
    ),
    "dbrx": Family(
        norm_bias=False,
        qkv_bias=False,
        o_bias=False,
        aliases=_MPT_NAMES,
        prepare=_flattened("attn_config", "ffn_config"),
    ),
    "arctic": Family(
        residual="hidden_size", has_residual="use_residual", norms=3, expects={"parallel_attn_mlp_res": ()}
    ),
    "grok-1": replace(_GROK, ties=True),
    "grok-2": _GROK,
    "hunyuan": _HUNYUAN,
    "hunyuan_v1_moe": _HUNYUAN,
    "hunyuan_v1_dense": _HUNYUAN,
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "ernie4_5": _ERNIE,
    "ernie4_5_moe": replace(_ERNIE, router_bias=True, expects={"moe_use_aux_free": ()}),
    "step3_text": Family(attention="factored", aliases={"num_attention_groups": "num_key_value_heads"}),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, prepare=_one_kv_head, defaults={"n_positions": 1024}),
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "gpt_neox": replace(
        _ALL_BIASES,
        ties=False,
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        defaults={"attention_bias": True},
        expects={"use_parallel_residual": ()},
    ),
    "opt": replace(
        _ALL_BIASES,
        qkv_bias="enable_bias",
        o_bias="enable_bias",
        mlp_bias="enable_bias",
        positions="max_position_embeddings",
        positions_more=2,
        aliases={"ffn_dim": "intermediate_size"},
        defaults={"enable_bias": True},
        prepare=_full_word_vectors,
    ),
    "bloom": replace(_ALL_BIASES, aliases=_N_NAMES, final_norm=2),
    "falcon": _FALCON,
    "RefinedWeb": replace(_FALCON, defaults={**_FALCON.defaults, "new_decoder_architecture": True}),
    "RefinedWebModel": _FALCON,
    "mpt": Family(
        gated=False,
        norm_bias="!no_bias",
        qkv_bias="!no_bias",
        o_bias="!no_bias",
        mlp_bias="!no_bias",
        qk_norm="heads",
        has_qk_norm="qk_ln",
        ties=True,
        aliases=_MPT_NAMES,
        defaults={"no_bias": True, "expansion_ratio": 4},
        expects={"embedding_fraction": (), "learned_pos_emb": ()},
        prepare=_flattened("attn_config", "ffn_config", ratio="expansion_ratio"),
    ),
    "phi": replace(
        _ALL_BIASES,
        norms=1,
        head_bias=True,
        ties=False,
        qk_norm="none",
        aliases=_N_NAMES,
        defaults={"vocab_size": 51200},
    ),
    "starcoder2": replace(
        _ALL_BIASES,
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
        defaults={"use_bias": True, "num_key_value_heads": 2},
        expects={"mlp_type": ("default",)},
    ),
}

UNKNOWN = Family(is_listed=False)

_OF_ARCHITECTURE = {
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Phi3ForCausalLM": "phi3",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "gpt_neox",
    "GPTJForCausalLM": "gptj",
    "OPTForCausalLM": "opt",
    "Grok1ForCausalLM": "grok-2",
    "Grok1ModelForCausalLM": "grok-1",
    "HunYuanMoEV1ForCausalLM": "hunyuan_v1_moe",
    "MPTForCausalLM": "mpt",
}
