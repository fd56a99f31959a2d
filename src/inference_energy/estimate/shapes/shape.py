"""A model's shape: its weights by kind, the bytes that a step reads, and the cache and FLOPs of a token.

One multiply-accumulate is 2 FLOPs, so a token takes 2 FLOPs for each of its weights; attention takes
4 * heads * head_dim per layer for each earlier token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference_energy.contracts.documents.estimates import ModelShapeFacts
from inference_energy.estimate.shapes.precision import WeightPrecision

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Attention:
    """Cache and FLOPs of the attention in all layers of one kind.

    Attributes:
        layers: number of layers of this kind.
        kv_elements: numbers cached for each token of context, over these layers.
        pair_flops: FLOPs of one token's attention to one earlier token, over these layers.
    """

    layers: int = 0
    kv_elements: float = 0.0
    pair_flops: float = 0.0


@dataclass(frozen=True)
class ModelShape:
    """The shape of a decoder; counts are numbers of weights unless stated otherwise.

    Attributes:
        name: name of the model.
        model_type: `model_type` of its config.json.
        layers: number of layers.
        hidden: width of the hidden state.
        embedding: the input table; the output layer has as many, and a tied model shares them.
        tied: whether input table and output layer share their weights.
        attention: projections of all layers.
        mlp: dense MLPs and shared experts of all layers.
        experts: routed experts of all layers; 0 for a dense model.
        experts_per_layer: number of routed experts per layer.
        experts_per_token: number of routed experts per token and layer.
        small: norms, biases, routers: always 16 bit.
        full: attention of layers that see the whole context.
        windowed: attention of layers that see the last `window` tokens.
        window: length of the window [tokens]; 0 if no layer has one.
        positions: a learned table of positions, of which a token reads one row.
        keeps_all: whether windowed layers keep the cache of the whole context, as sparse attention does.
        weights: precision of the weights.
        kv_bytes: bytes per number in the key-value cache.
        notes: assumptions about this model, a sentence each.
    """

    name: str
    model_type: str
    layers: int
    hidden: int
    embedding: int
    tied: bool
    attention: int
    mlp: int
    experts: int
    experts_per_layer: int
    experts_per_token: int
    small: int
    full: Attention
    windowed: Attention
    window: int
    weights: WeightPrecision
    kv_bytes: float
    positions: int = 0
    keeps_all: bool = False
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All weights of the language model."""
        tables = self.embedding * (1 if self.tied else 2) + self.positions
        return tables + self.attention + self.mlp + self.experts + self.small

    @property
    def is_moe(self) -> bool:
        """Whether the model is a mixture of experts."""
        return self.experts > 0

    @property
    def expert_share(self) -> float:
        """Share of the routed experts that one token uses; 1 for a dense model."""
        return self.experts_per_token / self.experts_per_layer if self.is_moe else 1.0

    @property
    def active_parameters(self) -> int:
        """All weights except the experts that a token does not use: N of the formulas, as model cards count it."""
        return self.parameters - round(self.experts * (1 - self.expert_share))

    @property
    def computed_parameters(self) -> int:
        """Weights that a token is multiplied with: the active ones except tables of which one row is read."""
        return self.active_parameters - (0 if self.tied else self.embedding) - self.positions

    @property
    def fixed_bytes(self) -> float:
        """Bytes of weights that a step reads at any batch: all except experts and input table."""
        linear = self.weights.bytes_quantised if self.weights.scope == "linear" else 2.0
        return linear * (self.attention + self.mlp) + 2.0 * (self.embedding + self.small)

    @property
    def expert_bytes(self) -> float:
        """Bytes of all routed experts."""
        return self.experts * (2.0 if self.weights.scope == "none" else self.weights.bytes_quantised)

    @property
    def resident_bytes(self) -> float:
        """Memory of the weights [bytes]."""
        tables = self.positions + (0 if self.tied else self.embedding)
        return self.fixed_bytes + self.expert_bytes + 2.0 * tables

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes cached per token of context inside every window."""
        return (self.full.kv_elements + self.windowed.kv_elements) * self.kv_bytes

    def step_bytes(self, batch: ArrayLike) -> Array:
        """Return the bytes of weights that a decode step reads, expected over the routing; shape of `batch`."""
        return self.fixed_bytes + self.expert_bytes * touched_share(self.expert_share, batch)

    def kv_read_bytes(self, context: ArrayLike) -> Array:
        """Return the cache bytes that a decode step reads per request at this context [tokens]; shape of `context`."""
        tokens = np.asarray(context, dtype=np.float64)
        seen = np.minimum(tokens, self.window)
        return self.kv_bytes * (self.full.kv_elements * tokens + self.windowed.kv_elements * seen)

    def kv_resident_bytes(self, context: ArrayLike) -> Array:
        """Return the cache bytes that a request at this context [tokens] occupies; shape of `context`."""
        if self.keeps_all:
            return self.kv_bytes_per_token * np.asarray(context, dtype=np.float64)
        return self.kv_read_bytes(context)

    def prefill_flops(self, tokens: ArrayLike) -> Array:
        """Return the FLOPs of reading a prompt of this many tokens: 2 N per token, and attention; shape of `tokens`."""
        count = np.asarray(tokens, dtype=np.float64)
        return (
            2.0 * self.computed_parameters * count
            + self.full.pair_flops * count**2 / 2
            + self.windowed.pair_flops * windowed_pairs(count, self.window)
        )

    def facts(self) -> ModelShapeFacts:
        """Return the shape as documents hold it."""
        return ModelShapeFacts(
            name=self.name,
            model_type=self.model_type,
            parameters=self.parameters,
            active_parameters=self.active_parameters,
            layers=self.layers,
            experts=f"{self.experts_per_token} of {self.experts_per_layer}" if self.is_moe else None,
            window_tokens=self.window or None,
            windowed_layers=self.windowed.layers,
            weights=self.weights.name,
            weight_bytes=self.resident_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token,
            notes=list(self.notes),
        )


def touched_share(expert_share: ArrayLike, batch: ArrayLike) -> Array:
    """Return the expected share of experts that a step of `batch` tokens reads: 1 - (1 - a)^B for a share a per token.

    Tokens are assumed to choose independently and evenly; real routers are uneven, so this is an upper bound.
    """
    share = np.asarray(expert_share, dtype=np.float64)
    # As logs, so that a share of 1 gives 1 at any batch and a small share keeps its digits.
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(np.asarray(batch, dtype=np.float64) * np.log1p(-share)))


def windowed_pairs(tokens: Array, window: ArrayLike) -> Array:
    """Return a prompt's pairs of a token and an earlier one inside its window; T^2 / 2 while the prompt fits."""
    beyond = np.maximum(tokens - np.asarray(window, dtype=np.float64), 0.0)
    return np.asarray((tokens**2 - beyond**2) / 2)
