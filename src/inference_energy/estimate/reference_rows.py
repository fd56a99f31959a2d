"""Rows of measured energy per token: read from CSV, JSON or finished runs, checked, and turned into cases.

A table has a row per measurement, with the columns (or keys)

- `model`: a shipped name, or the path of a config.json; in JSON also an object with `name` and `config`, the
  content of the config.json; `gpu`: a name in the table of data sheets;
- one of `energy_per_output_token_j` and `energy_per_prompt_token_j` (windows of prompts alone);
- `batch`: the mean running batch;
- optional: `label`, `source`, `note`, `tensor_parallel` (1), `precision` and `kv_precision` (as the config states),
  `input_tokens`, `output_tokens`, `context_tokens` (prompt plus half the answer), `throughput_tokens_per_s`, `ttft_s`,
  `weight` (1), and `use`: `score` (the default), `show` for rows that are not comparable, `artefact` for rows that
  are known to be wrong. Only `score` is fitted and scored.

Finished runs give such a table too, since fitting the energy roofline needs a sweep over batches and models.
"""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from inference_energy.contracts.documents.estimates import EstimatedWindow, EstimatesDocument, MeasuredWindow
from inference_energy.contracts.documents.experiment import SummaryDocument
from inference_energy.contracts.outside import MIB, decode_json, one_line, read_bytes, read_text
from inference_energy.errors import InputError
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.gpus import GpuSheet, find_gpu
from inference_energy.estimate.shapes.config_json import shape_from_config, shape_of
from inference_energy.estimate.shapes.shape import ModelShape

MAX_BYTES = 64 * MIB
"""Size of a table of rows or a calibration; a row has less than a KiB."""

PUBLISHED = "published.csv"
WINDOWS = "h100-windows.csv"
USES = ("score", "show", "artefact")
_TEXTS = ("label", "source", "note", "model", "gpu", "precision", "kv_precision", "use")
_NUMBERS = (
    "tensor_parallel",
    "batch",
    "input_tokens",
    "output_tokens",
    "context_tokens",
    "throughput_tokens_per_s",
    "ttft_s",
    "energy_per_output_token_j",
    "energy_per_prompt_token_j",
    "weight",
)


@dataclass(frozen=True)
class MeasuredRow:
    """One measured energy; a missing number is NaN.

    Attributes:
        label: the row's name in tables.
        source: where the measurement is from.
        shape: the model.
        gpu: the GPU.
        tensor_parallel: GPUs that serve one copy of the model.
        batch: mean running batch [requests].
        input_tokens: tokens per prompt.
        output_tokens: tokens per answer.
        context_tokens: mean context position of a decode step.
        throughput: output tokens/s.
        ttft_s: time to first token.
        output_j: J per output token; NaN for a window of prompts alone.
        prompt_j: J per prompt token; NaN for all other rows.
        weight: weight in a fit.
        use: score, show or artefact.
        note: a remark on the row.
    """

    label: str
    source: str
    shape: ModelShape
    gpu: GpuSheet
    tensor_parallel: float
    batch: float
    input_tokens: float
    output_tokens: float
    context_tokens: float
    throughput: float
    ttft_s: float
    output_j: float
    prompt_j: float
    weight: float = 1.0
    use: str = "score"
    note: str = ""

    @property
    def is_prefill(self) -> bool:
        """Whether the row measures prompts alone."""
        return not math.isnan(self.prompt_j)


def read_rows(path: Path) -> list[MeasuredRow]:
    """Return the rows of a table, `.csv` or `.json` (a list of objects, or one under `rows`).

    Raises:
        InputError: the file is missing or a row cannot be used; the message names row and column.
    """
    if path.suffix == ".json":
        try:
            content = decode_json(read_bytes(path, MAX_BYTES))
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        records = content.get("rows") if isinstance(content, dict) else content
        if not isinstance(records, list):
            raise InputError(f"{path}: a list of rows is expected, or an object with `rows`")
    elif path.suffix == ".csv":
        try:
            records = list(csv.DictReader(read_text(path, MAX_BYTES).splitlines()))
        except csv.Error as error:
            raise InputError(f"{path}: not a table with commas: {error}") from error
    else:
        raise InputError(f"{path}: write a table as .csv or .json")
    return _rows(records, str(path))


@cache
def shipped_rows(name: str) -> tuple[MeasuredRow, ...]:
    """Return the rows of a shipped table, `PUBLISHED` or `WINDOWS`."""
    text = files("inference_energy.estimate").joinpath("data", name).read_text()
    return tuple(_rows(list(csv.DictReader(text.splitlines())), name))


def cases_of(rows: Sequence[MeasuredRow]) -> Cases:
    """Return the rows as cases."""
    return Cases.of(
        [row.shape for row in rows],
        [row.gpu for row in rows],
        tensor_parallel=[row.tensor_parallel for row in rows],
        batch=[row.batch for row in rows],
        input_tokens=[row.input_tokens for row in rows],
        output_tokens=[row.output_tokens for row in rows],
        context=[row.context_tokens for row in rows],
        throughput=[row.throughput for row in rows],
        ttft_s=[row.ttft_s for row in rows],
    )


def _rows(records: list[Any], name: str) -> list[MeasuredRow]:
    if not records:
        raise InputError(f"{name}: holds no rows")
    shapes: dict[tuple[str, ...], ModelShape] = {}
    return [_row(record, f"{name}, row {number}", shapes) for number, record in enumerate(records, 1)]


