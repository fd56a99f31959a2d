"""What a simulated run says of its machine, server and model: acquisition's keys, and the reason for each null."""

from typing import Any

from inference_energy.bench.parts.node import Node
from inference_energy.bench.parts.shapes import to_config
from inference_energy.bench.sensors.node import gpu_name

_NO_MACHINE = "the node is simulated: it has no {}"


def environment(node: Node) -> dict[str, Any]:
    """environment.json: the node's GPUs, and no machine around them."""
    device = node.device
    gpus = [
        {
            "name": device.label,
            "uuid": gpu_name(node, host, gpu),
            "memory_bytes": int(device.memory_bytes),
            "power_limit_enforced_w": device.power_limit_w,
            "sm_clock_max_mhz": device.sm_clock_mhz,
        }
        for host in range(node.nodes)
        for gpu in range(node.tensor_parallel)
    ]
    gaps = {
        "cpu": "CPU",
        "memory": "memory",
        "os": "operating system",
        "python": "interpreter of its own",
        "cuda": "CUDA",
        "project": "package of its own",
    }
    return {
        "simulated": True,
        "gpus": gpus,
        **dict.fromkeys(gaps),
        "missing": {key: _NO_MACHINE.format(words) for key, words in gaps.items()},
    }


def server_environment() -> dict[str, Any]:
    """server_environment.json: nothing was installed."""
    keys = ("python_version", "vllm_version", "vllm_commit", "torch_version", "torch_cuda_version", "packages")
    return {
        "kind": "simulated",
        "command": None,
        "note": None,
        **dict.fromkeys(keys),
        "missing": dict.fromkeys(("command", *keys), "the server is simulated: there is no vLLM"),
    }


def model(node: Node, name: str) -> dict[str, Any]:
    """model.json: the model that the node serves, which has no files.

    Args:
        node: with the shape that is served.
        name: the model's key in the configuration.
    """
    keys = ("path", "revision", "license", "license_source", "weights", "files")
    reason = f"the model is simulated: {node.shape.name} is the numbers of a shape and has no files"
    return {
        "name": name,
        "source": "simulated",
        **dict.fromkeys(keys),
        "vocabulary": node.shape.vocabulary,
        "parameters": node.shape.parameters,
        "architecture": to_config(node.shape),
        "missing": dict.fromkeys(keys, reason),
    }
