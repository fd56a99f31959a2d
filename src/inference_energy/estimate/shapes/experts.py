"""The MLPs: dense ones, routed experts and shared experts, and which layers have which."""

from dataclasses import dataclass

from inference_energy.estimate.shapes.families import Family
from inference_energy.estimate.shapes.keys import Keys

_COUNT = ("num_local_experts", "num_experts", "n_routed_experts")
_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


@dataclass(frozen=True)
class Experts:
    """Routed experts: weights of all layers, experts of a layer, and those that a token meets there."""

    weights: int = 0
    a_layer: int = 0
    a_token: int = 0


def mlp_weights(keys: Keys, family: Family) -> tuple[int, Experts, int]:
    """Weights of dense MLPs and shared experts, the routed experts, and the weights of routers and biases.

    Raises:
        InputError: a key is missing.
    """
    layers, hidden = keys.count("num_hidden_layers"), keys.count("hidden_size")
    matrices = 3 if family.gated else 2
    a_layer = keys.optional(*_COUNT)
    if a_layer is None:
        wide = keys.count("intermediate_size")
        bias = layers * ((matrices - 1) * wide + hidden) if keys.flag("mlp_bias") else 0
        return layers * matrices * hidden * wide, Experts(), bias
    sparse = _sparse_layers(keys, layers)
    wide = keys.first("moe_intermediate_size", "intermediate_size")
    one = matrices * hidden * wide
    dense = (layers - sparse) * matrices * hidden * _dense_width(keys) if sparse < layers else 0
    shared = keys.optional("n_shared_experts", "num_shared_experts")
    shared_width = keys.optional("shared_expert_intermediate_size") or (shared or 0) * wide
    small = sparse * hidden * a_layer
    if keys.optional("shared_expert_intermediate_size"):
        small += sparse * hidden  # its gate
    if family.router_bias:
        small += sparse * a_layer
    if family.expert_bias:
        small += sparse * a_layer * ((matrices - 1) * wide + hidden + 1)
    return (
        dense + sparse * matrices * hidden * shared_width,
        Experts(sparse * a_layer * one, a_layer, keys.first(*_A_TOKEN)),
        small,
    )


def _dense_width(keys: Keys) -> int:
    return keys.first("intermediate_size_mlp", "intermediate_size")


def _sparse_layers(keys: Keys, layers: int) -> int:
    """Layers with routed experts."""
    first = int(keys.content.get("first_k_dense_replace") or 0)
    listed = keys.content.get("moe_layers")
    if isinstance(listed, list):
        return len(listed)
    dense_only = set(keys.content.get("mlp_only_layers") or ())
    step = keys.optional("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    return sum(layer >= first and layer not in dense_only and (layer + 1) % step == 0 for layer in range(layers))
