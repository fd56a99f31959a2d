"""Verification of an archive: members against the manifest, results against ones recomputed from the raw files."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from inference_energy import __version__
from inference_energy.contracts import receipts
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import read_table
from inference_energy.contracts.outside import read_bytes
from inference_energy.errors import InputError
from inference_energy.plan.stage_configs import ExperimentSettings
from inference_energy.provenance.archive_checks import (
    broken_links,
    documents,
    misplaced_members,
    read_json_member,
    read_member,
    report_links,
)
from inference_energy.provenance.archive_members import (
    CALIBRATION,
    ESTIMATE_CALIBRATION,
    PACKAGE_MEMBERS,
    RESULTS,
    changed_files,
)
from inference_energy.provenance.archive_reader import Archive, Limits
from inference_energy.provenance.comparison import (
    RENAMED_KEYS,
    compare_documents,
    compare_summaries,
    compare_tables,
)
from inference_energy.provenance.experiment_json import NAME, plan_of, sessions
from inference_energy.provenance.manifest import Manifest
from inference_energy.provenance.report_check import MAX_PAGE, has_this_plotly, report_difference
from inference_energy.stages import registry
from inference_energy.stages.chain import Chain

_RAW = f"{RESULTS}/raw/"
_DERIVED = f"{RESULTS}/derived/"
_DERIVED_FILES = (
    *(registry.LAUNCH, registry.WARMUP, registry.STEADY_LOAD, registry.ENERGY, registry.CARBON, registry.ESTIMATE),
    *(registry.RECEIPTS, registry.FIT, registry.METRICS),
)
_CALIBRATIONS = (CALIBRATION, ESTIMATE_CALIBRATION)
_RECORDED_SECTIONS = ("analysis", "estimate", "impact")
"""Sections of the plan that are those of the whole configuration."""


@dataclass
class Verification:
    """The result of a verification.

    Attributes:
        manifest: manifest of the archive.
        members: the problem of each member that is not as the manifest or another member states, by name.
        figures: number of figures in the stored summary that were compared; None when nothing was recomputed.
        differences: differences of stored and recomputed results, a line each.
        failure: why the summary could not be recomputed.
        changed_code: files of the package that differ between the archive and this installation.
        warnings: notes for the reader, whether or not all agrees.
        of_earlier_code: whether it was made by code that wrote no digests, so that less of it can be checked.
    """

    manifest: Manifest
    members: dict[str, str] = field(default_factory=dict)
    figures: int | None = None
    differences: list[str] = field(default_factory=list)
    failure: str | None = None
    changed_code: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    of_earlier_code: bool = False

    @property
    def agrees(self) -> bool:
        """Return whether every member is what it must be, and the results follow from the raw files."""
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
        used = {*needed, *(f"{stored}/{file}" for file in (*_CALIBRATIONS, "report.html", "metrics.json"))}

        def is_used(name: str) -> bool:
            return name in used or name.startswith((_RAW, _DERIVED))

        result.members = archive.check(Path(folder), is_used, tick)
        _compare_code(result)
        damaged = sorted(name for name in result.members if is_used(name))
        if damaged:
            result.failure = f"not recomputed, because of {', '.join(damaged)}"
            return result
        try:
            with _bounded_memory(archive.limits.memory_bytes):
                _check_results(result, Path(folder), archive.limits)
        except Exception as error:  # whatever bad content makes the analysis stumble is a finding about the archive
            result.failure = _in_words(error, folder, archive.limits)
        return result


def _in_words(error: Exception, folder: str, limits: Limits) -> str:
    if isinstance(error, MemoryError):
        return (
            f"the summary cannot be recomputed: it takes more than {limits.memory_bytes / 1e9:.3g} GB of memory; for "
            "an archive that you trust, raise --max-memory-gb"
        )
    words = " ".join(str(error).replace(f"{folder}/", "").split())
    where = getattr(error, "__notes__", [])[:1]
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in words[:600])
    return f"the summary cannot be recomputed: {type(error).__name__}: {''.join([*where, shown])}"


@contextmanager
def _bounded_memory(size_bytes: int) -> Iterator[None]:
    """Let this process take so many bytes more; beyond that it gets a MemoryError. Only Linux can bound it."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = used + size_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (bound if soft == resource.RLIM_INFINITY else min(bound, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _check_results(result: Verification, folder: Path, limits: Limits) -> None:
    """Check what the members must be to each other, and compute the results anew."""
    manifest = result.manifest
    stored = f"{RESULTS}/{manifest.experiment}"
    record = read_json_member(folder, f"{stored}/{NAME}")
    plan = plan_of(record, f"{stored}/{NAME}")
    planned = sessions(plan, f"{stored}/{NAME}")
    result.members |= misplaced_members(manifest, plan, planned)
    absent = sorted(name for name, problem in result.members.items() if problem.startswith("missing"))
    if any(name.startswith(_RAW) for name in absent):
        result.failure = f"not recomputed, because of {', '.join(absent)}"
        return
    for name, kind in documents(folder, manifest.experiment, planned):
        _check_version(name, read_json_member(folder, name), manifest.toolkit)
        read_member(folder, name, kind)
    problems, unchained = broken_links(folder, manifest, planned)
    # Digests that were taken out must not pass for ones that an earlier toolkit did not write.
    result.of_earlier_code = bool(unchained and result.changed_code)
    if result.of_earlier_code:
        result.warnings.append(
            f"{', '.join(unchained)}: no digests of raw files, as from earlier toolkits: a change of machine, server "
            "or model that alters no figure is found only if report.html lists these files"
        )
    else:
        problems |= dict.fromkeys(unchained, "holds no digests of raw files, which the code in this archive writes")
    result.members = problems | result.members
    for path in sorted((folder / RESULTS).rglob("*.parquet")):
        _check_size(path, str(path.relative_to(folder)), limits)
    settings = _settings(result, plan, record, f"{stored}/{NAME}")
    _recompute(result, folder, settings)
    _check_report(result, folder, settings)


