"""Calibrated energy roofline: what a byte, a FLOP and a token cost, fitted to measured rows.

    E_tok = e_byte * (W / B + KV * ctx) + e_flop * 2 N + e_0

W are the bytes of weights that a step reads (of a mixture of experts those expected to be touched), B the mean running
batch, KV * ctx the bytes of cache read for a request, with windowed layers capped at their window, N the active
parameters. The coefficients come from a calibration: `h100-published` is fitted to the published rows of six dense
models, and any table of measured rows gives another (`inference-energy estimate fit`). Source: this project.

A fitted e_byte of 180 to 190 pJ/byte is far above what moving a byte takes: the static and clock power of a GPU that
waits for memory is billed to bytes (600 W / 3.3 TB/s = 182 pJ/byte). So coefficients belong to a GPU, its clocks and
its server; they are not physical constants.

Limits: a calibration says nothing of other GPUs. Where its rows did not tell their prompts, output tokens carry them as
those rows did, in e_0 and e_flop: prompts much longer than those cost more than is estimated. The range is a 95 %
prediction interval from the scatter of the rows and of models left out; a new kind of model can lie outside.
"""

import numpy as np

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.estimator import Basis, Estimator, Problem, Values


def _compute(cases: Cases, basis: Basis) -> Values:
    fitted = basis.calibration
    nothing = np.full(len(cases), np.nan)
    everywhere = np.ones(len(cases), dtype=bool)
    if fitted is None:
        detail = "no calibration is given (--calibration), and one is shipped for H100-SXM only"
        return Values(nothing, nothing, nothing, (Problem(everywhere, detail),))
    if not fitted.has_decode:
        detail = f"calibration {fitted.name} holds no rows with output tokens"
        return Values(nothing, nothing, nothing, (Problem(everywhere, detail),))
    found = fitted.output_tokens(cases)
    elsewhere = np.array([gpu.name not in fitted.gpus for gpu in cases.cards])[cases.card]
    problems = [
        Problem(
            elsewhere, f"calibration {fitted.name} is of {', '.join(fitted.gpus)}; fit one for this GPU (estimate fit)"
        )
    ]
    if fitted.prompts == "apart":
        unknown = np.isnan(cases.input_tokens * cases.output_tokens)
        problems.append(Problem(unknown, "this calibration needs the lengths of prompt and answer (--input, --output)"))
    return Values.points(
        found.energy_j, found.low, found.high, notes=lambda place: _notes(fitted, cases, place)
    ).without(problems)


def _notes(fitted: EnergyCalibration, cases: Cases, place: int) -> list[str]:
    prompts = (
        "prompts are inside, as those of the rows it was fitted to"
        if fitted.prompts == "inside"
        else "an output token carries its share of the prompt"
    )
    notes = [f"calibration {fitted.name}; {prompts}"]
    batch, (least, most) = float(cases.batch[place]), fitted.batches
    if batch < least or batch > most:
        notes.append(f"batch {batch:g} is outside the fitted {least:g} to {most:g}: extrapolated")
    shape = cases.shapes[cases.model[place]]
    if shape.is_moe and fitted.record.get("dense_only"):
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
