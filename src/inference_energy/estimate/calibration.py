"""The calibrated energy roofline: its terms, the JSON file that holds fitted coefficients, and predictions from it.

    E_tok = e_byte * (W / B + KV * ctx) + e_flop * 2 N + e_0                 J per output token
    E_prompt = e_prefill * FLOPs of the prompt / T_in                        J per prompt token

W are the bytes of weights that a step reads (with the experts it is expected to touch), B the mean running batch, KV *
ctx the bytes of cache that a step reads for a request, N the active parameters. If a calibration has a term for
prompts, an output token of a mixed load also carries its share of the prompt, E_prompt * T_in / T_out. Fit and estimate
share the columns defined here.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from inference_energy.contracts.outside import decode_json, read_bytes
from inference_energy.errors import InputError
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.reference_rows import MAX_BYTES
from inference_energy.estimate.shapes.shape import Array

Name = Literal["byte", "flop", "token", "prefill"]


UNITS: dict[Name, str] = {"byte": "J/byte", "flop": "J/FLOP", "token": "J/token", "prefill": "J/FLOP"}


KIND = "energy-roofline calibration"


SHIPPED = ("h100-published", "h100-windows")
"""The shipped calibrations; the first is the default for H100."""


@dataclass(frozen=True)
class Prediction:
    """Predicted J per token and its 95 % prediction interval, each of shape (cases,)."""

    energy_j: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class EnergyCalibration:
    """A fitted energy roofline.

    Attributes:
        name: name of the calibration.
        gpus: names of the GPUs of the fitted rows.
        terms: names of the coefficients.
        values: the coefficients, shape (terms,).
        covariance: covariance of the coefficients, shape (terms, terms).
        relative_std: standard deviation of a new row about the fit, as a share of its energy: the residuals' or the
            left-out models', whichever is larger.
        t_95: quantile of Student's t for two-sided 95 %.
        prompts: `inside`: output tokens carry their prompts as the fitted rows did; `apart`: prompts have a term.
        models: names of the models of the fitted rows.
        batches: smallest and largest batch of the fitted rows.
        record: the whole file, with provenance and scores.
    """

    name: str
    gpus: tuple[str, ...]
    terms: tuple[Name, ...]
    values: Array
    covariance: Array
    relative_std: float
    t_95: float
    prompts: Literal["inside", "apart"]
    models: tuple[str, ...]
    batches: tuple[float, float]
    record: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The SHA-256 of the content, whatever the layout of the file."""
        return hashlib.sha256(json.dumps(self.record, sort_keys=True).encode()).hexdigest()

    @property
    def has_prefill(self) -> bool:
        """Whether the energy of prompt tokens can be predicted."""
        return "prefill" in self.terms

    @property
    def has_decode(self) -> bool:
        """Whether the energy of output tokens can be predicted."""
        return "byte" in self.terms

    def output_tokens(self, cases: Cases) -> Prediction:
        """Predict J per output token."""
        return self._predict(decode_columns(cases, self.terms, prompts_apart=self.prompts == "apart"))

    def prompt_tokens(self, cases: Cases) -> Prediction:
        """Predict J per prompt token."""
        return self._predict(prompt_columns(cases, self.terms))

    def _predict(self, columns: Array) -> Prediction:
        """Predict a new row; its variance is x C x' of the coefficients plus the row's own scatter, (s E)^2."""
        energy_j = columns @ self.values
        variance = np.einsum("ij,jk,ik->i", columns, self.covariance, columns) + (self.relative_std * energy_j) ** 2
        half = self.t_95 * np.sqrt(np.maximum(variance, 0.0))
        return Prediction(energy_j, np.maximum(energy_j - half, 0.0), energy_j + half)


