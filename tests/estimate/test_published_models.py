"""Shapes of published models of all families, and configurations that must be refused because a key would be missed.

`published_models.json` holds what each config.json says of the language model, beside the count that is published: in
full where the headers of the weights add up to it, else as the publisher rounds it. The counts are not ours.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from inference_energy.contracts.config_keys import is_harmless, is_structural
from inference_energy.errors import InputError
from inference_energy.estimate.shapes.config_json import shape_from_config, shape_of

PUBLISHED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("published_models.json").read_text())
BY_NAME = {entry["name"]: entry for entry in PUBLISHED}


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = BY_NAME[name]["config"]
    if "text_config" in config:
        return {**config, "text_config": {**config["text_config"], **changes}}
    return {**config, **changes}


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(InputError) as refused:
        shape_from_config(config, "m")
    return str(refused.value)


@pytest.mark.parametrize("entry", PUBLISHED, ids=list(BY_NAME))
def test_all_parameters_of_published_models(entry: dict[str, Any]) -> None:
    shape = shape_from_config(entry["config"], entry["name"])
    if "parameters" in entry:
        assert shape.parameters == entry["parameters"]
    else:
        assert shape.parameters == pytest.approx(entry["billion"] * 1e9, rel=0.01)
    assert not any("is not known: counted as" in note for note in shape.notes)


@pytest.mark.parametrize("entry", [entry for entry in PUBLISHED if "active_billion" in entry], ids=lambda e: e["name"])
def test_active_parameters_of_published_models(entry: dict[str, Any]) -> None:
    """Publishers count the input table, both tables or none, and round to a digit: one of the three must fit."""
    shape = shape_from_config(entry["config"], entry["name"])
    tables = (0, shape.embedding, (1 if shape.tied else 2) * shape.embedding)
    published = entry["active_billion"]
    rounding = 0.05 if published != int(published) else 0.5
    nearest = min(abs((shape.active_parameters - table) / 1e9 - published) for table in tables)
    assert nearest <= max(rounding, 0.03 * published)


def test_many_families_are_covered() -> None:
    types = {config_of(name).get("text_config", config_of(name))["model_type"] for name in BY_NAME}
    assert len(PUBLISHED) >= 40
    assert len(types) >= 40


STRUCTURAL = {
    "moe_every_other": 2,
    "num_zero_experts": 4,
    "mamba_d_state": 16,
    "ssm_cfg": {"layer": "Mamba2"},
    "conv_L_cache": 3,
    "linear_attn_config": {"kda_layers": [1, 2]},
    "lru_width": 2560,
    "rwkv_version": "6.0",
    "attn_type_list": [0, 1],
    "attention_type": "block_sparse",
    "residual_mlp": True,
    "o_lora_rank": 64,
    "block_configs": [{"attention": {"no_op": True}}],
    "hybrid_override_pattern": "M-M*",
    "cross_attention_layers": [3, 8],
    "altup_num_inputs": 4,
    "use_cla": True,
    "parallel_blocks": 2,
}


@pytest.mark.parametrize("name", ["Llama-2-7B", "Qwen3-235B-A22B", "DeepSeek-V2", "gemma-3-27b", "gpt2", "dbrx"])
@pytest.mark.parametrize("key", STRUCTURAL)
def test_a_key_that_matters_and_is_not_used_is_named(name: str, key: str) -> None:
    assert key in refusal(config_of(name, **{key: STRUCTURAL[key]}))


@pytest.mark.parametrize("key", STRUCTURAL)
def test_a_feature_that_is_off_is_no_reason_to_refuse(key: str) -> None:
    values: tuple[Any, ...] = (None, False, 0, [], {})
    for off in values:
        shape = shape_from_config(config_of("Qwen3-235B-A22B", **{key: off}), "m")
        assert shape.parameters == BY_NAME["Qwen3-235B-A22B"]["parameters"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_theta", 1e6),
        ("attention_dropout", 0.1),
        ("eos_token_id", [1, 2]),
        ("initializer_range", 0.02),
        ("residual_multiplier", 0.22),
        ("router_aux_loss_coef", 0.001),
        ("vision_config", {"hidden_size": 1280}),
        ("temperature", 0.7),
        ("num_nextn_predict_layers", 1),
        ("attn_logit_softcapping", 50.0),
    ],
)
def test_keys_without_effect_change_nothing(key: str, value: Any) -> None:
    assert is_harmless(key)
    shape = shape_from_config(config_of("Qwen3-235B-A22B", **{key: value}), "m")
    assert shape.parameters == BY_NAME["Qwen3-235B-A22B"]["parameters"]


def test_a_key_without_meaning_is_noted_for_a_known_type_and_refused_for_another() -> None:
    assert not is_structural("swirliness")
    known = shape_from_config(config_of("Llama-2-7B", swirliness=3), "m")
    assert any("swirliness" in note for note in known.notes)
    assert "swirliness" in refusal(config_of("Llama-2-7B", model_type="novel", swirliness=3))


def test_an_unknown_type_is_counted_only_if_its_mlp_is_known() -> None:
    plain = config_of("Llama-2-7B", model_type="novel")
    assert shape_from_config(plain, "m").parameters == BY_NAME["Llama-2-7B"]["parameters"]
    assert "hidden_act" in refusal({**plain, "hidden_act": "relu2"})
    assert "hidden_act" in refusal({**plain, "hidden_act": "gelu"})
    assert "tie_word_embeddings" in refusal({**plain, "tie_word_embeddings": None})


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 99,
}


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "bert", **SMALL}, "bert"),
        ({"model_type": "nomic_bert", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 30528}, "nomic_bert"),
        ({"model_type": "t5", "d_model": 512, "d_kv": 64, "num_layers": 6, "vocab_size": 32128}, "t5"),
        ({"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "is_encoder_decoder": True}, "encoder"),
        ({"model_type": "novel", "type_vocab_size": 2, **SMALL}, "type_vocab_size"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], **SMALL}, "architectures"),
        ({"model_type": "mistral", "architectures": ["MistralModel"], **SMALL}, "MistralModel"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForRewardModel"], **SMALL}, "Qwen2ForRewardModel"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True, **SMALL}, "use_bidirectional_attention"),
        ({"model_type": "qwen2", "is_causal": False, **SMALL}, "is_causal"),
        ({"model_type": "mamba", **SMALL}, "mamba"),
        ({"model_type": "falcon_h1", "mamba_d_ssm": 1536, **SMALL}, "mamba_d_ssm"),
        ({"model_type": "recurrent_gemma", "lru_width": 2560, "block_types": ["recurrent"], **SMALL}, "lru_width"),
        ({"model_type": "rwkv", "attention_hidden_size": 64, **SMALL}, "rwkv"),
        ({"model_type": "qwen3_next", "linear_num_key_heads": 16, **SMALL}, "linear_num_key_heads"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*", **SMALL}, "hybrid_override_pattern"),
        ({"model_type": "lfm2", "conv_L_cache": 3, **SMALL}, "conv_L_cache"),
        ({"model_type": "kimi_linear", "linear_attn_config": {"kda_layers": [1]}, **SMALL}, "linear_attn_config"),
        ({"model_type": "longcat_flash", "zero_expert_num": 256, **SMALL}, "zero_expert_num"),
        ({"model_type": "granitemoehybrid", "layer_types": ["mamba"] * 4, **SMALL}, "granitemoehybrid"),
        ({"model_type": "gemma3n_text", "altup_num_inputs": 4, "laurel_rank": 64, **SMALL}, "altup_num_inputs"),
        ({"model_type": "llama", "total_ut_steps": 4, **SMALL}, "total_ut_steps"),
        ({"model_type": "openelm", "num_query_heads": [12, 16], **SMALL}, "num_query_heads"),
    ],
)
def test_what_is_no_decoder_of_known_layers_is_refused_by_name(config: dict[str, Any], word: str) -> None:
    assert word in refusal(config)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "moe_k"])
@pytest.mark.parametrize("value", ["64", [1, 2], -3, 0, 1.5, 1e18, 10**30, True, {"a": 1}, None, float("nan")])
def test_a_count_that_cannot_be_is_named(key: str, value: Any) -> None:
    message = refusal(config_of("ERNIE-4.5-21B-A3B", **{key: value}))
    assert key in message or "num_experts_per_tok" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("EXAONE-4.0-32B", {"sliding_window_pattern": "LLXG"}, "sliding_window_pattern"),
        ("EXAONE-4.0-32B", {"sliding_window_pattern": ""}, "sliding_window_pattern"),
        ("EXAONE-4.0-32B", {"sliding_window": [512, None]}, "sliding_window"),
        ("Llama-2-7B", {"hidden_size": [], "num_hidden_layers": 0}, "hidden_size"),
        ("Llama-2-7B", {"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ("Llama-2-7B", {"num_key_value_heads": 64}, "num_key_value_heads"),
        ("Llama-2-7B", {"num_attention_heads": 33, "num_key_value_heads": None}, "hidden_size"),
        ("Llama-2-7B", {"num_hidden_layers": 20_000}, "num_hidden_layers"),
        ("Llama-2-7B", {"hidden_size": 10**8, "num_attention_heads": 10**6}, "hidden_size"),
        ("Llama-2-7B", {"layer_types": "full_attention"}, "layer_types"),
        ("Llama-2-7B", {"layer_types": [{"a": 1}] * 32}, "layer_types"),
        ("Llama-2-7B", {"model_type": ["llama"]}, "model_type"),
        ("Llama-2-7B", {"quantization_config": "fp8"}, "quantization_config"),
        ("Llama-2-7B", {"quantization_config": {"quant_method": "awq", "bits": "four"}}, "bits"),
        ("Llama-2-7B", {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 1e30}}, "group_size"),
        ("Step-3", {"moe_layers_enum": "4,5,sixty"}, "moe_layers_enum"),
        ("Step-3", {"moe_layers_enum": "4,5,61"}, "moe_layers_enum"),
        ("Step-3", {"moe_num_experts": 2}, "experts"),
        ("Hunyuan-A13B", {"moe_topk": [8] * 31 + [4]}, "moe_topk"),
        ("ERNIE-4.5-21B-A3B", {"moe_num_experts": [64, 64]}, "moe_num_experts"),
        ("Qwen3-235B-A22B", {"use_qk_norm": False}, "use_qk_norm"),
        ("Qwen3-235B-A22B", {"num_local_experts": 64}, "num_local_experts"),
        ("Qwen3-235B-A22B", {"mlp_only_layers": list(range(94))}, "experts"),
        ("dbrx", {"ffn_config": [1]}, "ffn_config"),
        ("command-r7b", {"use_qk_norm": True}, "use_qk_norm"),
        ("Llama-3.2-3B", {"num_key_value_heads": 0}, "num_key_value_heads"),
    ],
)
def test_a_value_of_another_kind_is_named(name: str, changes: dict[str, Any], word: str) -> None:
    assert word in refusal(config_of(name, **changes))


def test_windows_of_published_models() -> None:
    layers = {
        name: (shape.windowed.layers, shape.full.layers, shape.window)
        for name in ("EXAONE-4.0-32B", "command-r7b", "Llama-4-Scout", "gemma-3-27b", "gemma-2-9b", "Qwen2.5-14B")
        if (shape := shape_from_config(config_of(name), name))
    }
    assert layers == {
        "EXAONE-4.0-32B": (48, 16, 4096),
        "command-r7b": (24, 8, 4096),
        "Llama-4-Scout": (36, 12, 8192),
        "gemma-3-27b": (52, 10, 1024),
        "gemma-2-9b": (21, 21, 4096),
        "Qwen2.5-14B": (0, 48, 0),
    }


def test_sparse_attention_reads_the_best_tokens_and_the_keys_of_all() -> None:
    """DeepSeek-V3.2 by hand: latents of 2048 tokens, and of each token 128 index keys of a byte and a scale of 4."""
    shape, dense = shape_from_config(config_of("DeepSeek-V3.2"), "m"), shape_of("DeepSeek-V3")
    assert shape.kv_bytes_per_token == 61 * (2 * 576 + 132)
    assert float(shape.kv_read_bytes(100_000)) == 61 * (2 * 576 * 2048 + 132 * 100_000)
    assert float(shape.kv_resident_bytes(100_000)) == 61 * (2 * 576 + 132) * 100_000
    # The indexer: queries from the latent, a key and weights of its heads from the hidden state, and the key's norm.
    indexer = 1536 * 64 * 128 + 7168 * 128 + 7168 * 64 + 2 * 128
    assert shape.parameters - dense.parameters == 61 * indexer


def test_a_config_around_a_language_model_is_read() -> None:
    text = {key: value for key, value in config_of("Mistral-Small-24B").items() if key != "tie_word_embeddings"}
    around = {"model_type": "mistral3", "vision_config": {"hidden_size": 1024}, "tie_word_embeddings": False}
    assert shape_from_config({**around, "text_config": text}, "m").parameters == 23_572_403_200
    assert "text_config" in refusal({**around, "text_config": [1]})


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b'{"a":' * 5000, b'{"hidden_size": NaN}', b"\xff\xfe{}", b"{" + b" " * (5 << 20)],
)
def test_a_file_that_is_no_config_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        shape_of(str(file))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-here/x", "../" * 2000])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="neither a file nor a model"):
        shape_of(name)
