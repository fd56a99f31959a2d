"""Command line of the live server: vLLM's flags as far as they matter, and the node that they change."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import SHAPES, BenchModelShape, from_config
from inference_energy.bench.live.node import node_here
from inference_energy.contracts.outside import MIB, as_count, decode_json, read_bytes
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
"""Name of the engine setting that a flag changes."""

BYTES = {"float32": 4.0, "float": 4.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}
"""Bytes of the types that do not have two."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the live server.

    Attributes:
        model: the model as the command line names it.
        folder: the model's folder, if it is one.
        served_names: names under which clients may ask for it; answers carry the first.
        node: the node with the command line's changes.
        shape: shape of the model.
        traces: folder for the node's power; None writes none.
        truth: folder for the server's truth; None writes none.
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


def parse_command_line(arguments: Sequence[str], pid: int) -> ServerSettings:
    """Read a command line.

    Args:
        arguments: without the program's name.
        pid: this process, which names its folder of truth.

    Raises:
        InputError: a value does not fit, or the model is not known; the message names it.
    """
    flags, ignored = _parser().parse_known_args([_dashed(word) for word in arguments])
    node_folder = node_here()
    default = Node() if flags.node is None else Node.read(flags.node)
    node = default if node_folder is None else node_folder.node
    folder, shape, longest = _model(flags.model)
    content = node.model_dump()
    for flag, name in ENGINE_FLAGS.items():
        if (value := getattr(flags, flag)) is not None:
            content["engine"][name] = value
    if flags.max_model_len is None and longest is not None:
        content["engine"]["max_model_len"] = min(node.engine.max_model_len, longest)
    for flag, name in (("tensor_parallel_size", "tensor_parallel"), ("seed", "seed")):
        if (value := getattr(flags, flag)) is not None:
            content[name] = value
    changes = {}
    if flags.dtype in BYTES:
        changes = {"weight_bytes_per_parameter": BYTES[flags.dtype], "kv_bytes_per_element": BYTES[flags.dtype]}
    if flags.kv_cache_dtype in BYTES:
        changes["kv_bytes_per_element"] = BYTES[flags.kv_cache_dtype]
    return ServerSettings(
        model=flags.model,
        folder=folder,
        served_names=tuple(flags.served_model_name or [flags.model]),
        host=flags.host,
        port=flags.port,
        node=Node.parse(content),
        shape=shape.model_copy(update=changes),
        traces=None if node_folder is None else node_folder.traces,
        truth=flags.truth or (None if node_folder is None else node_folder.truth / str(pid)),
        prompt_tokens_details=flags.enable_prompt_tokens_details,
        mfu_metrics=flags.enable_mfu_metrics,
        ignored=tuple(ignored),
    )


def _dashed(word: str) -> str:
    """Return a flag with dashes for the underscores in its name, which vLLM accepts too."""
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


MAX_CONFIG_BYTES = 4 * MIB


def _model(model: str) -> tuple[Path | None, BenchModelShape, int | None]:
    """Return a model's folder, shape and longest context."""
    if model in SHAPES:
        return None, SHAPES[model], None
    folder = Path(model)
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"--model {model}: no folder with a config.json, and none of {', '.join(SHAPES)}")
    try:
        config = decode_json(read_bytes(path, MAX_CONFIG_BYTES))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a config.json: a JSON object is expected")
    return folder, from_config(folder.name, config), as_count(config.get("max_position_embeddings")) or None
