"""What a session served, as the estimators need it: the model's shape, the GPU, and how many of them share a copy.

Known from model.json (`architecture`, the content of config.json), environment.json (the GPUs' names) and session.json
(the server's command). What is not known is said, and then nothing is estimated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.errors import InputError
from inference_energy.estimate.hardware.gpus import Gpu, gpu_of, gpu_of_driver
from inference_energy.estimate.shapes.read import shape_from_config
from inference_energy.estimate.shapes.shape import ModelShape

SIMULATED = " (simulated)"
"""What the virtual bench adds to the name of the GPU that it stands in for."""

_QUANTISATION = {"fp8": "fp8", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8"}
"""vLLM's `--quantization` where it makes 16 bit weights smaller as it loads them."""


@dataclass(frozen=True)
class Served:
    """What was served.

    Attributes:
        shape: of the model; None where it is not known.
        gpu: its data sheet; None where it is not known.
        gpus_per_copy: GPUs that serve one copy of the model together.
        copies: of the model, side by side.
        unknown: why model or GPU is not known, a sentence each; empty where both are.
        notes: what to know about them.
    """

    shape: ModelShape | None
    gpu: Gpu | None
    gpus_per_copy: int
    copies: int
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def served_of(
    model: Mapping[str, Any], environment: Mapping[str, Any], session: Mapping[str, Any], named_gpu: str | None
) -> Served:
    """What a session served.

    Args:
        model: model.json.
        environment: environment.json of the session.
        session: session.json.
        named_gpu: what the configuration calls the GPU (`estimate.gpu`); None: by the driver's name.

    Raises:
        InputError: `named_gpu` is not in the table of data sheets.
    """
    flags = _flags((session.get("launch") or {}).get("command") or [])
    unknown: list[str] = []
    notes: list[str] = []
    shape = _shape(model, flags, unknown)
    gpu = _gpu(environment, session, named_gpu, unknown, notes)
    simulated = session.get("simulated") or {}
    parallel = [_whole(flags, f"{kind}-parallel-size") for kind in ("tensor", "pipeline", "data")]
    gpus = int(simulated.get("tensor_parallel") or parallel[0] * parallel[1])
    copies = int(simulated.get("nodes") or parallel[2])
    return Served(shape, gpu, gpus, copies, tuple(unknown), tuple(notes))


def _shape(model: Mapping[str, Any], flags: Mapping[str, str], unknown: list[str]) -> ModelShape | None:
    name = str(model.get("name") or "the model")
    architecture = model.get("architecture")
    if not isinstance(architecture, Mapping):
        why = (model.get("missing") or {}).get("architecture")
        unknown.append(
            f"the shape of {name} is not known: {why or 'model.json does not hold the content of its config.json'}"
        )
        return None
    kv = flags.get("kv-cache-dtype", "auto")
    precision = None if architecture.get("quantization_config") else _QUANTISATION.get(flags.get("quantization", ""))
    try:
        return shape_from_config(architecture, name, precision, "fp8" if kv.startswith("fp8") else None)
    except InputError as error:
        unknown.append(f"the shape of the model is not known: {error}")
        return None


def _gpu(
    environment: Mapping[str, Any],
    session: Mapping[str, Any],
    named: str | None,
    unknown: list[str],
    notes: list[str],
) -> Gpu | None:
    ours = (session.get("launch") or {}).get("gpus")
    cards: Sequence[Mapping[str, Any]] = environment.get("gpus") or []
    if ours is not None:
        if any(str(uuid).startswith("MIG-") for uuid in ours):
            unknown.append("the server had a slice of a GPU (MIG); data sheets are of whole cards")
            return None
        cards = [card for card in cards if card.get("uuid") in ours]
    if not cards:
        unknown.append("the server had no GPU that is recorded; the estimators are of GPUs")
        return None
    names = list(dict.fromkeys(str(card.get("name")) for card in cards))
    if named is not None:
        found: Gpu | None = gpu_of(named, "estimate.gpu")
    elif len(names) > 1:
        unknown.append(f"the server had GPUs of different kinds: {', '.join(names)}")
        return None
    else:
        found = gpu_of_driver(names[0].removesuffix(SIMULATED))
    if found is None:
        unknown.append(
            f"the GPU {names[0]} is not in the table of data sheets; name the row to use in estimate.gpu "
            "(`inference-energy estimate gpus` lists them)"
        )
        return None
    if environment.get("simulated"):
        notes.append(f"the GPU is simulated; the data sheet is that of {found.name}")
    limits_w = {float(card["power_limit_enforced_w"]) for card in cards if card.get("power_limit_enforced_w")}
    notes += [
        f"the card's power limit is {limit:.0f} W, the data sheet's {found.tdp_w:.0f} W"
        for limit in sorted(limits_w)
        if abs(limit - found.tdp_w) > 1
    ]
    return found


def _flags(command: Sequence[str]) -> dict[str, str]:
    """The options of a command, `--a b` and `--a=b`, by name with dashes."""
    found: dict[str, str] = {}
    for word, after in zip(command, [*command[1:], ""], strict=True):
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            found[name.replace("_", "-")] = value if sign else after
    return found


def _whole(flags: Mapping[str, str], name: str) -> int:
    text = flags.get(name, "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