def _row(record: Any, row_name: str, shapes: dict[tuple[str, ...], ModelShape]) -> MeasuredRow:
    if not isinstance(record, dict):
        raise InputError(f"{row_name}: an object with the columns is expected")
    unknown = sorted(set(map(str, record)) - {*_TEXTS, *_NUMBERS})
    if unknown:
        raise InputError(
            f"{row_name}: unknown column(s) {one_line(', '.join(unknown), 400)}; "
            f"known: {', '.join((*_TEXTS, *_NUMBERS))}"
        )
    model_entry = record.get("model") if isinstance(record.get("model"), dict) else None
    entry = record if model_entry is None else {**record, "model": str(model_entry.get("name") or "model")}
    texts = {key: str(entry.get(key) or "").strip() for key in _TEXTS}
    numbers = {key: _number(record.get(key), key, row_name) for key in _NUMBERS}
    for key in ("model", "gpu"):
        if not texts[key]:
            raise InputError(f"{row_name}: `{key}` is missing")
    if math.isnan(numbers["energy_per_output_token_j"]) == math.isnan(numbers["energy_per_prompt_token_j"]):
        raise InputError(f"{row_name}: write one of energy_per_output_token_j and energy_per_prompt_token_j")
    if texts["use"] and texts["use"] not in USES:
        raise InputError(f"{row_name}: use is {texts['use']!r}; write one of {', '.join(USES)}")
    precisions = texts["precision"] or None, texts["kv_precision"] or None
    shape_key = (texts["model"], *map(str, precisions), json.dumps(model_entry, sort_keys=True))
    try:
        if shape_key not in shapes:
            shapes[shape_key] = (
                shape_of(texts["model"], *precisions)
                if model_entry is None
                else shape_from_config(_config(model_entry), texts["model"], *precisions)
            )
        gpu = find_gpu(texts["gpu"], "gpu")
    except InputError as error:
        raise InputError(f"{row_name}: {error}") from error
    return MeasuredRow(
        label=texts["label"] or row_name,
        source=texts["source"],
        shape=shapes[shape_key],
        gpu=gpu,
        tensor_parallel=1.0 if math.isnan(numbers["tensor_parallel"]) else numbers["tensor_parallel"],
        batch=numbers["batch"],
        input_tokens=numbers["input_tokens"],
        output_tokens=numbers["output_tokens"],
        context_tokens=numbers["context_tokens"],
        throughput=numbers["throughput_tokens_per_s"],
        ttft_s=numbers["ttft_s"],
        output_j=numbers["energy_per_output_token_j"],
        prompt_j=numbers["energy_per_prompt_token_j"],
        weight=1.0 if math.isnan(numbers["weight"]) else numbers["weight"],
        use=texts["use"] or "score",
        note=texts["note"],
    )


def _config(model_entry: dict[str, Any]) -> dict[str, Any]:
    config = model_entry.get("config")
    if not isinstance(config, dict):
        raise InputError("model: an object needs `config`, the content of a config.json")
    return config


def _number(value: Any, key: str, row_name: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{row_name}: {key} is {str(value)[:60]!r}, not a number") from error
    may_be_zero = key in ("input_tokens", "context_tokens", "ttft_s", "weight")
    if not math.isfinite(number) or number < 0 or (number == 0 and not may_be_zero):
        raise InputError(f"{row_name}: {key} is {str(value)[:60]!r}; a number above 0 is expected")
    return number


def rows_of_summaries(summaries: Sequence[SummaryDocument]) -> dict[str, Any]:
    """Return the measured windows of finished runs as a table that `read_rows` reads, with the models' config.json.

    Args:
        summaries: summary.json of each run.

    Returns:
        `rows`, and `left_out`: the windows without a row, with the reason.

    Raises:
        InputError: a summary has no estimates, or no window gives a row.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for summary in summaries:
        if summary.estimates is None:
            raise InputError(f"{summary.experiment}: its summary.json has no estimates; run `snakemake` again")
        for session in summary.estimates:
            session_rows, session_left_out = _rows_of_session(summary.experiment, session)
            rows += session_rows
            left_out += session_left_out
    if not rows:
        raise InputError("no window gives a row: " + "; ".join(left_out or ["there are none"]))
    return {"rows": rows, "left_out": left_out}


def _rows_of_session(experiment: str, session: EstimatesDocument) -> tuple[list[dict[str, Any]], list[str]]:
    name = f"{experiment} {session.session}"
    if session.model is None or session.gpu is None:
        return [], [f"{name}: {' '.join(session.unknown)}"]
    rows, left_out = [], []
    windows: dict[str, EstimatedWindow | MeasuredWindow] = {**session.windows, **session.fit_windows}
    for window, content in windows.items():
        load, measured = content.load, content.measured
        energies = {
            "energy_per_output_token_j": measured.energy_per_output_token_j,
            "energy_per_prompt_token_j": measured.energy_per_prompt_token_j,
        }
        energies_j = {key: energy_j for key, energy_j in energies.items() if isinstance(energy_j, float)}
        unknown = [key for key in ("batch", "context_tokens") if getattr(load, key) is None]
        if not energies_j or load.batch is None or unknown:
            cause = measured.unavailable or f"not known: {', '.join(unknown)}"
            left_out.append(f"{name}.{window}: {cause}")
            continue
        throughput = load.throughput_tokens_per_s
        rows.append(
            {
                "label": f"{name}.{window}",
                "source": f"run {experiment} on {session.machine}, grade {measured.grade}",
                "model": {"name": session.model.name, "config": session.architecture},
                "gpu": session.gpu.name,
                "tensor_parallel": session.gpus_per_copy,
                "batch": load.batch / session.copies,
                "input_tokens": load.input_tokens,
                "output_tokens": load.output_tokens,
                "context_tokens": load.context_tokens,
                "throughput_tokens_per_s": None if throughput is None else throughput / session.copies,
                "ttft_s": load.ttft_s,
                **energies_j,
            }
        )
    return rows, left_out
