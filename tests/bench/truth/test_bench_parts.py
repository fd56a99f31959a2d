"""Settings of a virtual node: what is read, what is refused, and the sizes of the models."""

import json
from pathlib import Path
from typing import Any

import pytest

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import DEVICES, SHAPES, BenchModelShape, from_config, to_config
from inference_energy.errors import InputError

# Published config.json of each model, as far as it says anything of the shape.
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
QWEN3_14B = {
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
}
CONFIGS: dict[str, dict[str, Any]] = {"llama-3.1-8b": LLAMA_8B, "qwen3-14b": QWEN3_14B, "llama-3.1-70b": LLAMA_70B}


@pytest.mark.parametrize(
    ("name", "published"), [("llama-3.1-8b", 8.03e9), ("qwen3-14b", 14.77e9), ("llama-3.1-70b", 70.6e9)]
)
def test_number_of_weights_is_the_published_one(name: str, published: float) -> None:
    assert SHAPES[name].parameters == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", CONFIGS)
def test_shape_of_a_config_is_that_of_the_catalogue(name: str) -> None:
    assert from_config(name, CONFIGS[name]) == SHAPES[name]


def test_config_without_grouped_heads_or_head_size_has_the_usual_ones() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "num_key_value_heads"}
    shape = from_config("old", config | {"head_dim": None})
    assert (shape.kv_heads, shape.head_dim) == (32, 128)


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_mixture_of_experts_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="dense models only"):
        from_config("moe", LLAMA_8B | {key: 8})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"model_type": "jamba"}, "jamba"),
        ({"model_type": "nemotron"}, "nemotron"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"kv_lora_rank": 512}, "kv_lora_rank"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"moe_num_experts": 8}, "mixtures of experts"),
        ({"layer_types": ["linear_attention"]}, "layer_types"),
        ({"model_type": "qwen3"}, "head_dim"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"num_hidden_layers": 1e30}, "num_hidden_layers"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantization_config"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_its_key(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        from_config("m", LLAMA_8B | changes)


def test_keys_of_features_that_are_off_are_passed_over() -> None:
    off = {"sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28, "rope_theta": 1e6}
    assert from_config("llama-3.1-8b", LLAMA_8B | off) == SHAPES["llama-3.1-8b"]


def test_incomplete_config_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(InputError, match="lacks hidden_size, vocab_size"):
        from_config("m", {key: value for key, value in LLAMA_8B.items() if key not in ("hidden_size", "vocab_size")})


def test_tied_embeddings_are_kept_once_and_read_as_the_output_layer() -> None:
    tied = from_config("tied", LLAMA_8B | {"tie_word_embeddings": True})
    untied = SHAPES["llama-3.1-8b"]
    assert untied.parameters - tied.parameters == 4096 * 128256
    assert tied.step_bytes == untied.step_bytes
    assert untied.resident_bytes - untied.step_bytes == 2 * 4096 * 128256


def test_bytes_and_flops_of_llama_8b() -> None:
    shape = SHAPES["llama-3.1-8b"]
    # 32 layers x 8 heads x 128 x keys and values x 2 bytes.
    assert shape.kv_bytes_per_token == 131072
    assert shape.flops_per_token + shape.flops_per_sample == pytest.approx(2 * 7.5e9, rel=0.01)
    assert shape.flops_per_pair == 4 * 32 * 4096
    half = shape.model_copy(update={"weight_bytes_per_parameter": 1.0})
    assert half.step_bytes == shape.step_bytes / 2
    assert half.kv_bytes_per_token == shape.kv_bytes_per_token


def test_shapes_and_devices_go_by_their_names() -> None:
    assert all(shape.name == name for name, shape in SHAPES.items())
    assert all(device.name == name for name, device in DEVICES.items())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"gpus": 2}, "gpus"),
        ({"tensor_parallel": 0}, "tensor_parallel"),
        ({"engine": {"block_sise": 16}}, "engine.block_sise"),
        ({"engine": {"max_num_seqs": "many"}}, "engine.max_num_seqs"),
        ({"engine": {"max_num_seqs": 64, "max_num_batched_tokens": 32}}, "max_num_batched_tokens"),
        ({"sensors": {"nvml": {"dropped_share": 1.5}}}, "sensors.nvml.dropped_share"),
        ({"faults": {"sensors": [{"kind": "melted"}]}}, "faults.sensors.0.kind"),
        ({"faults": {"tenants": [{"power_w": 10, "start_s": 1}]}}, "faults.tenants.0.end_s"),
        ({"power_limit_w": float("inf")}, "power_limit_w"),
    ],
)
def test_fault_of_a_node_names_its_key(content: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        Node.parse(content)
    assert named in str(caught.value)
    assert "bench" in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InputError, match=r"tensor_parallel.*seed"):
        Node.parse('{"tensor_parallel": 9, "seed": -1}')


def test_node_is_read_as_it_was_written(tmp_path: Path) -> None:
    node = Node.parse({"gpu": "h100", "engine": {"max_num_seqs": 8}, "faults": {"server": {"stall_every": 3}}})
    assert node.engine.max_num_seqs == 8
    assert Node.parse(node.model_dump_json()) == node
    path = tmp_path / "node.json"
    path.write_text(node.model_dump_json())
    assert Node.read(path) == node


@pytest.mark.parametrize("content", ["{", "[]", '{"gpu": 1}'])
def test_file_that_holds_no_node_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(content)
    with pytest.raises(InputError):
        Node.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json"):
        Node.read(tmp_path / "absent.json")


@pytest.mark.parametrize("key", ["gpu", "model"])
def test_unknown_gpu_or_model_is_refused_with_those_there_are(key: str) -> None:
    node = Node.parse(json.dumps({key: "abacus"}))
    known = DEVICES if key == "gpu" else SHAPES
    with pytest.raises(InputError) as caught:
        _ = node.device if key == "gpu" else node.shape
    assert f"bench: {key}: 'abacus'" in str(caught.value)
    assert all(name in str(caught.value) for name in known)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_after_a_way_through_config_json(name: str) -> None:
    assert from_config(name, json.loads(json.dumps(to_config(SHAPES[name])))) == SHAPES[name]


@pytest.mark.parametrize(("bits", "method"), [(8, "fp8"), (4, "awq"), (16, None)])
def test_config_json_says_how_weights_are_quantised(bits: int, method: str | None) -> None:
    config = to_config(Node.parse({"weight_bits": bits}).shape)
    assert config.get("quantization_config", {}).get("quant_method") == method


def test_power_limit_of_a_node_only_lowers() -> None:
    assert Node(power_limit_w=400.0).device.power_limit_w == 400.0
    assert Node(power_limit_w=4000.0).device.power_limit_w == DEVICES["h100"].power_limit_w
    assert Node().device == DEVICES["h100"]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Node().seed = 2  # type: ignore[misc]


def test_shape_is_complete() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        BenchModelShape.model_validate(
            {"name": "m", "layers": 1, "hidden": 1, "heads": 1, "kv_heads": 1, "head_dim": 1}
        )
