"""Calibrated energy roofline: the energy per byte, per FLOP and per token, fitted to measured rows.

    E_tok = e_byte * (W / B + KV * ctx) + e_flop * 2 N + e_0

W are the bytes of weights that a step reads (with the expected share of experts), B the mean running batch, KV * ctx
the bytes of cache read for a request, with windowed layers capped at their window, N the active parameters. The
coefficients come from a calibration: `h100-published` is fitted to the published rows of six dense models, and any
table of measured rows gives another (`inference-energy estimate fit`). Source: this project.

A fitted e_byte of 180 to 190 pJ/byte is far above the energy to move a byte: the static and clock power of a GPU that
waits for memory is attributed to bytes (600 W / 3.3 TB/s = 182 pJ/byte). So coefficients belong to a GPU, its clocks
and its server; they are not physical constants.

Limits: a calibration is valid for its own GPUs only. If its rows lack the lengths of prompts, e_0 and e_flop include
their prompts, so the energy of much longer prompts is underestimated. The range is a 95 % prediction interval from the
scatter of the rows and of models left out; a new kind of model can fall outside.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.estimator import NEEDS, Basis, Estimator, Problem, Values


def _compute(cases: Cases, basis: Basis) -> Values:
    calibration = basis.calibration
    nothing = np.full(len(cases), np.nan)
    all_cases = np.ones(len(cases), dtype=bool)
    if calibration is None:
        detail = "no calibration is given ({calibration}), and one is shipped for H100-SXM only"
        return Values(nothing, nothing, nothing, (Problem(all_cases, detail),))
    if not calibration.has_decode:
        detail = f"calibration {calibration.name} holds no rows with output tokens"
        return Values(nothing, nothing, nothing, (Problem(all_cases, detail),))
    prediction = calibration.output_tokens(cases)
    other_gpu = np.array([gpu.name not in calibration.gpus for gpu in cases.cards])[cases.card]
    problems = [
        Problem(
            other_gpu,
            f"calibration {calibration.name} is of {', '.join(calibration.gpus)}; fit one for this GPU (estimate fit)",
        )
    ]
    with np.errstate(invalid="ignore"):
        below = ~(prediction.energy_j > 0) & ~np.isnan(prediction.energy_j)
    detail = (
        f"calibration {calibration.name} gives an energy of 0 or less here: it does not hold for this configuration"
    )
    problems.append(Problem(below, detail))
    if calibration.prompts == "apart":
        unknown = np.isnan(cases.input_tokens * cases.output_tokens)
        problems.append(Problem(unknown, f"this calibration needs {NEEDS['context']}"))
    return Values.points(
        prediction.energy_j, prediction.low, prediction.high, notes=lambda case: _notes(calibration, cases, case)
    ).without(problems)


def _notes(calibration: EnergyCalibration, cases: Cases, case: int) -> list[str]:
    prompts = (
        "prompts are inside, as those of the rows it was fitted to"
        if calibration.prompts == "inside"
        else "an output token carries its share of the prompt"
    )
    notes = [f"calibration {calibration.name}; {prompts}"]
    batch, (smallest, largest) = float(cases.batch[case]), calibration.batches
    if batch < smallest or batch > largest:
        notes.append(f"batch {batch:g} is outside the fitted {smallest:g} to {largest:g}: extrapolated")
    shape = cases.shapes[cases.model[case]]
    if shape.is_moe and calibration.record.get("dense_only"):
        notes.append("fitted to dense models only; the experts touched are expected values")
    return notes


ESTIMATOR = Estimator(
    id="energy-roofline",
    title="calibrated energy roofline",
    formula="e_byte * (W/B + KV * ctx) + e_flop * 2 N + e_0",
    source="this project, fitted to measured rows",
    boundary="gpu",
    assumes=("the clocks, power limit and server of the rows it was fitted to",),
    leaves_out=("CPU, memory, fans, PUE", "idle time: the server is busy all the while"),
    needs=("batch", "context"),
    compute=_compute,
)
