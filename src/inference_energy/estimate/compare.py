"""Every estimator for one configuration: what `inference-energy estimate` prints and the pipeline's rule keeps."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration, shipped_calibration
from inference_energy.estimate.estimator import Basis, Estimator, Values
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

GRADE = "modelled"
"""Of every estimate: nothing here was measured."""


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
    """One configuration; None for what is not known. See `Cases` for the meaning."""

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
        """The configuration as the only case."""

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


def basis_for(
    gpu: GpuSheet, calibration: EnergyCalibration | None = None, baseline: MeasuredRow | None = None
) -> Basis:
    """What the estimators rest on for one GPU: the shipped rows, and its calibration if none is given."""
    fitted = calibration
    if fitted is None:
        shipped = shipped_calibration("h100-published")
        fitted = shipped if gpu.name in shipped.gpus else None
    return Basis(scored_rows(), fitted, baseline)


def scored_rows() -> tuple[MeasuredRow, ...]:
    """The published rows that are fit to be compared with."""
    return tuple(row for row in shipped_rows(PUBLISHED) if row.use == "score")


def estimate_all(cases: Cases, basis: Basis) -> dict[str, Values]:
    """The values of every estimator by its id."""
    return {one.id: one.estimate(cases, basis) for one in ESTIMATORS}


def side_by_side(request: EstimateRequest, basis: Basis) -> dict[str, Any]:
    """All estimates of one configuration as JSON holds them.

    Returns:
        `grade` (modelled), `model`, `gpu`, `load`, `prefill`, `notes` and `estimates`: a list with `id`, `title`,
        `energy_per_output_token_j`, `low`, `high`, `energy_per_request_j`, `boundary`, `assumptions`, `leaves_out`,
        `beside`, and `unavailable`, the reason where there is no estimate.
    """
    cases = request.cases()
    rows = [row_of(one, one.estimate(cases, basis), 0, request.output_tokens) for one in ESTIMATORS]
    return {
        "version": 1,
        "grade": GRADE,
        "model": request.shape.as_dict(),
        "gpu": {"name": request.gpu.name, "tdp_w": request.gpu.tdp_w, "source": request.gpu.source},
        "load": {
            "tensor_parallel": request.tensor_parallel,
            "batch": request.batch,
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
            "context_tokens": _number(cases.context, 0),
            "throughput_tokens_per_s": request.throughput,
            "ttft_s": request.ttft_s,
        },
        "prefill": prefill_of(cases, basis.calibration, request.gpu),
        "notes": _notes(cases),
        "estimates": rows,
    }


def row_of(one: Estimator, values: Values, place: int, output_tokens: float | None) -> dict[str, Any]:
    """One estimator's values for one case as JSON holds them."""
    point, low, high = (_number(array, place) for array in (values.point, values.low, values.high))
    reasons = [problem.detail for problem in values.problems if problem.where[place]]
    if point is None and low is None and not reasons:
        reasons = ["its inputs give no number"]
    per_request = {
        key: None if number is None or not output_tokens else number * output_tokens
        for key, number in (("point", point), ("low", low), ("high", high))
    }
    return {
        "id": one.id,
        "title": one.title,
        "energy_per_output_token_j": point,
        "low": low,
        "high": high,
        "energy_per_request_j": per_request,
        "boundary": one.boundary,
        "formula": one.formula,
        "source": one.source,
        "assumptions": [*one.assumes, *([] if reasons else values.notes(place))],
        "leaves_out": list(one.leaves_out),
        "beside": {name: _number(array, place) for name, array in values.beside.items()},
        "unavailable": "; ".join(reasons) or None,
    }


def prefill_of(cases: Cases, calibration: EnergyCalibration | None, gpu: GpuSheet) -> dict[str, Any]:
    """Energy of reading one prompt, apart from the answer: by data sheet, and by a calibration that knows prompts."""
    low, high = roofline.prefill_j(cases)
    found: dict[str, Any] = {
        "data_sheet_j": [_number(low, 0), _number(high, 0)],
        "calibrated_j": None,
        "calibrated_interval_j": None,
        "unavailable": None,
    }
    if np.isnan(cases.input_tokens[0]):
        found["unavailable"] = "needs the prompt's length (--input)"
    elif calibration is None or not calibration.has_prefill or gpu.name not in calibration.gpus:
        found["calibration"] = "the calibration has no term for prompts; h100-windows has one (--calibration)"
    elif cases.input_tokens[0] == 0:
        found |= {"calibrated_j": 0.0, "calibrated_interval_j": [0.0, 0.0], "calibration": calibration.name}
    else:
        each = calibration.prompt_tokens(cases)
        tokens = float(cases.input_tokens[0])
        found["calibrated_j"] = float(each.energy_j[0]) * tokens
        found["calibrated_interval_j"] = [float(each.low[0]) * tokens, float(each.high[0]) * tokens]
        found["calibration"] = calibration.name
    return found


def _notes(cases: Cases) -> list[str]:
    notes = list(cases.shapes[0].notes)
    share = float(cases.memory_share[0])
    if share > 1:
        notes.append(
            f"does not fit: weights and cache take {100 * share:.0f} % of the memory of {cases.gpus[0]:g} "
            f"{cases.cards[0].name}; more GPUs (--tp) or a lower precision are needed"
        )
    if cases.cards[0].note:
        notes.append(f"{cases.cards[0].name}: {cases.cards[0].note}")
    return notes


def _number(values: Array, place: int) -> float | None:
    value = float(values[place])
    return value if math.isfinite(value) else None


def estimator_of(name: str) -> Estimator:
    """The estimator with this id."""
    return next(one for one in ESTIMATORS if one.id == name)
