"""Shapes from config.json: published counts, hand-computed numbers, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.config_json import catalogue_models, shape_from_config, shape_of

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
}
# Layer: q 8*8, k and v 8*4 each, o 8*8 = 192; MLP 3*8*20 = 480; norms 16. Three layers, a norm of 8, two tables of 800.
TINY_TOTAL = 3 * (192 + 480 + 16) + 8 + 1600


def tiny(**changes: Any) -> dict[str, Any]:
    return {**TINY, **changes}


# What the repositories' safetensors headers add up to. DeepSeek-V3 is without its module for multi-token prediction,
# gemma-3-12b without its vision encoder.
EXACT = {
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Mixtral-8x7B": 46_702_792_704,
    "DeepSeek-V3": 671_026_419_200,
    "gemma-3-12b": 11_766_034_176,
    "gpt-oss-20b": 20_914_757_184,
}


@pytest.mark.parametrize(("name", "count"), EXACT.items())
def test_all_parameters_to_the_last_one(name: str, count: int) -> None:
    assert shape_of(name).parameters == count


@pytest.mark.parametrize("name", list(catalogue_models()))
def test_all_parameters_as_published(name: str) -> None:
    """Within half a per cent of the rounded figure on the model's card; of gemma the vision encoder is not counted."""
    published = catalogue_models()[name]["published"]["parameters_billion"] * 1e9
    tolerance = 0.04 if name == "gemma-3-12b" else 0.005
    assert shape_of(name).parameters == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "billion", "tolerance"),
    # Cards round to a digit, and do not all count the input table: gpt-oss leaves it out.
    [("Qwen3-30B-A3B", 3.3, 0.02), ("Mixtral-8x7B", 12.9, 0.003), ("DeepSeek-V3", 37, 0.02)],
)
def test_active_parameters_as_published(name: str, billion: float, tolerance: float) -> None:
    assert shape_of(name).active_parameters == pytest.approx(billion * 1e9, rel=tolerance)


def test_gpt_oss_counts_active_parameters_without_its_input_table() -> None:
    assert shape_of("gpt-oss-20b").computed_parameters == pytest.approx(3.6e9, rel=0.005)


def test_a_dense_model_by_hand() -> None:
    shape = shape_from_config(TINY, "tiny")
    assert shape.parameters == shape.active_parameters == TINY_TOTAL
    assert shape.computed_parameters == TINY_TOTAL - 800
    assert shape.resident_bytes == 2 * TINY_TOTAL
    assert float(shape.step_bytes(5)) == 2 * (TINY_TOTAL - 800)
    # 2 * n_kv * d_head numbers of 2 bytes in each of 3 layers.
    assert shape.kv_bytes_per_token == 2 * 2 * 2 * 2 * 3
    assert float(shape.kv_read_bytes(10)) == 480
    # 2 FLOPs a weight and token, and 4 * layers * heads * d_head for each of T^2 / 2 pairs.
    assert float(shape.prefill_flops(10)) == 2 * (TINY_TOTAL - 800) * 10 + 4 * 3 * 4 * 2 * 50


def test_tied_embeddings_count_once_and_are_read_as_the_output_layer() -> None:
    tied = shape_from_config(tiny(tie_word_embeddings=True), "tied")
    assert tied.parameters == TINY_TOTAL - 800 == tied.computed_parameters
    assert float(tied.step_bytes(1)) == 2 * tied.parameters == tied.resident_bytes


def test_biases_and_norms_of_heads_count() -> None:
    plain = shape_from_config(TINY, "plain").parameters
    assert shape_from_config(tiny(attention_bias=True), "biased").parameters == plain + 3 * (2 * (4 + 4) + 8)
    assert shape_from_config(tiny(model_type="qwen2"), "qwen2").parameters == plain + 3 * 2 * (4 + 4)
    assert shape_from_config(tiny(model_type="qwen3", head_dim=2), "qwen3").parameters == plain + 3 * 2 * 2


def test_experts_by_hand() -> None:
    shape = shape_from_config(
        tiny(
            model_type="deepseek_v2",
            n_routed_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=5,
            n_shared_experts=1,
            first_k_dense_replace=1,
        ),
        "moe",
    )
    # Two layers with experts of 3*8*5 = 120 weights, one shared; the first is dense.
    assert shape.experts == 2 * 6 * 120
    assert shape.mlp == 480 + 2 * 120
    assert shape.parameters - shape.active_parameters == 2 * 4 * 120
    assert shape.expert_share == pytest.approx(1 / 3)
    fixed = 2 * (shape.parameters - shape.experts - 800)
    assert float(shape.step_bytes(1)) == pytest.approx(fixed + 2 * shape.experts / 3)
    # A batch of two misses an expert with (2/3)^2.
    assert float(shape.step_bytes(2)) == pytest.approx(fixed + 2 * shape.experts * 5 / 9)
    assert float(shape.step_bytes(1000)) == pytest.approx(fixed + 2 * shape.experts)


