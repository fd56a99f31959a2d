"""The load of a measured window, in the terms of the estimators.

The load of a measured window, in the terms of the estimators.

- batch: mean of the server's gauge of running requests over its scrapes in the window, shared by the copies;
- lengths: means over the requests that ended well in the window; prompts less what the prefix cache held;
- context: mean position of their decode steps, prompt plus half the answer, weighted by the answers' lengths;
- throughput: output tokens/s in the window.

What was measured of a window for the estimators to be compared with: energy of the GPUs alone, per output token.

What a session served, as the estimators need it: the model's shape, the GPU, and how many of them share a copy.

Known from model.json (`architecture`, the content of config.json), environment.json (the GPUs' names) and session.json
(the server's command). What is not known is said, and then nothing is estimated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.counts import within
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.windows import Window
from inference_energy.contracts.grades import weakest
from inference_energy.errors import InputError
from inference_energy.estimate.gpus import GpuSheet, find_gpu, gpu_of_driver
from inference_energy.estimate.shapes.config_json import shape_from_config
from inference_energy.estimate.shapes.shape import ModelShape


@dataclass(frozen=True)
class WindowLoad:
    """What an estimator needs to know of a window; None for what the records do not tell."""

    batch: float | None
    input_tokens: float | None
    output_tokens: float | None
    context_tokens: float | None
    throughput: float | None
    ttft_s: float | None

    def as_dict(self) -> dict[str, float | None]:
        """As JSON holds it."""
        return {
            "batch": self.batch,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "context_tokens": self.context_tokens,
            "throughput_tokens_per_s": self.throughput,
            "ttft_s": self.ttft_s,
        }


def load_of(window: Window, requests: pd.DataFrame, metrics: ServerMetrics, load: dict[str, Any]) -> WindowLoad:
    """The load of a window.

    Args:
        window: after trimming.
        requests: the window's rows of requests.parquet.
        metrics: of the session.
        load: the window in steady_load.json.
    """
    throughput = load["figures"]["output_tokens_per_s"]["value"] or None
    means = metrics.block_means("running", np.array([window.start_ns, window.end_ns], dtype=np.int64))
    ok = requests[requests["status"] == "ok"]
    ended = ok[within(ok["last_token_ns"].fillna(ok["end_ns"]), window)]
    ended = ended[ended["completion_tokens"].notna() & ended["prompt_tokens"].notna()]
    batch = None if not means or means[0] <= 0 else means[0]
    if ended.empty:
        return WindowLoad(batch, None, None, None, throughput, None)
    prompts = ended["prompt_tokens"].to_numpy(dtype=np.float64)
    cached = ended["cached_tokens"].fillna(0).to_numpy(dtype=np.float64)
    answers = ended["completion_tokens"].to_numpy(dtype=np.float64)
    waits_s = (ended["first_token_ns"] - ended["sent_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    if answers.sum() <= 0:
        return WindowLoad(batch, float((prompts - cached).mean()), None, None, throughput, None)
    return WindowLoad(
        batch=batch,
        input_tokens=float((prompts - cached).mean()),
        output_tokens=float(answers.mean()),
        context_tokens=float((answers * (prompts + answers / 2)).sum() / answers.sum()),
        throughput=throughput,
        ttft_s=float(waits_s.mean()) if len(waits_s) else None,
    )


def gpu_energy(energy: dict[str, Any], load: dict[str, Any]) -> dict[str, Any]:
    """J per output token of the GPUs, total, without subtraction; of a window of prompts alone J per prompt token.

    Args:
        energy: the window in energy.json.
        load: the window in steady_load.json.

    Returns:
        `energy_per_output_token_j` or `energy_per_prompt_token_j`, `boundary` (gpu), `basis` (total), `grade`, and
        `unavailable`, the reason where there is none: that of the window's own figure, or that no GPU was measured.
    """
    counts, of_prompts = load["counts"], load["kind"] == "prefill"
    key = "energy_per_prompt_token_j" if of_prompts else "energy_per_output_token_j"
    figure = energy["figures"]["energy_total_j" if of_prompts else "energy_total_per_output_token_j"]
    tokens = counts["prompt_tokens"] - counts["cached_tokens"] if of_prompts else counts["output_tokens"]
    found: dict[str, Any] = {
        key: None,
        "boundary": "gpu",
        "basis": "total",
        "grade": figure["grade"],
        "unavailable": None,
    }
    if figure["value"] is None:
        return {**found, "unavailable": " ".join(reason["detail"] for reason in figure["reasons"])}
    cards: dict[str, dict[str, Any]] = {}
    for device in energy["devices"]:
        # Of two sources of one card that which was added up; where the whole machine was, any of the card's.
        is_card = device["domain"] == "gpu" and device["energy_j"] is not None
        if is_card and (device["summed"] or device["device"] not in cards):
            cards[device["device"]] = device
    if not cards or not tokens:
        return {**found, "unavailable": "no energy of a GPU was measured in the window."}
    joules = sum(float(card["energy_j"]) for card in cards.values())
    grade = weakest([card["grade"] for card in cards.values()])
    return {**found, key: joules / tokens, "grade": grade}


SIMULATED = " (simulated)"
"""What the virtual bench adds to the name of the GPU that it stands in for."""

_QUANTISATION = {"fp8": "fp8", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8"}
"""vLLM's `--quantization` where it makes 16 bit weights smaller as it loads them."""


@dataclass(frozen=True)
class ServedModel:
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
    gpu: GpuSheet | None
    gpus_per_copy: int
    copies: int
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def read_served_model(
    model: Mapping[str, Any], environment: Mapping[str, Any], session: Mapping[str, Any], named_gpu: str | None
) -> ServedModel:
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
    return ServedModel(shape, gpu, gpus, copies, tuple(unknown), tuple(notes))


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
) -> GpuSheet | None:
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
        found: GpuSheet | None = find_gpu(named, "estimate.gpu")
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