def read_calibration(name_or_path: str, key: str = "calibration") -> EnergyCalibration:
    """Return a shipped calibration by its name, or another by the path of its JSON; messages name `key`.

    Raises:
        InputError: there is no such file, or it is not a calibration.
    """
    if name_or_path in SHIPPED:
        return shipped_calibration(name_or_path)
    if not name_or_path.endswith(".json"):
        raise InputError(
            f"{name_or_path}: write the path of a .json that `estimate fit` wrote, or {' or '.join(SHIPPED)}", key=key
        )
    try:
        content = decode_json(read_bytes(Path(name_or_path).expanduser(), MAX_BYTES))
    except InputError as error:
        raise InputError(str(error), key=key) from error
    except (ValueError, RuntimeError) as error:  # RuntimeError: no such home
        raise InputError(f"{name_or_path[:200]}: {error}", key=key) from error
    return parse_calibration(content, name_or_path, key)


@cache
def shipped_calibration(name: str) -> EnergyCalibration:
    """Return one of `SHIPPED`."""
    text = files("inference_energy.estimate").joinpath("data", f"calibration-{name}.json").read_text()
    return parse_calibration(json.loads(text), name)


def parse_calibration(content: Any, file: str, key: str = "calibration") -> EnergyCalibration:
    """Return the calibration in a JSON object that `estimate fit` wrote; messages name its file and `key`.

    Raises:
        InputError: the object is something else.
    """
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InputError(f"{file}: not a calibration; `inference-energy estimate fit` makes one", key=key)
    try:
        entries = content["coefficients"]
        names = tuple(entry["term"] for entry in entries)
        if not names or len(set(names)) < len(names):
            raise ValueError("coefficients: none, or one twice")
        if unknown := [name for name in names if name not in UNITS]:
            raise InputError(f"{file}: unknown term(s) {', '.join(map(str, unknown))}", key=key)
        count = len(names)
        fitted = EnergyCalibration(
            name=str(content["name"]),
            gpus=_texts(content, "gpus"),
            terms=cast("tuple[Name, ...]", names),
            values=np.array([float(entry["value"]) for entry in entries]),
            covariance=np.array(content["covariance"], dtype=np.float64).reshape(count, count),
            relative_std=float(content["relative_std"]),
            t_95=float(content["t_95"]),
            prompts="apart" if content["prompts"] == "apart" else "inside",
            models=_texts(content, "models"),
            batches=(float(content["batches"][0]), float(content["batches"][1])),
            record=content,
        )
        numbers = [*fitted.values, *fitted.covariance.flat, fitted.relative_std, fitted.t_95, *fitted.batches]
        numbers += [float(energy_j) for energy_j in content.get("fitted_j") or []]
        if not np.isfinite(numbers).all() or min(fitted.relative_std, fitted.t_95, *fitted.batches) < 0:
            raise ValueError("a number is not finite, or a spread or batch is negative")
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{file}: damaged: {repr(error)[:200]}; fit it anew", key=key) from error
    return fitted


def _texts(content: dict[str, Any], key: str) -> tuple[str, ...]:
    values = content[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key}: a list of names is expected")
    return tuple(values)


def decode_bytes(cases: Cases) -> Array:
    """Return the bytes read for an output token: W / B + KV * ctx."""
    return np.asarray(cases.step_bytes / cases.batch + cases.kv_read_bytes)


def decode_columns(cases: Cases, names: tuple[Name, ...], *, prompts_apart: bool) -> Array:
    """Return the factors of the terms for an output token, shape (cases, terms)."""
    columns: dict[Name, Array] = {
        "byte": decode_bytes(cases),
        "flop": 2 * cases.active,
        "token": np.ones(len(cases)),
        "prefill": cases.prefill_flops / cases.output_tokens if prompts_apart else np.zeros(len(cases)),
    }
    return np.stack([columns[name] for name in names], axis=1)


def prompt_columns(cases: Cases, names: tuple[Name, ...]) -> Array:
    """Return the factors of the terms for a prompt token, shape (cases, terms): its FLOPs and nothing else."""
    flops = cases.prefill_flops / cases.input_tokens
    return np.stack([flops if name == "prefill" else np.zeros(len(cases)) for name in names], axis=1)