def _settings(result: Verification, plan: dict[str, Any], record: Any, name: str) -> ExperimentSettings:
    """Return the plan as settings; defaults of keys that it lacks are told, other values than recorded a difference."""
    try:
        settings = ExperimentSettings.model_validate(plan)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(["plan", *map(str, first["loc"])])
        raise InputError(f"{name}: {ascii(key)[1:-1][:200]}: {first['msg'][:300]}") from error
    defaults = list(_defaults("plan", plan, settings.model_dump(mode="json")))
    if defaults:
        result.warnings.append(f"{name} lacks {', '.join(defaults)}; the defaults of this toolkit were used")
    config = record.get("config")
    for key in _RECORDED_SECTIONS:
        if isinstance(config, dict) and key in config and config[key] != plan.get(key):
            result.differences += compare_documents(f"{name}: config.{key} against plan.{key}", config[key], plan[key])
    return settings


def _defaults(path: str, given: Any, filled: Any) -> Iterator[str]:
    """Yield the keys that a part of the plan lacks and that have a value by default."""
    if isinstance(given, dict) and isinstance(filled, dict):
        for key, value in filled.items():
            if key not in given:
                if value is not None:
                    yield f"{path}.{key}"
            else:
                yield from _defaults(f"{path}.{key}", given[key], value)


def _recompute(result: Verification, folder: Path, settings: ExperimentSettings) -> None:
    stored = folder / RESULTS / result.manifest.experiment
    copies = [path if path.is_file() else None for path in (stored / CALIBRATION, stored / ESTIMATE_CALIBRATION)]
    chain = Chain(folder / RESULTS / "raw", settings, *copies)
    summary = json_values(chain.result(registry.SUMMARY))
    comparison = compare_summaries(
        read_json_member(folder, f"{RESULTS}/{result.manifest.experiment}/summary.json"), summary
    )
    result.figures = comparison.figures
    result.differences += comparison.differences
    if comparison.renamed:
        names = ", ".join(f"{old} is {new} now" for old, new in RENAMED_KEYS.items())
        result.warnings.append(f"{comparison.renamed} reasons name a key of the configuration by its old name: {names}")
    differences = list(_derived_differences(folder, settings, chain))
    if not result.of_earlier_code:
        result.differences += differences
    elif differences:
        result.warnings.append(
            f"{len(differences)} differences in derived files, which an earlier toolkit may have computed otherwise; "
            f"the first: {differences[0]}"
        )


def _derived_differences(folder: Path, settings: ExperimentSettings, chain: Chain) -> Iterator[str]:
    """Compare every derived file with what the raw files give."""
    for file in _DERIVED_FILES:
        owners = {
            file.path.format(**session.model_dump(), experiment=settings.experiment): session
            for session in settings.sessions
        }
        for path, session in owners.items():
            name = f"{RESULTS}/{path}"
            if file in (registry.METRICS, registry.ESTIMATE) and not (folder / name).is_file():
                continue
            if file == registry.ESTIMATE and settings.estimate is None:
                continue
            if file == registry.METRICS and settings.metrics is None:
                continue
            recomputed = chain.result(file, session)
            if file == registry.RECEIPTS:
                yield from compare_tables(name, read_table(folder / name, receipts.SCHEMA), recomputed)
            else:
                yield from compare_documents(name, read_json_member(folder, name), json_values(recomputed))


def _check_report(result: Verification, folder: Path, settings: ExperimentSettings) -> None:
    name = f"{RESULTS}/{result.manifest.experiment}/report.html"
    if not (folder / name).is_file():
        return
    page = read_bytes(folder / name, MAX_PAGE).decode(errors="replace")
    problems, lists_files = report_links(page, result.manifest)
    result.members = problems | result.members
    if not lists_files and not result.of_earlier_code:
        result.members[name] = "does not list the files that it was made from, as every report does"
    elif not lists_files:
        result.warnings.append(f"{name} does not list the files that it was made from: it was not compared")
        return
    if result.changed_code or not has_this_plotly(page):
        what = "code" if result.changed_code else "plotly"
        result.warnings.append(f"{name} was written by other {what} than that here: its numbers were not compared")
    elif not (result.members or result.differences):
        difference = report_difference(folder / name, folder / RESULTS, settings)
        if difference is not None:
            result.members[name] = difference


def _check_size(path: Path, name: str, limits: Limits) -> None:
    """Refuse a table that takes too much memory before it is read: a few bytes may stand for millions of rows."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: cannot be read as Parquet: {error}") from error
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    needed = max(unpacked, metadata.num_rows * metadata.num_columns * 8)
    if needed > limits.memory_bytes or metadata.num_rows < 0:
        raise MemoryError


def _check_version(name: str, content: Any, toolkit: str) -> None:
    version = content.get("version", VERSION) if isinstance(content, dict) else VERSION
    if version != VERSION:
        raise InputError(
            f"{name} is of version {version!r} and was made by inference-energy {toolkit}; this is {__version__}, "
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
