"""Estimates of energy without a run: `estimate_energy`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import pandas as pd

from inference_energy.contracts.documents.estimates import EstimateRow
from inference_energy.errors import InputError, Setting
from inference_energy.estimate.calibration import read_calibration
from inference_energy.estimate.compare import EstimateComparison, EstimateRequest, basis_for, compare_estimates
from inference_energy.estimate.estimator import Basis
from inference_energy.estimate.gpus import find_gpu
from inference_energy.estimate.reference_rows import MeasuredRow, read_rows
from inference_energy.estimate.shapes.config_json import shape_of


@dataclass(frozen=True)
class Estimates:
    """All estimates of one configuration; every figure is modelled, none is a measurement.

    Attributes:
        request: the configuration.
        basis: the data that the estimates rest on.
    """

    request: EstimateRequest
    basis: Basis

    def __repr__(self) -> str:
        """Return in a line what is estimated; `table` holds the results."""
        return f"Estimates({repr(self.request)[:300]})"

    @cached_property
    def comparison(self) -> EstimateComparison:
        """The estimates with model, GPU, load and notes, as `inference-energy estimate --json` prints them."""
        return self.spelled(str)

    def spelled(self, spell: Callable[[Setting], str]) -> EstimateComparison:
        """Return the comparison with the arguments that its sentences name as `spell` shows them."""
        return compare_estimates(self.request, self.basis, spell)

    @property
    def estimates(self) -> list[EstimateRow]:
        """One row per estimator; `unavailable` gives the reason for a missing estimate."""
        return self.comparison.estimates

    @property
    def table(self) -> pd.DataFrame:
        """A row per estimator: `energy_per_output_token_j`, its range, energy per request, and `unavailable`."""
        rows = [
            {
                "energy_per_output_token_j": row.energy_per_output_token_j,
                "low": row.low,
                "high": row.high,
                "energy_per_request_j": row.energy_per_request_j.point,
                "boundary": row.boundary,
                "unavailable": row.unavailable,
            }
            for row in self.estimates
        ]
        return pd.DataFrame(rows, index=pd.Index([row.id for row in self.estimates], name="estimator"))


def estimate_energy(
    model: str | Path,
    gpu: str,
    *,
    batch: float | None = None,
    input_tokens: float | None = None,
    output_tokens: float | None = None,
    throughput: float | None = None,
    ttft_s: float | None = None,
    tensor_parallel: int = 1,
    precision: str | None = None,
    kv_precision: str | None = None,
    calibration: str | Path | None = None,
    baseline: str | Path | None = None,
) -> Estimates:
    """Estimate the energy per token of a configuration by every published method.

    A method whose inputs are missing gives the reason instead of a number; no input is guessed.

    Args:
        model: path of a config.json or of a folder with one, or a name that `inference-energy estimate models` lists.
        gpu: a name that `inference-energy estimate gpus` lists.
        batch: mean running batch: requests in a step.
        input_tokens: prompt tokens of a request.
        output_tokens: output tokens of a request.
        throughput: measured output tokens/s of all these GPUs together.
        ttft_s: time to first token.
        tensor_parallel: GPUs that serve one copy of the model together.
        precision: precision of the weights (bf16, fp8, int8, int4); None: as config.json states.
        kv_precision: precision of the key-value cache; None: 16 bit, unless config.json states another.
        calibration: calibration of the energy roofline: a file of `inference-energy estimate fit`, or a shipped name.
        baseline: table with the one measured row from which the estimator `scale` starts.

    Raises:
        InputError: model, GPU, a file or a number cannot be used; the message names the argument.

    Examples:
        >>> from inference_energy import estimate_energy
        >>> result = estimate_energy(
        ...     "Llama-3.1-8B", "H100-SXM", batch=64, input_tokens=512, output_tokens=256
        ... )
        >>> round(float(result.table.loc["energy-roofline", "energy_per_output_token_j"]), 3)
        0.116
        >>> result.table.loc["tdp", "unavailable"]
        'needs the measured throughput in output tokens/s (throughput)'
    """
    for name, value in (("batch", batch), ("output_tokens", output_tokens), ("throughput", throughput)):
        _check_number(name, value, "a number above 0", lambda number: number > 0)
    for name, value in (("input_tokens", input_tokens), ("ttft_s", ttft_s)):
        _check_number(name, value, "a number, 0 or more", lambda number: number >= 0)
    _check_number(
        "tensor_parallel", tensor_parallel, "a whole number, 1 or more", lambda number: number >= 1 and number % 1 == 0
    )
    _check_text("model", model, required=True)
    _check_text("gpu", gpu, required=True)
    for name, text in (("precision", precision), ("kv_precision", kv_precision)):
        _check_text(name, text)
    for name, path in (("calibration", calibration), ("baseline", baseline)):
        _check_text(name, path)
    card = find_gpu(gpu)
    with _about("model"):
        shape = shape_of(str(model), precision, kv_precision)
    request = EstimateRequest(
        shape=shape,
        gpu=card,
        tensor_parallel=int(tensor_parallel),
        batch=batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        throughput=throughput,
        ttft_s=ttft_s,
    )
    fitted = None if calibration is None else read_calibration(str(calibration))
    with _about("baseline"):
        row = None if baseline is None else _baseline_row(Path(baseline))
    return Estimates(request, basis_for(card, fitted, row))


def _check_number(name: str, value: object, wanted: str, fits: Callable[[float], bool]) -> None:
    """Raise an InputError if an argument is given and is no finite number that fits."""
    if value is None:
        return
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number) or not fits(number):
        shown = "a number above all limits" if number == math.inf != value else f"{value!r}"
        raise InputError(f"{shown}: write {wanted}", key=name)


def _check_text(name: str, value: object, *, required: bool = False) -> None:
    """Raise an InputError if an argument is no text or path; None is one that is not given."""
    if (value is None and not required) or isinstance(value, str | Path):
        return
    raise InputError(f"{value!r:.40}: write a text", key=name)


@contextmanager
def _about(argument: str) -> Iterator[None]:
    """Name the argument in an error that names none."""
    try:
        yield
    except InputError as error:
        if error.notice.key:
            raise
        raise InputError(error.notice.text, key=argument, write=error.notice.write) from error


def _baseline_row(path: Path) -> MeasuredRow:
    """Return the one row of a table.

    Raises:
        InputError: the table has no such row, or several.
    """
    rows = [row for row in read_rows(path) if row.use == "score" and not row.is_prefill]
    if len(rows) != 1:
        raise InputError(f"{path}: one row with energy_per_output_token_j is expected, not {len(rows)}")
    return rows[0]
