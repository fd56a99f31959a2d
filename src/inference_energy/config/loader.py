"""Loading and validation of a configuration, with one clear message for all its problems."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference_energy.config.analysis import rename_old_keys
from inference_energy.config.layers import Layered, lay
from inference_energy.config.root import Config
from inference_energy.config.validation import problems
from inference_energy.config.yaml_file import YamlFile, read_yaml_file
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.contracts.traffic import read_traffic
from inference_energy.errors import InputError, Notice

DEFAULT = Path("config.yaml")


def validate(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration, and the calibration and traffic files that it names.

    Raises:
        InputError: a line for each problem, with its key and the expected value.
    """
    return _validate(Layered(content=with_new_keys(raw)))


def read_merged(paths: Sequence[Path], settings: Mapping[str, Any] | None = None, *, quiet: bool = False) -> Config:
    """Read a configuration from YAML files, later ones laid over earlier ones (see `layers`).

    Args:
        paths: the files, the lowest first.
        settings: keys of the command line, laid over all files.
        quiet: print no notes on standard error about old names and replaced definitions.

    Raises:
        InputError: no such file, not YAML, a key twice, or together not a valid configuration; with file and line.
    """
    files = [read_yaml_file(_near(path)) for path in paths]
    if settings:
        files.append(YamlFile("--config", dict(settings)))
    layered = lay([YamlFile(file.name, with_new_keys(file.content, quiet=quiet), file.lines) for file in files])
    if not quiet:
        for note in layered.notes:
            print(f"inference-energy: {note}", file=sys.stderr)
    return _validate(layered)


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another; see `layers`."""
    return lay([YamlFile("below", dict(below)), YamlFile("above", dict(above))]).content


def layers_of_run(overlays: Sequence[Path], *, alone: bool = False) -> list[Path]:
    """Return the files of a run of Snakemake, the lowest first: config.yaml, and those after `--configfile`.

    Args:
        overlays: the latter.
        alone: they stand in place of config.yaml (`--replace-workflow-config`).

    Raises:
        InputError: there is none.
    """
    if alone or (overlays and not DEFAULT.exists()):
        return list(overlays)
    if not DEFAULT.exists():
        raise InputError(f"{DEFAULT}: no such file; run this in the folder of the project, or write one")
    return [DEFAULT, *overlays]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file with a mapping at its top.

    Raises:
        InputError: as `read_yaml_file`.
    """
    return read_yaml_file(path).content


def with_new_keys(raw: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Return the configuration with new names in place of old ones; an old one is named on standard error."""
    analysis = raw.get("analysis")
    if not isinstance(analysis, Mapping) or "limits" not in analysis:
        return dict(raw)
    if not quiet:
        print("inference-energy: analysis.limits is now called analysis.slo; please rename the key", file=sys.stderr)
    return {**raw, "analysis": rename_old_keys(analysis)}


def _validate(layered: Layered) -> Config:
    raw = layered.content
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        notices = problems(error, raw, "docs/reference/configuration.md")
        lines = [f"  {notice}{_place(notice, layered)}" for notice in notices]
        raise InputError("\n".join(["the configuration is wrong:", *lines, *_advice(notices, layered)])) from None
    if config.analysis.calibration:
        read_calibrations(Path(config.analysis.calibration))
    if config.metrics.traffic:
        read_traffic(Path(config.metrics.traffic.profile), "metrics.traffic.profile")
    return config


def _place(notice: Notice, layered: Layered) -> str:
    key = notice.key or str(notice).partition(":")[0]
    place = layered.place(key.split(".")) if " " not in key else ""
    return f" ({place})" if place else ""


def _advice(notices: Sequence[Notice], layered: Layered) -> list[str]:
    """Say that a file that lacks whole sections is meant to be laid over another one."""
    lacking = {notice.key for notice in notices if notice.key in Config.model_fields} - layered.content.keys()
    if not lacking or len(layered.layers) != 1:
        return []
    name = layered.layers[0].name
    if DEFAULT.exists():
        return [f"If {name} changes {DEFAULT}, name both: {DEFAULT} {name}"]
    return [f"If {name} changes the shipped {DEFAULT}, name both; there is no {DEFAULT} in this folder"]


def _near(path: Path) -> Path:
    """Return a file of this folder or below it as the user would write it; Snakemake makes all paths absolute."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
