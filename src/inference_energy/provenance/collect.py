"""Which files belong to an experiment's archive, and under which names they lie in it.

The archive keeps the layout of the results folder below `results/`, so that the links of the report still work.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from inference_energy.contracts.calibration import KEY, read_calibrations
from inference_energy.contracts.tables import read_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration.record import SHIPPED, load_calibration
from inference_energy.provenance.experiment import NAME, PlannedSession, plan_of, sessions
from inference_energy.provenance.manifest import LeftOut

SERVER_FILES = ("server_environment.json", "model.json")
IDLE_FILES = ("power.parquet", "idle.json")
SESSION_FILES = (
    "prompts.parquet",
    "schedule.parquet",
    "power.parquet",
    "requests.parquet",
    "server_metrics.parquet",
    "phases.parquet",
    "session.json",
    "environment.json",
)
DERIVED_FILES = (
    "launch.json",
    "warmup.json",
    "steady_load.json",
    "energy.json",
    "receipts.parquet",
    "estimates.json",
    "carbon.json",
)
EXPERIMENT_FILES = (NAME, "summary.json", "report.html")

RESULTS = "results"
CALIBRATION = "calibration.json"
"""The name in the experiment's folder of the archive under which the file that `analysis.calibration` names lies."""

ESTIMATE_CALIBRATION = "estimate_calibration.json"
"""The same for the file that `estimate.calibration` names."""


@dataclass(frozen=True)
class Member:
    """A file of an archive: its name there, and where its content comes from."""

    name: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Size in bytes, as it is now."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def open(self) -> BinaryIO:
        """The content."""
        return BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass(frozen=True)
class Collection:
    """Members of an archive, sorted by name, and the files left out of it."""

    experiment: str
    members: list[Member] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def collect_results(experiment: Path) -> Collection:
    """The results of exactly the sessions that an experiment's plan names.

    Args:
        experiment: the experiment's folder; its parent is the results folder.

    Raises:
        InputError: a file is missing, named with the command that makes it.
    """
    root, name = experiment.absolute().parent, experiment.absolute().name
    if not (experiment / NAME).is_file():
        raise InputError(
            f"{experiment}: holds no {NAME}; name the result folder of an experiment, such as results/default, "
            "which `snakemake` fills"
        )
    plan = plan_of(read_json(experiment / NAME), str(experiment / NAME))
    planned = sessions(plan, str(experiment / NAME))
    needed = [root / name / file for file in EXPERIMENT_FILES]
    for session in planned:
        needed += _needed(root, session)
    for path in needed:
        if not path.is_file():
            raise InputError(f"{_shown(path, root)}: no such file; {_remedy(path, root)}")

    folders = [root / name, *_folders(root, planned)]
    found = {path for folder in folders for path in _files(folder)}
    found |= {path for machine in _machines(planned) for path in _logs(root / "logs" / machine, planned)}
    collection = Collection(name)
    for path in sorted({*needed, *found}):
        inside = path.relative_to(root).as_posix()
        why = None if path in needed else _why_not(path, root / name)
        if why:
            collection.left_out.append(LeftOut(path=f"{RESULTS}/{inside}", why=why))
        else:
            collection.members.append(Member(f"{RESULTS}/{inside}", path))
    for calibration in (_calibration(root, name, plan), _estimate_calibration(root, name, plan)):
        if calibration is not None:
            others = [member for member in collection.members if member.name != calibration.name]
            collection.members[:] = sorted([*others, calibration], key=lambda member: member.name)
    return collection


def _estimate_calibration(root: Path, name: str, plan: dict[str, Any]) -> Member | None:
    """The calibration of the estimates, where it is a file; as it is now it must be the one that was used."""
    estimate = plan.get("estimate")
    named = estimate.get("calibration") if isinstance(estimate, dict) else None
    if not named or named in SHIPPED:
        return None
    path = root.parent / named
    fitted = load_calibration(str(path))
    used = {row.get("calibration_sha256") for row in read_json(root / name / "summary.json").get("estimates", [])}
    if used - {fitted.sha256, None}:
        raise InputError(
            f"estimate.calibration: {named} is not the file that the summary was made with; "
            f"`snakemake {_shown(root / name / 'summary.json', root)}` makes it anew"
        )
    return Member(f"{RESULTS}/{name}/{ESTIMATE_CALIBRATION}", path)


def _calibration(root: Path, name: str, plan: dict[str, Any]) -> Member | None:
    """The calibration, which may lie anywhere; as it is now it must be the one that the summary was made with."""
    named = plan["analysis"].get("calibration") if isinstance(plan["analysis"], dict) else None
    if not named:
        return None
    path = root.parent / named
    found = read_calibrations(path)
    used = {
        digest
        for row in read_json(root / name / "summary.json").get("sessions", [])
        if (digest := (row.get("calibration") or {}).get("sha256"))
    }
    if used - {found.sha256}:
        raise InputError(
            f"{KEY}: {named} is not the file that the summary was made with; "
            f"`snakemake {_shown(root / name / 'summary.json', root)}` makes it anew"
        )
    return Member(f"{RESULTS}/{name}/{CALIBRATION}", path)


def _needed(root: Path, planned: PlannedSession) -> list[Path]:
    raw, derived = root / "raw" / planned.machine, root / "derived" / planned.machine
    return [
        raw / "environment.json",
        *(raw / "servers" / planned.server / file for file in SERVER_FILES),
        *(raw / "idle" / planned.server / file for file in IDLE_FILES),
        *(raw / "sessions" / planned.session / file for file in SESSION_FILES),
        *(derived / planned.session / file for file in DERIVED_FILES),
        derived / "fits" / f"{planned.server}.json",
    ]


def _folders(root: Path, planned: list[PlannedSession]) -> Iterator[Path]:
    """The folders that belong to the plan's sessions as a whole."""
    for one in planned:
        yield root / "raw" / one.machine / "servers" / one.server
        yield root / "raw" / one.machine / "idle" / one.server
        yield root / "raw" / one.machine / "sessions" / one.session
        yield root / "derived" / one.machine / one.session


def _logs(folder: Path, planned: list[PlannedSession]) -> Iterator[Path]:
    """Logs of a machine, without those of other experiments' servers and sessions."""
    mine = [one for one in planned if one.machine == folder.name]
    servers, own = {one.server for one in mine}, {one.session for one in mine}
    kept = {
        "servers": servers,
        "idle": servers,
        "sessions": own,
        "derived": own | {f"fit_{server}" for server in servers},
    }
    for path in _files(folder):
        kind, *rest = path.relative_to(folder).parts
        if not rest or kind not in kept or Path(rest[0]).stem in kept[kind]:
            yield path


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder; links are not followed, so nothing from elsewhere slips in."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _why_not(path: Path, experiment: Path) -> str | None:
    """Why a file that is not needed stays out."""
    if path.name.startswith("."):
        return "a temporary file"
    if path.suffix == ".zip" and path.parent == experiment:
        return "an archive"
    if path.suffix == ".arrows":
        return "a log written while measuring, whose content is in the Parquet file of its name"
    return None


def _machines(planned: list[PlannedSession]) -> list[str]:
    return list(dict.fromkeys(one.machine for one in planned))


def _shown(path: Path, root: Path) -> str:
    return f"{root.name}/{path.relative_to(root).as_posix()}"


def _remedy(path: Path, root: Path) -> str:
    target = _shown(path, root)
    if path.relative_to(root).parts[0] == "raw":
        machine = path.relative_to(root).parts[1]
        return f"`snakemake {target}` makes it on {machine}; on another machine copy {root.name}/raw/{machine} here"
    return f"`snakemake {target}` makes it"
