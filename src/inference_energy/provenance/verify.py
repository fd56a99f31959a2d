"""Checking an archive: its members against its manifest, its summary against its raw files."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference_energy import __version__
from inference_energy.contracts.tables import read_json
from inference_energy.errors import InputError
from inference_energy.provenance.code import PACKAGE_MEMBERS, changed_files
from inference_energy.provenance.collect import CALIBRATION, ESTIMATE_CALIBRATION, RESULTS
from inference_energy.provenance.compare import compare_summaries
from inference_energy.provenance.contents import Archive
from inference_energy.provenance.experiment import NAME, plan_of
from inference_energy.provenance.manifest import Manifest
from inference_energy.provenance.recompute import recompute_summary

_RAW = f"{RESULTS}/raw/"


@dataclass
class Verification:
    """What a check found.

    Attributes:
        manifest: of the archive.
        members: name of each member that is not as the manifest says, and what is wrong with it.
        figures: number of figures in the stored summary that were compared; None when nothing was recomputed.
        differences: what differs between the stored and the recomputed summary, a line each.
        failure: why the summary could not be recomputed.
        changed_code: files of the package that differ between the archive and this installation.
        warnings: what a reader should know, whether or not all agrees.
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
        """Whether every member is as the manifest says and the summary follows from the raw files."""
        return self.figures is not None and not (self.members or self.differences or self.failure)


def verify(path: Path, tick: Callable[[int], None] | None = None) -> Verification:
    """Check an archive; nothing of its code is run.

    Args:
        path: the zip file.
        tick: called with the number of bytes read, again and again.

    Raises:
        InputError: it is not such an archive.
    """
    with Archive(path) as archive, tempfile.TemporaryDirectory(prefix="inference-energy-verify-") as folder:
        found = Verification(archive.manifest)
        stored = f"{RESULTS}/{archive.manifest.experiment}"
        needed = (f"{stored}/{NAME}", f"{stored}/summary.json")
        listed = {entry.path for entry in archive.manifest.members}
        for name in needed:
            if name not in listed:
                raise InputError(f"{path}: the manifest lists no {name}: this is not the archive of an experiment")
        used = {*needed, f"{stored}/{CALIBRATION}", f"{stored}/{ESTIMATE_CALIBRATION}"}
        found.members = archive.check(Path(folder), lambda name: name in used or name.startswith(_RAW), tick)
        _compare_code(found)
        damaged = sorted(name for name in found.members if name in used or name.startswith(_RAW))
        if damaged:
            found.failure = f"not recomputed, because of {', '.join(damaged)}"
        else:
            _recompute(found, Path(folder))
    return found


def _recompute(found: Verification, folder: Path) -> None:
    stored = folder / RESULTS / found.manifest.experiment
    try:
        plan = plan_of(read_json(stored / NAME), NAME)
        copies = [path if path.is_file() else None for path in (stored / CALIBRATION, stored / ESTIMATE_CALIBRATION)]
        summary = recompute_summary(folder / RESULTS / "raw", plan, *copies)
        comparison = compare_summaries(read_json(stored / "summary.json"), summary)
    except Exception as error:  # whatever bad content makes the analysis stumble is a finding about the archive
        words = str(error).replace(f"{folder}/", "")
        found.failure = f"the summary cannot be recomputed: {type(error).__name__}: {words}"
        return
    found.figures, found.differences = comparison.figures, comparison.differences


def _compare_code(found: Verification) -> None:
    archived = {
        entry.path.removeprefix(PACKAGE_MEMBERS): entry.sha256
        for entry in found.manifest.members
        if entry.path.startswith(PACKAGE_MEMBERS)
    }
    found.changed_code = changed_files(archived)
    if found.manifest.toolkit != __version__:
        found.warnings.append(f"made by inference-energy {found.manifest.toolkit}; this is {__version__}")
    if found.changed_code:
        shown = ", ".join(found.changed_code[:5]) + (", ..." if len(found.changed_code) > 5 else "")
        found.warnings.append(f"{len(found.changed_code)} file(s) of the code differ from those here: {shown}")
