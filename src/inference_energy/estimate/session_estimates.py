"""Stage `estimate`: every estimator beside every steady window of a session, and its ratio to the measurement.

The load of a window in the terms of the estimators:

- batch: mean of the server's gauge of running requests over its scrapes in the window, shared by the copies;
- lengths: means over the requests that ended well in the window; prompts without their tokens from the prefix cache;
- context: mean position of their decode steps, prompt plus half the answer, weighted by the answers' lengths;
- throughput: output tokens/s in the window.

Model and GPU are known from model.json (`architecture`, the content of config.json), environment.json (the GPUs' names)
and session.json (the server's command). If one is unknown, the document says why, and nothing is estimated. Estimates
are compared with the energy of the GPUs alone, per output token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from msgspec import UNSET, structs

from inference_energy.analysis.counts import within
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.session_facts import read_session, session_names
from inference_energy.analysis.windows import Window
from inference_energy.config.analysis import EstimateConfig
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import server_metrics as metrics_contract
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.energy import DeviceEnergy, EnergyDocument, EnergyWindow
from inference_energy.contracts.documents.estimates import (
    ComparedEstimate,
    EstimatedWindow,
    EstimatesDocument,
    EstimatorLoad,
    EstimatorScore,
    GpuSheetFacts,
    MeasuredGpuEnergy,
    MeasuredWindow,
)
from inference_energy.contracts.documents.machine import EnvironmentDocument, ModelDocument
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.documents.windows import LoadWindow, SteadyLoadDocument
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import read_table
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.compare import ESTIMATORS, GRADE, EstimateRequest, basis_for, estimate_row
from inference_energy.estimate.gpus import GpuSheet, find_gpu, gpu_of_driver
from inference_energy.estimate.scorecard import score
from inference_energy.estimate.shapes.config_json import shape_from_config
from inference_energy.estimate.shapes.shape import ModelShape

FITTED_TOLERANCE = 1e-6
"""A measured energy this close to a fitted one, relatively, was fitted."""


def estimate_session(
    *,
    session: Path,
    model: Path,
    environment: Path,
    requests: Path,
    server_metrics: Path,
    steady: SteadyLoadDocument,
    energy: EnergyDocument,
    config: EstimateConfig,
    calibration: EnergyCalibration | None,
) -> EstimatesDocument:
    """Return estimates.json of a session.

    Args:
        session: session.json.
        model: model.json of its server.
        environment: its environment.json.
        requests: requests.parquet.
        server_metrics: server_metrics.parquet.
        steady: its steady_load.json.
        energy: its energy.json.
        config: section `estimate` of the configuration.
        calibration: the calibration that `config.calibration` names; None: the one that is shipped for the GPU, if any.

    Raises:
        InputError: a file cannot be used, or the configuration names an unknown GPU.
    """
    recorded = read_session(session)
    described = read_document(model, ModelDocument)
    served = read_served_model(described, read_document(environment, EnvironmentDocument), recorded, config.gpu)
    windows: dict[str, EstimatedWindow] = {}
    fit_windows: dict[str, MeasuredWindow] = {}
    if served.shape is not None and served.gpu is not None:
        rows = read_table(requests, requests_contract.SCHEMA)
        metrics = ServerMetrics(read_table(server_metrics, metrics_contract.SCHEMA), recorded.model)
        for name, window in steady.windows.items():
            load = measure_load(name, window, rows[rows["cell"] == name], metrics)
            measured = measure_gpu_energy(energy.windows[name], window)
            if window.kind == "steady":
                windows[name] = _estimate_window(served, served.shape, served.gpu, load, measured, calibration)
            else:
                fit_windows[name] = MeasuredWindow(kind=window.kind, load=load, measured=measured)
    used = None if served.gpu is None else basis_for(served.gpu, calibration).calibration
    return EstimatesDocument(
        **session_names(recorded),
        grade=GRADE,
        model=None if served.shape is None else served.shape.facts(),
        architecture=described.architecture,
        gpu=None if served.gpu is None else GpuSheetFacts(name=served.gpu.name, tdp_w=served.gpu.tdp_w),
        gpus_per_copy=served.gpus_per_copy,
        copies=served.copies,
        calibration=None if used is None else used.name,
        calibration_sha256=None if used is None else used.sha256,
        unknown=list(served.unknown),
        notes=list(served.notes),
        windows=windows,
        fit_windows=fit_windows,
        scores=_scores(list(windows.values())),
    )


def _estimate_window(
    served: "ServedModel",
    shape: ModelShape,
    gpu: GpuSheet,
    load: EstimatorLoad,
    measured: MeasuredGpuEnergy,
    calibration: EnergyCalibration | None,
) -> EstimatedWindow:
    def of_copy(value: float | None) -> float | None:
        return None if value is None else value / served.copies

    request = EstimateRequest(
        shape=shape,
        gpu=gpu,
        tensor_parallel=served.gpus_per_copy,
        batch=of_copy(load.batch),
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        context=load.context_tokens,
        throughput=of_copy(load.throughput_tokens_per_s),
        ttft_s=load.ttft_s,
    )
    basis = basis_for(gpu, calibration)
    cases = request.cases()
    measured_j = measured.energy_per_output_token_j
    estimates = []
    for estimator in ESTIMATORS:
        values = estimator.estimate(cases, basis)
        row = estimate_row(estimator, values, 0, request.output_tokens)
        compared_j = None if np.isnan(values.scored[0]) else float(values.scored[0])
        ratio, why = None, row.unavailable
        if isinstance(measured_j, float) and why is None:
            if estimator.id == "energy-roofline" and _was_fitted(basis.calibration, measured_j):
                why = "the calibration was fitted to this window: in sample, not scored"
            elif compared_j is not None:
                ratio = compared_j / measured_j
        estimates.append(ComparedEstimate(**structs.asdict(row), compared_j=compared_j, ratio=ratio, not_scored=why))
    return EstimatedWindow(load=load, measured=measured, estimates=estimates)


def _was_fitted(calibration: EnergyCalibration | None, measured_j: float) -> bool:
    """Return whether the calibration was fitted to this measured energy."""
    fitted_j = [] if calibration is None else calibration.record.get("fitted_j") or []
    return any(abs(energy_j / measured_j - 1) < FITTED_TOLERANCE for energy_j in fitted_j)


def _scores(windows: Sequence[EstimatedWindow]) -> dict[str, EstimatorScore]:
    """Return the score of each estimator over the windows on which it may be scored."""
    scores = {}
    for index, estimator in enumerate(ESTIMATORS if windows else ()):
        rows = [(window.estimates[index], window.measured) for window in windows]
        pairs = [(row.compared_j, measured.energy_per_output_token_j) for row, measured in rows if row.ratio]
        whys = [row.not_scored or measured.unavailable for row, measured in rows]
        why = "; ".join(dict.fromkeys(text for text in whys if text)) or None
        estimated_j, measured_j = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        scores[estimator.id] = score(estimator.id, estimated_j, measured_j, why=why).facts()
    return scores


def measure_load(name: str, window: LoadWindow, requests: pd.DataFrame, metrics: ServerMetrics) -> EstimatorLoad:
    """Return the load of a window in the terms of the estimators.

    Args:
        name: name of the window.
        window: the window in steady_load.json.
        requests: the window's rows of requests.parquet.
        metrics: the server's metrics over the session.
    """
    throughput = window.figures["output_tokens_per_s"].value or None
    means = metrics.block_means("running", np.array([window.start_ns, window.end_ns], dtype=np.int64))
    ok = requests[requests["status"] == "ok"]
    ended = ok[within(ok["last_token_ns"].fillna(ok["end_ns"]), Window(name, window.start_ns, window.end_ns))]
    ended = ended[ended["completion_tokens"].notna() & ended["prompt_tokens"].notna()]
    prompts = ended["prompt_tokens"].to_numpy(dtype=np.float64)
    cached = ended["cached_tokens"].fillna(0).to_numpy(dtype=np.float64)
    answers = ended["completion_tokens"].to_numpy(dtype=np.float64)
    waits_s = (ended["first_token_ns"] - ended["sent_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    has_tokens = answers.sum() > 0
    return EstimatorLoad(
        batch=None if not means or means[0] <= 0 else means[0],
        input_tokens=float((prompts - cached).mean()) if len(prompts) else None,
        output_tokens=float(answers.mean()) if has_tokens else None,
        context_tokens=float((answers * (prompts + answers / 2)).sum() / answers.sum()) if has_tokens else None,
        throughput_tokens_per_s=throughput,
        ttft_s=float(waits_s.mean()) if has_tokens and len(waits_s) else None,
    )


def measure_gpu_energy(energy: EnergyWindow, load: LoadWindow) -> MeasuredGpuEnergy:
    """Return the total energy of the GPUs alone per output token; in a window of kind `prefill` per prompt token.

    Args:
        energy: the window in energy.json.
        load: the window in steady_load.json.
    """
    counts, of_prompts = load.counts, load.kind == "prefill"
    figure = energy.figures["energy_total_j" if of_prompts else "energy_total_per_output_token_j"]
    tokens = counts.prompt_tokens - counts.cached_tokens if of_prompts else counts.output_tokens

    def document(energy_j: float | None, grade: str, unavailable: str | None) -> MeasuredGpuEnergy:
        return MeasuredGpuEnergy(
            energy_per_output_token_j=UNSET if of_prompts else energy_j,
            energy_per_prompt_token_j=energy_j if of_prompts else UNSET,
            boundary="gpu",
            basis="total",
            grade=grade,
            unavailable=unavailable,
        )

    if figure.value is None:
        return document(None, figure.grade, " ".join(reason.detail for reason in figure.reasons))
    cards: dict[str, DeviceEnergy] = {}
    for device in energy.devices:
        # Of two sources of one card, take the summed one; if only the whole machine is summed, any of the card's.
        is_card = device.domain == "gpu" and device.energy_j is not None
        if is_card and (device.summed or device.device not in cards):
            cards[device.device] = device
    if not cards or not tokens:
        return document(None, figure.grade, "no energy of a GPU was measured in the window.")
    total_j = sum(card.energy_j or 0.0 for card in cards.values())
    return document(total_j / tokens, weakest([card.grade for card in cards.values()]), None)


SIMULATED = " (simulated)"
"""Suffix that the virtual bench adds to the name of the GPU that it simulates."""

_QUANTISATION = {"fp8": "fp8", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8"}
"""Values of vLLM's `--quantization` that shrink 16 bit weights while loading."""


