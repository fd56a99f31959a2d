"""Loading and validation of a configuration, with one clear message for all its problems."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from inference_energy.config.analysis import rename_old_keys
from inference_energy.config.root import Config
from inference_energy.config.validation import problems
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.contracts.traffic import read_traffic
from inference_energy.errors import InputError


def validate(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration, and the calibration and traffic files that it names.

    Raises:
        InputError: a line for each problem, with its key and the expected value.
    """
    raw = with_new_keys(raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {problem}" for problem in problems(error, raw, "docs/reference/configuration.md")]
        raise InputError("\n".join(["the configuration is wrong:", *lines])) from None
    if config.analysis.calibration:
        read_calibrations(Path(config.analysis.calibration))
    if config.metrics.traffic:
        read_traffic(Path(config.metrics.traffic.profile), "metrics.traffic.profile")
    return config


def read_merged(paths: Sequence[Path]) -> Config:
    """Read a configuration from YAML files, later ones laid over earlier ones as Snakemake does it.

    Mappings are merged key by key, everything else is replaced.

    Raises:
        InputError: no such file, not YAML, or together not a valid configuration.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = overlay(merged, with_new_keys(read_yaml(path)))
    return validate(merged)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file with a mapping at its top.

    Raises:
        InputError: the file does not exist, or has no such content.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a mapping of sections is expected at the top; see config.yaml as shipped")
    return raw


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the second configuration over the first."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = overlay(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def with_new_keys(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with new names in place of old ones; an old one is named on standard error."""
    analysis = raw.get("analysis")
    if not isinstance(analysis, Mapping) or "limits" not in analysis:
        return dict(raw)
    print("inference-energy: analysis.limits is now called analysis.slo; please rename the key", file=sys.stderr)
    return {**raw, "analysis": rename_old_keys(analysis)}
