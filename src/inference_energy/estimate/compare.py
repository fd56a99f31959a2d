"""All estimators for one configuration: the result of `inference-energy estimate` and of the stage `estimate`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference_energy.contracts.documents.document import VERSION, Part
from inference_energy.contracts.documents.estimates import EnergyRange, EstimateRow, ModelShapeFacts
from inference_energy.contracts.figure import Number
from inference_energy.errors import Setting
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import SHIPPED, EnergyCalibration, shipped_calibration
from inference_energy.estimate.estimator import NEEDS, Basis, Estimator, Problem, Values, as_option, spelled
from inference_energy.estimate.estimators import (
    ecologits,
    energy_roofline,
    flops,
    how_hungry_is_ai,
    lookup,
    roofline,
    scale,
    tdp,
    tdp70,
)
from inference_energy.estimate.gpus import GpuSheet
from inference_energy.estimate.reference_rows import PUBLISHED, MeasuredRow, shipped_rows
from inference_energy.estimate.shapes.shape import Array, ModelShape

GRADE: Literal["modelled"] = "modelled"
"""The grade of every estimate: none is a measurement."""


ESTIMATORS: tuple[Estimator, ...] = (
    tdp.ESTIMATOR,
    tdp70.ESTIMATOR,
    flops.ESTIMATOR,
    roofline.ESTIMATOR,
    ecologits.ESTIMATOR,
    how_hungry_is_ai.ESTIMATOR,
    scale.ESTIMATOR,
    lookup.ESTIMATOR,
    energy_roofline.ESTIMATOR,
)
"""In display order: from the plainest to the best informed."""


@dataclass(frozen=True)
class EstimateRequest:
    """One configuration; None for unknown values. `Cases` describes the attributes."""

    shape: ModelShape
    gpu: GpuSheet
    tensor_parallel: int = 1
    batch: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    context: float | None = None
    throughput: float | None = None
    ttft_s: float | None = None

    def cases(self) -> Cases:
        """Return the configuration as a single case."""

        def number(value: float | None) -> float:
            return math.nan if value is None else value

        return Cases.of(
            [self.shape],
            [self.gpu],
            tensor_parallel=self.tensor_parallel,
            batch=number(self.batch),
            input_tokens=number(self.input_tokens),
            output_tokens=number(self.output_tokens),
            context=number(self.context),
            throughput=number(self.throughput),
            ttft_s=number(self.ttft_s),
        )


class ComparedGpu(Part, frozen=True, kw_only=True):
    """A GPU's data sheet with its source."""

    name: str
    tdp_w: Number
    source: str


class ComparedLoad(Part, frozen=True, kw_only=True):
    """The load of a configuration; None for unknown values."""

    tensor_parallel: int
    batch: float | None
    input_tokens: float | None
    output_tokens: float | None
    context_tokens: float | None
    throughput_tokens_per_s: float | None
    ttft_s: float | None


class PrefillEstimate(Part, frozen=True, kw_only=True):
    """The energy of reading one prompt, apart from the answer.

    Attributes:
        data_sheet_j: lowest and highest by the data sheet.
        calibrated_j: by a calibration with a term for prompts; None without one.
        calibrated_interval_j: 95 % prediction interval of `calibrated_j`.
        unavailable: why there is no estimate at all.
        calibration: name of the calibration, or why it gives no estimate.
    """

    data_sheet_j: tuple[float | None, float | None]
    calibrated_j: float | None
    calibrated_interval_j: tuple[float, float] | None
    unavailable: str | None
    calibration: str | None = None


class EstimateComparison(Part, frozen=True, kw_only=True):
    """All estimates of one configuration.

    Attributes:
        version: version of the JSON form.
        grade: `modelled`.
        model: shape of the model.
        gpu: data sheet of the GPU.
        load: the load.
        prefill: energy of reading one prompt.
        notes: what to know about model, GPU and load, a sentence each.
        estimates: one row per estimator.
    """

    version: int
    grade: Literal["modelled"]
    model: ModelShapeFacts
    gpu: ComparedGpu
    load: ComparedLoad
    prefill: PrefillEstimate
    notes: list[str]
    estimates: list[EstimateRow]


def basis_for(
    gpu: GpuSheet, calibration: EnergyCalibration | None = None, baseline: MeasuredRow | None = None
) -> Basis:
    """Return the basis of the estimators for a GPU: the shipped rows and, unless another is given, its calibration."""
    shipped = shipped_calibration(SHIPPED[0])
    fitted = calibration or (shipped if gpu.name in shipped.gpus else None)
    return Basis(scored_rows(), fitted, baseline)


def scored_rows() -> tuple[MeasuredRow, ...]:
    """Return the published rows that estimates may be compared with."""
    return tuple(row for row in shipped_rows(PUBLISHED) if row.use == "score")


def estimator_of(name: str) -> Estimator:
    """Return the estimator with this id."""
    return next(estimator for estimator in ESTIMATORS if estimator.id == name)