@dataclass(frozen=True)
class ServedModel:
    """The served model and its GPUs.

    Attributes:
        shape: shape of the model; None if unknown.
        gpu: data sheet of the GPU; None if unknown.
        gpus_per_copy: GPUs that serve one copy of the model together.
        copies: copies of the model, side by side.
        unknown: why model or GPU is unknown, a sentence each.
        notes: what to know about them.
    """

    shape: ModelShape | None
    gpu: GpuSheet | None
    gpus_per_copy: int
    copies: int
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def read_served_model(
    model: ModelDocument, environment: EnvironmentDocument, session: SessionDocument, named_gpu: str | None
) -> ServedModel:
    """Return the model and the GPUs that a session served.

    Args:
        model: model.json.
        environment: environment.json of the session.
        session: session.json.
        named_gpu: name of the GPU in the configuration (`estimate.gpu`); None: the driver's name.

    Raises:
        InputError: `named_gpu` is not in the table of data sheets.
    """
    flags = _flags(session.launch.command or [] if session.launch else [])
    unknown: list[str] = []
    notes: list[str] = []
    shape = _shape(model, flags, unknown)
    gpu = _gpu(environment, session, named_gpu, unknown, notes)
    simulated = session.simulated or {}
    parallel = [_whole(flags, f"{kind}-parallel-size") for kind in ("tensor", "pipeline", "data")]
    gpus = int(simulated.get("tensor_parallel") or parallel[0] * parallel[1])
    copies = int(simulated.get("nodes") or parallel[2])
    return ServedModel(shape, gpu, gpus, copies, tuple(unknown), tuple(notes))


