"""Loading and validation of a configuration, with one clear message for all its problems."""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from inference_energy.config.analysis import rename_old_keys
from inference_energy.config.base import Section
from inference_energy.config.root import Config
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.contracts.traffic import read_traffic
from inference_energy.errors import InputError

WRITE = {
    "float_parsing": "write a number in the unit of the key's ending, such as 60 for seconds (not '60s')",
    "float_type": "write a number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "bool_parsing": "write true or false",
    "string_type": "write a text, in quotes if it looks like a number",
    "list_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping of keys to values",
    "model_type": "write a mapping of keys to values",
    "model_attributes_type": "write a mapping of keys to values",
    "missing": "this key is required; add it",
}
"""Advice for pydantic's error types, where its own sentence gives none."""


def validate(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration, and the calibration and traffic files that it names.

    Raises:
        InputError: a line for each problem, with its key and the expected value.
    """
    raw = with_new_keys(raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(detail, raw) for detail in error.errors()]
        raise InputError("the configuration is wrong:\n" + "\n".join(f"  {line}" for line in lines)) from None
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


def _explain(detail: Any, raw: Mapping[str, Any]) -> str:
    """Describe one problem as `key: problem; expected value`."""
    location = _strip_tags(detail["loc"], raw)
    key = ".".join(str(part) for part in location)
    kind, message, value = detail["type"], detail["msg"], detail.get("input")
    if kind == "value_error":  # one of our own checks, which name their keys themselves
        text = str(detail["ctx"]["error"]).replace("\n", "\n  ")
        return f"{key}: {text}" if key else text
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _known_keys(), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; docs/reference/configuration.md lists the keys"
        return f"{key}: unknown key{hint}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = detail["ctx"]
        tag = str(context["discriminator"]).strip("'")
        choices = context.get("expected_tags")
        return f"{key}.{tag}: " + (f"write one of {choices}" if choices else "this key is required: it says which kind")
    advice = WRITE.get(kind)
    if kind == "missing":
        return f"{key}: {advice}"
    # A login in a URL is refused; it must not appear in logs either.
    shown = re.sub(r"//[^/@\s]*@", "//(login)@", repr(value))
    return f"{key}: {message[0].lower()}{message[1:]}, got {shown}" + (f"; {advice}" if advice else "")


def _strip_tags(location: tuple[Any, ...], raw: Any) -> list[Any]:
    """Drop the union tags that pydantic adds to a location, and keep the keys of the user's file."""
    kept: list[Any] = []
    node = raw
    for part in location[:-1]:
        in_file = part in node if isinstance(node, Mapping) else isinstance(node, list) and part in range(len(node))
        if in_file:
            node = node[part]
            kept.append(part)
    last = location[-1:]
    return [*kept, *(part for part in last if not (isinstance(node, Mapping) and _is_tag(part, node)))]


def _is_tag(part: Any, node: Mapping[str, Any]) -> bool:
    return any(node.get(tag) == part for tag in ("source", "mode", "process", "distribution"))


def _known_keys(section: type[Section] = Section) -> set[str]:
    """Return the keys of all sections."""
    return set(section.model_fields).union(*(_known_keys(child) for child in section.__subclasses__()))