def test_every_second_layer_may_have_experts() -> None:
    sparse = {"num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}
    shape = shape_from_config(tiny(num_hidden_layers=4, intermediate_size_mlp=30, **sparse), "llama4-like")
    assert shape.experts == 2 * 4 * 480
    assert shape.mlp == 2 * 3 * 8 * 30


def test_latent_attention_keeps_one_vector() -> None:
    shape = shape_of("DeepSeek-V3")
    assert shape.kv_bytes_per_token == 61 * (512 + 64) * 2
    assert shape.full.pair_flops == 61 * 2 * 128 * (576 + 512)


@pytest.mark.parametrize(
    ("changes", "windowed"),
    [
        ({"sliding_window": 16}, 3),
        ({"sliding_window": 16, "sliding_window_pattern": 3}, 2),
        ({"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}, 1),
        ({"sliding_window": 16, "use_sliding_window": False}, 0),
        ({"model_type": "qwen2", "sliding_window": 16}, 0),
        ({"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, 2),
        ({"model_type": "gemma2", "head_dim": 2, "sliding_window": 16}, 2),
        ({"sliding_window": None}, 0),
    ],
)
def test_which_layers_have_a_window(changes: dict[str, Any], windowed: int) -> None:
    shape = shape_from_config(tiny(**changes), "windowed")
    assert shape.windowed.layers == windowed
    assert shape.full.layers == 3 - windowed


def test_a_window_caps_what_is_read() -> None:
    shape = shape_from_config(tiny(sliding_window=16, sliding_window_pattern=3), "windowed")
    each = 2 * 2 * 2 * 2
    assert float(shape.kv_read_bytes(10)) == 3 * each * 10
    assert float(shape.kv_read_bytes(100)) == each * (100 + 2 * 16)
    # Attention of a prompt of 100: one layer sees 100^2 / 2 pairs, two see (100^2 - 84^2) / 2.
    pairs = 100**2 / 2 + 2 * (100**2 - 84**2) / 2
    assert float(shape.prefill_flops(100)) == 2 * shape.computed_parameters * 100 + 4 * 4 * 2 * pairs


def test_published_windows() -> None:
    gemma, oss = shape_of("gemma-3-12b"), shape_of("gpt-oss-20b")
    assert (gemma.windowed.layers, gemma.full.layers, gemma.window) == (40, 8, 1024)
    assert (oss.windowed.layers, oss.full.layers, oss.window) == (12, 12, 128)


@pytest.mark.parametrize(
    ("quantised", "name", "bits", "scope"),
    [
        ({"quant_method": "fp8"}, "fp8", 8, "linear"),
        ({"quant_method": "mxfp4"}, "int4", 4.25, "experts"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", 4.125, "linear"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", 8, "linear"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
            8,
            "linear",
        ),
    ],
)
def test_precision_from_the_config(quantised: dict[str, Any], name: str, bits: float, scope: str) -> None:
    weights = shape_from_config(tiny(quantization_config=quantised), "quantised").weights
    assert (weights.name, weights.bits, weights.scope) == (name, bits, scope)


def test_quantised_weights_leave_embeddings_in_16_bit() -> None:
    plain, small = shape_from_config(TINY, "tiny"), shape_from_config(TINY, "tiny", precision="int4")
    linear = 3 * (192 + 480)
    assert plain.resident_bytes - small.resident_bytes == linear * 1.5
    assert small.parameters == plain.parameters
    assert shape_from_config(TINY, "tiny", kv_precision="fp8").kv_bytes_per_token == plain.kv_bytes_per_token / 2


def test_an_option_overrules_the_config() -> None:
    quantised = tiny(quantization_config={"quant_method": "fp8"})
    assert shape_from_config(quantised, "q", precision="bf16").resident_bytes == 2 * TINY_TOTAL


def test_a_text_config_is_read_with_what_stands_around_it() -> None:
    nested = {"model_type": "vlm", "tie_word_embeddings": True, "text_config": {**TINY}}
    del nested["text_config"]["tie_word_embeddings"]  # type: ignore[attr-defined]
    shape = shape_from_config(nested, "nested")
    assert shape.parameters == TINY_TOTAL - 800
    assert any("vision" in note for note in shape.notes)


def test_an_unknown_type_is_counted_and_said() -> None:
    shape = shape_from_config(tiny(model_type="novel"), "novel")
    assert shape.parameters == TINY_TOTAL
    assert any("novel" in note for note in shape.notes)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({key: value for key, value in TINY.items() if key != "hidden_size"}, "hidden_size"),
        ({key: value for key, value in TINY.items() if key != "vocab_size"}, "vocab_size"),
        (tiny(num_attention_heads="four"), "num_attention_heads"),
        (tiny(num_hidden_layers=0), "num_hidden_layers"),
        (tiny(num_experts=8), "num_experts_per_tok"),
        (tiny(kv_lora_rank=16), "qk_rope_head_dim"),
        (tiny(layer_types=["full_attention"]), "layer_types"),
        (tiny(layer_types=["full_attention", "linear_attention", "full_attention"]), "linear_attention"),
        (tiny(layer_types=["full_attention", "sliding_attention", "full_attention"]), "sliding_window"),
        (tiny(ssm_cfg={"layer": "Mamba2"}), "ssm_cfg"),
        (tiny(is_encoder_decoder=True), "is_encoder_decoder"),
        (tiny(quantization_config={"quant_method": "novel"}), "novel"),
        (tiny(torch_dtype="float64"), "torch_dtype"),
    ],
)
def test_what_is_missing_or_not_known_is_named(config: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        shape_from_config(config, "bad")


def test_a_model_by_name_alias_repository_file_or_folder(tmp_path: Path) -> None:
    assert shape_of("llama-3.3-70b") == shape_of("meta-llama/Llama-3.1-70B-Instruct") == shape_of("Llama-3.1-70B")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    assert shape_of(str(folder)) == shape_of(str(folder / "config.json"))
    assert shape_of(str(folder)).name == "mine"


def test_a_model_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match="Mixtral-8x7B"):
        shape_of("no-such-model")


def test_a_precision_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match="int4"):
        shape_of("Qwen3-8B", precision="fp6")
    with pytest.raises(InputError, match="int4"):
        shape_of("Qwen3-8B", kv_precision="fp6")
