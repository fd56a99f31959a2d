"""Model shapes: what a dense transformer reads and computes for a token, from the numbers of its config.json.

Sources of the numbers: the published config.json of each model. Formulas: one multiply-accumulate is 2 FLOPs, so a
token takes 2 FLOPs for each weight it meets, and 4 * layers * heads * head_dim for each earlier token it attends to
(scores and values); Kaplan et al. 2020 (arXiv 2001.08361), section 2.1.
"""

from collections.abc import Mapping
from typing import Any

from inference_energy.bench.parts.section import Part
from inference_energy.errors import InputError


class ModelShape(Part):
    """A dense decoder with grouped-query attention and a gated MLP.

    `weight_bytes_per_parameter` and `kv_bytes_per_element` are 2 for bf16, 1 for 8 bit, 0.5 for 4 bit.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool = False
    weight_bytes_per_parameter: float = 2.0
    kv_bytes_per_element: float = 2.0

    @property
    def body_parameters(self) -> int:
        """Weights of the layers, which every token meets."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate + 2 * self.hidden) + self.hidden

    @property
    def head_parameters(self) -> int:
        """Weights of the output layer, which only a sampled position meets."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.body_parameters + self.head_parameters * (1 if self.tied_embeddings else 2)

    @property
    def resident_bytes(self) -> float:
        """Memory the weights take."""
        return self.parameters * self.weight_bytes_per_parameter

    @property
    def step_bytes(self) -> float:
        """Weights read by one engine step, whatever its batch: all but the input embedding, of which rows are read."""
        return (self.body_parameters + self.head_parameters) * self.weight_bytes_per_parameter

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values kept for one token of context."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes_per_element

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one token in the layers, attention to other tokens apart."""
        return 2.0 * self.body_parameters

    @property
    def flops_per_sample(self) -> float:
        """FLOPs of the output layer for one sampled position."""
        return 2.0 * self.head_parameters

    @property
    def flops_per_pair(self) -> float:
        """FLOPs for one token's attention to one other."""
        return 4.0 * self.layers * self.heads * self.head_dim


def from_config(name: str, config: Mapping[str, Any]) -> ModelShape:
    """The shape in a model's config.json.

    Raises:
        InputError: a number is missing, or the architecture is not a dense one.
    """
    if any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(f"model {name}: the bench knows dense models only, not mixtures of experts")
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    if absent := [key for key in needed if key not in config]:
        raise InputError(f"model {name}: its config.json lacks {', '.join(absent)}")
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return ModelShape(
        name=name,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def to_config(shape: ModelShape) -> dict[str, Any]:
    """The shape as a config.json says it, quantised weights in the manner of Hugging Face's models."""
    quantised = {1.0: {"quant_method": "fp8"}, 0.5: {"quant_method": "awq", "bits": 4}}
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": "bfloat16",
    }
    if shape.weight_bytes_per_parameter in quantised:
        config["quantization_config"] = quantised[shape.weight_bytes_per_parameter]
    return config


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape(
            name="llama-3.1-8b",
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            intermediate=14336,
            vocabulary=128256,
        ),
        ModelShape(
            name="qwen3-14b",
            layers=40,
            hidden=5120,
            heads=40,
            kv_heads=8,
            head_dim=128,
            intermediate=17408,
            vocabulary=151936,
        ),
        ModelShape(
            name="llama-3.1-70b",
            layers=80,
            hidden=8192,
            heads=64,
            kv_heads=8,
            head_dim=128,
            intermediate=28672,
            vocabulary=128256,
        ),
    )
}
