"""Verification of an archive: members against the manifest, summary against one recomputed from the raw files."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_energy import __version__
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.provenance.archive_members import (
    CALIBRATION,
    ESTIMATE_CALIBRATION,
    PACKAGE_MEMBERS,
    RESULTS,
    changed_files,
)
from inference_energy.provenance.archive_reader import Archive, Limits
from inference_energy.provenance.experiment_json import NAME, plan_of
from inference_energy.provenance.manifest import Manifest
from inference_energy.stages.chain import recompute_summary

RELATIVE_TOLERANCE = 1e-9
"""Tolerance for another order of summation; far below any uncertainty of a measurement."""

_NAMES = ("cell", "session", "server", "code")
_NOT_COMPARED = ("toolkit",)
"""The version that computed the summary may differ; it is reported separately."""

_RENAMED_KEYS = {"analysis.limits": "analysis.slo"}
"""Keys of the configuration that have a new name since an archive may have been made; the `detail` of a reason names
them. Nothing else may be worded differently."""


@dataclass(frozen=True)
class SummaryComparison:
    """The number of stored figures, the differences, a line each, and how many sentences name a key by its old name."""

    figures: int
    differences: list[str]
    renamed: int


def compare_summaries(stored: dict[str, Any], recomputed: dict[str, Any]) -> SummaryComparison:
    """Compare everything in two summaries: numbers within a relative 1e-9, all else exactly, but for renamed keys.

    Args:
        stored: summary.json of an archive.
        recomputed: the summary from its raw files.
    """
    as_stored = json.loads(json.dumps(recomputed))
    with_new_names, renamed = _with_new_names(stored)
    left, right = (
        {key: value for key, value in summary.items() if key not in _NOT_COMPARED}
        for summary in (with_new_names, as_stored)
    )
    return SummaryComparison(sum(1 for _ in _figures(stored)), list(_differences("", left, right)), renamed)


def _with_new_names(content: Any) -> tuple[Any, int]:
    """Return the content with the new names of keys in every `detail`, and how many of these it changed."""
    if isinstance(content, dict):
        pairs = {
            key: _renamed(value) if key == "detail" and isinstance(value, str) else _with_new_names(value)
            for key, value in content.items()
        }
        return {key: value for key, (value, _) in pairs.items()}, sum(count for _, count in pairs.values())
    if isinstance(content, list):
        items = [_with_new_names(item) for item in content]
        return [item for item, _ in items], sum(count for _, count in items)
    return content, 0


def _renamed(sentence: str) -> tuple[str, int]:
    renamed = sentence
    for old, new in _RENAMED_KEYS.items():
        renamed = renamed.replace(old, new)
    return renamed, int(renamed != sentence)


def _differences(path: str, stored: Any, recomputed: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        for key in dict.fromkeys((*stored, *recomputed)):
            inner = f"{path}.{key}" if path else key
            if key not in recomputed:
                yield f"{inner}: stored, but not recomputed"
            elif key not in stored:
                yield f"{inner}: recomputed, but not stored"
            else:
                yield from _differences(inner, stored[key], recomputed[key])
    elif isinstance(stored, list) and isinstance(recomputed, list):
        if len(stored) != len(recomputed):
            yield f"{path}: {len(stored)} stored, {len(recomputed)} recomputed"
            return
        for number, (stored_item, recomputed_item) in enumerate(zip(stored, recomputed, strict=True)):
            yield from _differences(f"{path}[{_label(stored_item, number)}]", stored_item, recomputed_item)
    elif not _equal(stored, recomputed):
        yield f"{path}: stored {_text(stored)}, recomputed {_text(recomputed)}"


def _equal(stored: Any, recomputed: Any) -> bool:
    if _is_number(stored) and _is_number(recomputed):
        return bool(stored == recomputed) or math.isclose(stored, recomputed, rel_tol=RELATIVE_TOLERANCE)
    return type(stored) is type(recomputed) and bool(stored == recomputed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(entry: Any, number: int) -> str:
    """Return the name of a list's entry, or its number."""
    names = [entry[key] for key in _NAMES if isinstance(entry, dict) and isinstance(entry.get(key), str)]
    return names[0] if names else str(number)


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _figures(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        if {"value", "unit", "valid"} <= content.keys():
            yield content
        else:
            for value in content.values():
                yield from _figures(value)
    elif isinstance(content, list):
        for value in content:
            yield from _figures(value)


_RAW = f"{RESULTS}/raw/"


@dataclass
class Verification:
    """The result of a verification.

    Attributes:
        manifest: manifest of the archive.
        members: the problem of each member that differs from the manifest, by name.
        figures: number of figures in the stored summary that were compared; None when nothing was recomputed.
        differences: differences of the stored and the recomputed summary, a line each.
        failure: why the summary could not be recomputed.
        changed_code: files of the package that differ between the archive and this installation.
        warnings: notes for the reader, whether or not all agrees.
    """

    manifest: Manifest
    members: dict[str, str] = field(default_factory=dict)
    figures: int | None = None
    differences: list[str] = field(default_factory=list)
    failure: str | None = None
    changed_code: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Return whether every member matches the manifest and the summary follows from the raw files."""
        return self.figures is not None and not (self.members or self.differences or self.failure)


def verify(path: Path, tick: Callable[[int], None] | None = None, limits: Limits | None = None) -> Verification:
    """Check an archive; none of its code is run.

    Args:
        path: the zip file.
        tick: called after each chunk, with the number of bytes read.
        limits: what reading it may take; None: the defaults.

    Raises:
        InputError: the file is not an archive of an experiment.
    """
    with Archive(path, limits) as archive, tempfile.TemporaryDirectory(prefix="inference-energy-verify-") as folder:
        result = Verification(archive.manifest)
        stored = f"{RESULTS}/{archive.manifest.experiment}"
        needed = (f"{stored}/{NAME}", f"{stored}/summary.json")
        listed = {entry.path for entry in archive.manifest.members}
        for name in needed:
            if name not in listed:
                raise InputError(f"{path}: the manifest lists no {name}: this is not the archive of an experiment")
        used = {*needed, f"{stored}/{CALIBRATION}", f"{stored}/{ESTIMATE_CALIBRATION}"}
        result.members = archive.check(Path(folder), lambda name: name in used or name.startswith(_RAW), tick)
        _compare_code(result)
        damaged = sorted(name for name in result.members if name in used or name.startswith(_RAW))
        if damaged:
            result.failure = f"not recomputed, because of {', '.join(damaged)}"
        else:
            _recompute(result, Path(folder))
    return result


def _recompute(result: Verification, folder: Path) -> None:
    stored = folder / RESULTS / result.manifest.experiment
    documents = [stored / NAME, stored / "summary.json", *sorted((folder / RESULTS / "raw").rglob("*.json"))]
    try:
        for path in documents:
            _check_version(path, result.manifest.toolkit)
        plan = plan_of(read_json(stored / NAME), NAME)
        copies = [path if path.is_file() else None for path in (stored / CALIBRATION, stored / ESTIMATE_CALIBRATION)]
        summary = recompute_summary(folder / RESULTS / "raw", plan, *copies)
        comparison = compare_summaries(read_json(stored / "summary.json"), summary)
    except Exception as error:  # whatever bad content makes the analysis stumble is a finding about the archive
        words = str(error).replace(f"{folder}/", "")
        result.failure = f"the summary cannot be recomputed: {type(error).__name__}: {words}"
        return
    result.figures, result.differences = comparison.figures, comparison.differences
    if comparison.renamed:
        names = ", ".join(f"{old} is {new} now" for old, new in _RENAMED_KEYS.items())
        result.warnings.append(f"{comparison.renamed} reasons name a key of the configuration by its old name: {names}")


def _check_version(path: Path, toolkit: str) -> None:
    content = read_json(path)
    version = content.get("version", VERSION) if isinstance(content, dict) else VERSION
    if version != VERSION:
        raise InputError(
            f"{path.name} is of version {version!r} and was made by inference-energy {toolkit}; this is {__version__}, "
            f"which reads version {VERSION}"
        )


def _compare_code(result: Verification) -> None:
    archived = {
        entry.path.removeprefix(PACKAGE_MEMBERS): entry.sha256
        for entry in result.manifest.members
        if entry.path.startswith(PACKAGE_MEMBERS)
    }
    result.changed_code = changed_files(archived)
    if result.manifest.toolkit != __version__:
        result.warnings.append(f"made by inference-energy {result.manifest.toolkit}; this is {__version__}")
    if result.changed_code:
        shown = ", ".join(result.changed_code[:5]) + (", ..." if len(result.changed_code) > 5 else "")
        result.warnings.append(f"{len(result.changed_code)} file(s) of the code differ from those here: {shown}")
