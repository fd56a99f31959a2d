"""The command line: vLLM's flags where they matter, and the node they change."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import SHAPES, BenchModelShape, from_config
from inference_energy.bench.live.node import node_here
from inference_energy.errors import InputError

ENGINE_FLAGS = {
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_model_len": "max_model_len",
    "block_size": "block_size",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "enable_prefix_caching": "enable_prefix_caching",
    "num_gpu_blocks_override": "num_gpu_blocks",
}
"""Flags with a setting of the engine, and its name there."""

BYTES = {"float32": 4.0, "float": 4.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}
"""Types other than those of two bytes."""


@dataclass(frozen=True)
class ServerSettings:
    """What to serve, and how.

    Attributes:
        model: as the command line names it; `folder` is the same where it is a folder.
        served_names: names under which clients may ask for it; answers carry the first.
        node: the node with the command line's changes.
        shape: the model's.
        traces: where the node's power is told; None: nowhere.
        truth: where the server writes what is true; None: nowhere.
        ignored: flags that the bench does not know.
    """

    model: str
    folder: Path | None
    served_names: tuple[str, ...]
    host: str
    port: int
    node: Node
    shape: BenchModelShape
    traces: Path | None
    truth: Path | None
    prompt_tokens_details: bool
    mfu_metrics: bool
    ignored: tuple[str, ...]


def settings(arguments: Sequence[str], pid: int) -> ServerSettings:
    """Read a command line.

    Args:
        arguments: without the program's name.
        pid: this process, which names its folder of truth.

    Raises:
        InputError: a value does not fit, or the model is not known; the message names it.
    """
    given, ignored = _parser().parse_known_args([_dashed(word) for word in arguments])
    here = node_here()
    stated = Node() if given.node is None else Node.read(given.node)
    node = stated if here is None else here.node
    folder, shape, longest = _model(given.model)
    content = node.model_dump()
    for flag, name in ENGINE_FLAGS.items():
        if (value := getattr(given, flag)) is not None:
            content["engine"][name] = value
    if given.max_model_len is None and longest is not None:
        content["engine"]["max_model_len"] = min(node.engine.max_model_len, longest)
    for flag, name in (("tensor_parallel_size", "tensor_parallel"), ("seed", "seed")):
        if (value := getattr(given, flag)) is not None:
            content[name] = value
    changes = {}
    if given.dtype in BYTES:
        changes = {"weight_bytes_per_parameter": BYTES[given.dtype], "kv_bytes_per_element": BYTES[given.dtype]}
    if given.kv_cache_dtype in BYTES:
        changes["kv_bytes_per_element"] = BYTES[given.kv_cache_dtype]
    return ServerSettings(
        model=given.model,
        folder=folder,
        served_names=tuple(given.served_model_name or [given.model]),
        host=given.host,
        port=given.port,
        node=Node.parse(content),
        shape=shape.model_copy(update=changes),
        traces=None if here is None else here.traces,
        truth=given.truth or (None if here is None else here.truth / str(pid)),
        prompt_tokens_details=given.enable_prompt_tokens_details,
        mfu_metrics=given.enable_mfu_metrics,
        ignored=tuple(ignored),
    )


def _dashed(word: str) -> str:
    """A flag with dashes for the underscores in its name, which vLLM takes as well."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference_energy.bench.live.server",
        description="A simulated server: speaks as vLLM does, computes nothing, and knows what its requests cost.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="a folder with config.json, or a shape the bench knows")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--node", type=Path, help="the node (JSON), where no virtual machine is set up")
    parser.add_argument("--truth", type=Path, help="folder for what is true")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int)
    for flag in ("max-num-seqs", "max-num-batched-tokens", "max-model-len", "block-size", "num-gpu-blocks-override"):
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--dtype")
    parser.add_argument("--kv-cache-dtype")
    parser.add_argument("--load-format")
    boolean = argparse.BooleanOptionalAction
    parser.add_argument("--enable-prefix-caching", action=boolean)
    parser.add_argument("--enable-prompt-tokens-details", action=boolean, default=False)
    parser.add_argument("--enable-mfu-metrics", action=boolean, default=False)
    return parser


def _model(model: str) -> tuple[Path | None, BenchModelShape, int | None]:
    """Folder, shape and longest context of a model."""
    if model in SHAPES:
        return None, SHAPES[model], None
    folder = Path(model)
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"--model {model}: no folder with a config.json, and none of {', '.join(SHAPES)}")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    longest = config.get("max_position_embeddings")
    return folder, from_config(folder.name, config), int(longest) if longest else None
