"""estimates.json: every estimator beside every window of a session, and how far it is from the measurement."""

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from inference_energy.contracts.documents.document import DerivedDocument, Part
from inference_energy.contracts.figure import Number


class ModelShapeFacts(Part, frozen=True, kw_only=True):
    """The shape of a model.

    Attributes:
        name: name of the model.
        model_type: `model_type` of its config.json.
        parameters: number of parameters.
        active_parameters: parameters that one token uses.
        layers: number of layers.
        experts: experts a token of all, such as `8 of 64`; null for a dense model.
        window_tokens: length of its sliding attention window; null without one.
        windowed_layers: layers with a sliding window.
        weights: number format of the weights.
        weight_bytes: memory of the weights.
        kv_bytes_per_token: memory of the KV cache for one token.
        notes: what to know about it.
    """

    name: str
    model_type: str
    parameters: Number
    active_parameters: Number
    layers: int
    experts: str | None
    window_tokens: Number | None
    windowed_layers: int
    weights: str
    weight_bytes: Number
    kv_bytes_per_token: Number
    notes: list[str]


class GpuSheetFacts(Part, frozen=True, kw_only=True):
    """A GPU's data sheet.

    Attributes:
        name: its row in the table of data sheets.
        tdp_w: thermal design power.
    """

    name: str
    tdp_w: Number


class EstimatorLoad(Part, frozen=True, kw_only=True):
    """The load of a window in the terms of the estimators; null where the records do not tell.

    Attributes:
        batch: mean of the server's running requests.
        input_tokens: mean prompt length less what the prefix cache held.
        output_tokens: mean answer length.
        context_tokens: mean position of the decode steps.
        throughput_tokens_per_s: output tokens/s.
        ttft_s: mean time to the first token.
    """

    batch: float | None
    input_tokens: float | None
    output_tokens: float | None
    context_tokens: float | None
    throughput_tokens_per_s: float | None
    ttft_s: float | None


class MeasuredGpuEnergy(Part, frozen=True, kw_only=True):
    """Measured energy of the GPUs alone, without subtraction.

    Attributes:
        energy_per_output_token_j: energy per output token; absent for a window of kind `prefill`.
        energy_per_prompt_token_j: energy per computed prompt token; of a window of kind `prefill` only.
        boundary: `gpu`.
        basis: `total`.
        grade: grade of the energy.
        unavailable: why there is none.
    """

    energy_per_output_token_j: float | UnsetType | None = UNSET
    energy_per_prompt_token_j: float | UnsetType | None = UNSET
    boundary: str
    basis: str
    grade: str
    unavailable: str | None


class EnergyRange(Part, frozen=True, kw_only=True):
    """An energy and its range [J]; null where there is none.

    Attributes:
        point: the estimate.
        low: lower end of its range.
        high: upper end of its range.
    """

    point: float | None
    low: float | None
    high: float | None


class EstimateRow(Part, frozen=True, kw_only=True):
    """The estimate of one estimator.

    Attributes:
        id: name of the estimator.
        title: its title.
        energy_per_output_token_j: the estimate; null where there is none, or only a range.
        low: lower end of its range [J].
        high: upper end of its range [J].
        energy_per_request_j: the same times the answer's length.
        boundary: what the figure contains.
        formula: its formula.
        source: where the formula is from.
        assumptions: assumptions, a sentence each.
        leaves_out: what it leaves out, a sentence each.
        beside: further figures of the method, by name with unit.
        unavailable: why there is no estimate; null where there is one.
    """

    id: str
    title: str
    energy_per_output_token_j: float | None
    low: float | None
    high: float | None
    energy_per_request_j: EnergyRange
    boundary: str
    formula: str
    source: str
    assumptions: list[str]
    leaves_out: list[str]
    beside: dict[str, float | None]
    unavailable: str | None


class ComparedEstimate(EstimateRow, frozen=True, kw_only=True):
    """The estimate of one estimator beside a measured window.

    Attributes:
        compared_j: the energy per output token that is compared with the measured one.
        ratio: that over the measured energy; null where it is not scored.
        not_scored: why it is not scored.
    """

    compared_j: float | None
    ratio: float | None
    not_scored: str | None


class EstimatedWindow(Part, frozen=True, kw_only=True):
    """A steady window with its estimates.

    Attributes:
        load: its load.
        measured: its measured energy.
        estimates: every estimator.
    """

    load: EstimatorLoad
    measured: MeasuredGpuEnergy
    estimates: list[ComparedEstimate]


class MeasuredWindow(Part, frozen=True, kw_only=True):
    """A window of another kind, for a fit of a calibration.

    Attributes:
        kind: `prefill` or `decode`.
        load: its load.
        measured: its measured energy.
    """

    kind: str
    load: EstimatorLoad
    measured: MeasuredGpuEnergy


class EstimatorScore(Part, frozen=True, kw_only=True):
    """How far an estimator is from the measurements.

    Attributes:
        rows: number of compared windows.
        mape: mean absolute relative error; null where there is none.
        exp_mean_abs_ln_ratio: exp of the mean of |ln ratio|.
        within_factor_two: share of windows within a factor of two.
        median_ratio: median of estimated over measured.
        covered: share of windows whose measured energy lies in the range; null without ranges.
        unavailable: why it has no score.
    """

    rows: int
    mape: float | None
    exp_mean_abs_ln_ratio: float | None
    within_factor_two: float | None
    median_ratio: float | None
    covered: Number | None
    unavailable: str | None


class EstimatesDocument(DerivedDocument, frozen=True, kw_only=True):
    """The estimates of a session.

    Attributes:
        grade: `modelled`.
        model: shape of the served model; null where it is not known.
        architecture: content of the model's config.json.
        gpu: data sheet of the GPU; null where it is not known.
        gpus_per_copy: GPUs that serve one copy of the model together.
        copies: copies of the model, side by side.
        calibration: name of the calibration of the energy roofline; null without one.
        calibration_sha256: digest of its file.
        unknown: why nothing can be estimated, a sentence each.
        notes: what to know, a sentence each.
        windows: each steady window by name.
        fit_windows: each other window by name.
        scores: score of each estimator by its name.
    """

    FILE: ClassVar[str] = "estimates.json"

    grade: str
    model: ModelShapeFacts | None
    architecture: dict[str, Any] | None
    gpu: GpuSheetFacts | None
    gpus_per_copy: int
    copies: int
    calibration: str | None
    calibration_sha256: str | None
    unknown: list[str]
    notes: list[str]
    windows: dict[str, EstimatedWindow]
    fit_windows: dict[str, MeasuredWindow]
    scores: dict[str, EstimatorScore]