def _shape(model: ModelDocument, flags: Mapping[str, str], unknown: list[str]) -> ModelShape | None:
    name = model.name or "the model"
    if model.architecture is None:
        why = model.missing.get("architecture")
        unknown.append(
            f"the shape of {name} is not known: {why or 'model.json does not hold the content of its config.json'}"
        )
        return None
    kv = flags.get("kv-cache-dtype", "auto")
    precision = (
        None if model.architecture.get("quantization_config") else _QUANTISATION.get(flags.get("quantization", ""))
    )
    try:
        return shape_from_config(model.architecture, name, precision, "fp8" if kv.startswith("fp8") else None)
    except InputError as error:
        unknown.append(f"the shape of the model is not known: {error}")
        return None


def _gpu(
    environment: EnvironmentDocument,
    session: SessionDocument,
    named: str | None,
    unknown: list[str],
    notes: list[str],
) -> GpuSheet | None:
    uuids = session.launch.gpus if session.launch else None
    cards = environment.gpus or []
    if uuids is not None:
        if any(uuid.startswith("MIG-") for uuid in uuids):
            unknown.append("the server had a slice of a GPU (MIG); data sheets are of whole cards")
            return None
        cards = [card for card in cards if card.uuid in uuids]
    if not cards:
        unknown.append("the server had no GPU that is recorded; the estimators are of GPUs")
        return None
    names = list(dict.fromkeys(str(card.name) for card in cards))
    if named is not None:
        sheet: GpuSheet | None = find_gpu(named, "estimate.gpu")
    elif len(names) > 1:
        unknown.append(f"the server had GPUs of different kinds: {', '.join(names)}")
        return None
    else:
        sheet = gpu_of_driver(names[0].removesuffix(SIMULATED))
    if sheet is None:
        unknown.append(
            f"the GPU {names[0]} is not in the table of data sheets; name the row to use in estimate.gpu "
            "(`inference-energy estimate gpus` lists them)"
        )
        return None
    if environment.simulated:
        notes.append(f"the GPU is simulated; the data sheet is that of {sheet.name}")
    limits_w = {card.power_limit_enforced_w for card in cards if card.power_limit_enforced_w}
    notes += [
        f"the card's power limit is {limit:.0f} W, the data sheet's {sheet.tdp_w:.0f} W"
        for limit in sorted(limits_w)
        if abs(limit - sheet.tdp_w) > 1
    ]
    return sheet


def _flags(command: Sequence[str]) -> dict[str, str]:
    """Return the options of a command, `--a b` and `--a=b`, by name with dashes."""
    options: dict[str, str] = {}
    for word, after in zip_longest(command, command[1:], fillvalue=""):
        if word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            options[name.replace("_", "-")] = value if sign else after
    return options


def _whole(flags: Mapping[str, str], name: str) -> int:
    text = flags.get(name, "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