def compare_estimates(
    request: EstimateRequest, basis: Basis, spell: Callable[[Setting], str] = as_option
) -> EstimateComparison:
    """Return all estimates of one configuration; `spell` shows the arguments that its sentences name."""
    cases = request.cases()
    return EstimateComparison(
        version=VERSION,
        grade=GRADE,
        model=request.shape.facts(),
        gpu=ComparedGpu(name=request.gpu.name, tdp_w=request.gpu.tdp_w, source=request.gpu.source),
        load=ComparedLoad(
            tensor_parallel=request.tensor_parallel,
            batch=request.batch,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            context_tokens=_number(cases.context, 0),
            throughput_tokens_per_s=request.throughput,
            ttft_s=request.ttft_s,
        ),
        prefill=prefill_estimate(cases, basis.calibration, request.gpu, spell),
        notes=[spelled(note, spell) for note in _notes(cases)],
        estimates=[
            estimate_row(
                estimator,
                estimator.estimate(cases, basis).without(impossible(cases, estimator)),
                0,
                request.output_tokens,
                spell,
            )
            for estimator in ESTIMATORS
        ],
    )


def impossible(cases: Cases, estimator: Estimator) -> list[Problem]:
    """Return why an estimator's figure of a stated configuration would be one that cannot run."""
    problems = [Problem(cases.memory_share > 1, _too_large(cases))]
    if "throughput" in estimator.needs:
        problems.append(Problem(cases.throughput > cases.most_tokens_per_s, _too_fast(cases)))
    return problems


def _too_large(cases: Cases) -> str:
    share, gpus, card = float(cases.memory_share[0]), cases.gpus[0], cases.cards[0]
    weights = cases.shapes[0].resident_bytes / 1e9
    cache = float(np.nan_to_num(cases.batch[0] * cases.kv_resident_bytes[0])) / 1e9
    return (
        f"does not fit: weights take {weights:.3g} GB and the cache {cache:.3g} GB, {100 * share:.0f} % of the "
        f"{gpus * card.memory_bytes / 1e9:.4g} GB of {gpus:g} {card.name}; more GPUs ({{tensor_parallel}}), a smaller "
        "load or a lower precision are needed"
    )


def _too_fast(cases: Cases) -> str:
    return (
        f"{cases.throughput[0]:g} output tokens/s ({{throughput}}) are beyond the roofline: {cases.gpus[0]:g} "
        f"{cases.cards[0].name} can read and compute at most {cases.most_tokens_per_s[0]:.3g} of them a second by the "
        "data sheet, one token a step and request"
    )


def estimate_row(
    estimator: Estimator,
    values: Values,
    case: int,
    output_tokens: float | None,
    spell: Callable[[Setting], str] = as_option,
) -> EstimateRow:
    """Return an estimator's values for one case."""
    point, low, high = (_number(array, case) for array in (values.point, values.low, values.high))
    reasons = [spelled(problem.detail, spell) for problem in values.problems if problem.cases[case]]
    if point is None and low is None and not reasons:
        reasons = ["its inputs give no number"]

    def per_request(energy_j: float | None) -> float | None:
        return None if energy_j is None or not output_tokens else energy_j * output_tokens

    return EstimateRow(
        id=estimator.id,
        title=estimator.title,
        energy_per_output_token_j=point,
        low=low,
        high=high,
        energy_per_request_j=EnergyRange(point=per_request(point), low=per_request(low), high=per_request(high)),
        boundary=estimator.boundary,
        formula=estimator.formula,
        source=estimator.source,
        assumptions=[*estimator.assumes, *([] if reasons else (spelled(note, spell) for note in values.notes(case)))],
        leaves_out=list(estimator.leaves_out),
        beside={name: _number(array, case) for name, array in values.beside.items()},
        unavailable="; ".join(reasons) or None,
    )


def prefill_estimate(
    cases: Cases, calibration: EnergyCalibration | None, gpu: GpuSheet, spell: Callable[[Setting], str] = as_option
) -> PrefillEstimate:
    """Return the energy of reading one prompt, by the data sheet and by a calibration with a term for prompts."""
    low, high = (_number(energy_j, 0) for energy_j in roofline.prefill_j(cases))
    tokens = float(cases.input_tokens[0])
    calibrated_j, interval_j, name = None, None, None
    unavailable = spelled(f"needs {NEEDS['input_tokens']}", spell) if np.isnan(tokens) else None
    if cases.memory_share[0] > 1:
        low, high, unavailable = None, None, spelled(_too_large(cases), spell)
    elif np.isnan(tokens):
        pass
    elif calibration is None or not calibration.has_prefill or gpu.name not in calibration.gpus:
        name = spelled("the calibration has no term for prompts; h100-windows has one ({calibration})", spell)
    elif tokens == 0:
        calibrated_j, interval_j, name = 0.0, (0.0, 0.0), calibration.name
    else:
        per_token = calibration.prompt_tokens(cases)
        calibrated_j = float(per_token.energy_j[0]) * tokens
        interval_j = (float(per_token.low[0]) * tokens, float(per_token.high[0]) * tokens)
        name = calibration.name
    return PrefillEstimate(
        data_sheet_j=(low, high),
        calibrated_j=calibrated_j,
        calibrated_interval_j=interval_j,
        unavailable=unavailable,
        calibration=name,
    )


def _notes(cases: Cases) -> list[str]:
    notes = list(cases.shapes[0].notes)
    if cases.memory_share[0] > 1:
        notes.append(_too_large(cases))
    if cases.throughput[0] > cases.most_tokens_per_s[0]:
        notes.append(_too_fast(cases))
    if cases.cards[0].note:
        notes.append(f"{cases.cards[0].name}: {cases.cards[0].note}")
    return notes


def _number(values: Array, case: int) -> float | None:
    value = float(values[case])
    return value if math.isfinite(value) else None
