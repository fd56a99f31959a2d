"""The files that belong to an experiment's archive, and their names in it: results, and the code behind them.

The archive keeps the layout of the results folder below `results/`, so that the links of the report still work. The
code is the package's own source and the lock file, with their commit.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import inference_energy
from inference_energy import __version__
from inference_energy.contracts.calibration import KEY, read_calibrations
from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import SHIPPED, read_calibration
from inference_energy.provenance.experiment_json import NAME, GitError, PlannedSession, git, plan_of, sessions
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
_MORE_SESSION_FILES = ("chunks.parquet", "answers.parquet")
_MORE_DERIVED_FILES = ("power_trace.html",)
_MORE_EXPERIMENT_FILES = ("metrics.json", "calibration.json", "estimate_calibration.json")
_LOG_SUFFIXES = (".log", ".tsv", ".json", ".jsonl", ".txt", ".parquet")

RESULTS = "results"
CALIBRATION = "calibration.json"
"""Name of the `analysis.calibration` file within the experiment's folder of the archive."""

ESTIMATE_CALIBRATION = "estimate_calibration.json"
"""Name of the `estimate.calibration` file within the same folder."""


@dataclass(frozen=True)
class ArchiveMember:
    """A file of an archive: its name there, and the source of its content."""

    name: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Return the current size in bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def open(self) -> BinaryIO:
        """Open the content for reading."""
        return BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass(frozen=True)
class Collection:
    """Members of an archive, sorted by name, and the files left out of it."""

    experiment: str
    members: list[ArchiveMember] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def collect_results(experiment: Path) -> Collection:
    """Collect the results of exactly the sessions that an experiment's plan names.

    Args:
        experiment: the experiment's folder; its parent is the results folder.

    Raises:
        InputError: a file is missing; the message names it with the command that makes it.
    """
    root, name = experiment.absolute().parent, experiment.absolute().name
    if not (experiment / NAME).is_file():
        raise InputError(
            f"{experiment}: holds no {NAME}; name the result folder of an experiment, such as results/default, "
            "which `snakemake` fills"
        )
    plan = plan_of(read_json(experiment / NAME), str(experiment / NAME))
    planned = sessions(plan, str(experiment / NAME))
    needed = [root / path for path in needed_results(name, planned)]
    for path in needed:
        if not path.is_file():
            raise InputError(f"{_shown(path, root)}: no such file; {_remedy(path, root)}")

    folders = [root / name, *_folders(root, planned)]
    files = {path for folder in folders for path in _files(folder)}
    files |= {path for machine in _machines(planned) for path in _logs(root / "logs" / machine, planned)}
    collection = Collection(name)
    for path in sorted({*needed, *files}):
        relative = path.relative_to(root).as_posix()
        exclusion = None if path in needed else _exclusion_reason(path, root, name, planned)
        if exclusion:
            collection.left_out.append(LeftOut(path=f"{RESULTS}/{relative}", why=exclusion))
        else:
            collection.members.append(ArchiveMember(f"{RESULTS}/{relative}", path))
    for calibration in (_calibration(root, name, plan), _estimate_calibration(root, name, plan)):
        if calibration is not None:
            rest = [member for member in collection.members if member.name != calibration.name]
            collection.members[:] = sorted([*rest, calibration], key=lambda member: member.name)
    return collection


def _estimate_calibration(root: Path, name: str, plan: dict[str, Any]) -> ArchiveMember | None:
    """Return the calibration of the estimates if it is a file, which must not have changed since it was used."""
    estimate = plan.get("estimate")
    named = estimate.get("calibration") if isinstance(estimate, dict) else None
    if not named or named in SHIPPED:
        return None
    path = root.parent / named
    fitted = read_calibration(str(path), "estimate.calibration")
    used = {row.get("calibration_sha256") for row in read_json(root / name / "summary.json").get("estimates", [])}
    if used - {fitted.sha256, None}:
        raise InputError(
            f"estimate.calibration: {named} is not the file that the summary was made with; "
            f"`snakemake {_shown(root / name / 'summary.json', root)}` makes it again"
        )
    return ArchiveMember(f"{RESULTS}/{name}/{ESTIMATE_CALIBRATION}", path)


def _calibration(root: Path, name: str, plan: dict[str, Any]) -> ArchiveMember | None:
    """Return the calibration file, wherever it is; it must not have changed since the summary was made."""
    named = plan["analysis"].get("calibration") if isinstance(plan["analysis"], dict) else None
    if not named:
        return None
    path = root.parent / named
    calibration = read_calibrations(path)
    used = {
        digest
        for row in read_json(root / name / "summary.json").get("sessions", [])
        if (digest := (row.get("calibration") or {}).get("sha256"))
    }
    if used - {calibration.sha256}:
        raise InputError(
            f"{KEY}: {named} is not the file that the summary was made with; "
            f"`snakemake {_shown(root / name / 'summary.json', root)}` makes it again"
        )
    return ArchiveMember(f"{RESULTS}/{name}/{CALIBRATION}", path)


def needed_results(experiment: str, planned: list[PlannedSession]) -> list[str]:
    """Return the paths below the results folder of what every archive of an experiment holds."""
    paths = [f"{experiment}/{file}" for file in EXPERIMENT_FILES]
    for session in planned:
        raw, derived = f"raw/{session.machine}", f"derived/{session.machine}"
        paths += [
            f"{raw}/environment.json",
            *(f"{raw}/servers/{session.server}/{file}" for file in SERVER_FILES),
            *(f"{raw}/idle/{session.server}/{file}" for file in IDLE_FILES),
            *(f"{raw}/sessions/{session.session}/{file}" for file in SESSION_FILES),
            *(f"{derived}/{session.session}/{file}" for file in DERIVED_FILES),
            f"{derived}/fits/{session.server}.json",
        ]
    return list(dict.fromkeys(paths))


def is_result(path: str, experiment: str, planned: list[PlannedSession]) -> bool:
    """Return whether an archive of an experiment may hold a file of the results folder.

    Args:
        path: below the results folder.
        experiment: name of the experiment.
        planned: its sessions.
    """
    more = [f"{experiment}/{file}" for file in _MORE_EXPERIMENT_FILES]
    for session in planned:
        more += [f"raw/{session.machine}/sessions/{session.session}/{file}" for file in _MORE_SESSION_FILES]
        more += [f"derived/{session.machine}/{session.session}/{file}" for file in _MORE_DERIVED_FILES]
    if path in more or path in needed_results(experiment, planned):
        return True
    top, _, rest = path.partition("/")
    machine, _, log = rest.partition("/")
    return (
        top == "logs"
        and machine in _machines(planned)
        and path.endswith(_LOG_SUFFIXES)
        and _is_log(log.split("/"), [session for session in planned if session.machine == machine])
    )


def _folders(root: Path, planned: list[PlannedSession]) -> Iterator[Path]:
    """Yield the folders of which every file belongs to the plan's sessions."""
    for session in planned:
        yield root / "raw" / session.machine / "servers" / session.server
        yield root / "raw" / session.machine / "idle" / session.server
        yield root / "raw" / session.machine / "sessions" / session.session
        yield root / "derived" / session.machine / session.session


def _logs(folder: Path, planned: list[PlannedSession]) -> Iterator[Path]:
    """Yield the logs of a machine, without those of other experiments' servers and sessions."""
    on_machine = [session for session in planned if session.machine == folder.name]
    for path in _files(folder):
        if _is_log(path.relative_to(folder).parts, on_machine):
            yield path


def _is_log(parts: Sequence[str], on_machine: list[PlannedSession]) -> bool:
    """Return whether a file in the folder of a machine's logs is not that of another experiment's server or session."""
    servers, names = {session.server for session in on_machine}, {session.session for session in on_machine}
    kept = {
        "servers": servers,
        "idle": servers,
        "sessions": names,
        "derived": names | {f"fit_{server}" for server in servers},
    }
    kind, *rest = parts
    return not rest or kind not in kept or Path(rest[0]).stem in kept[kind]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder; links are not followed, so no file from elsewhere is included."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _exclusion_reason(path: Path, root: Path, experiment: str, planned: list[PlannedSession]) -> str | None:
    """Return why a file that is not needed is left out, or None if it is archived."""
    if path.name.startswith("."):
        return "a temporary file"
    if path.suffix in (".zip", ".sig") and path.parent == root / experiment:
        return "an archive" if path.suffix == ".zip" else "a signature"
    if path.suffix == ".arrows":
        return "a log written while measuring, whose content is in the Parquet file of its name"
    if not is_result(path.relative_to(root).as_posix(), experiment, planned):
        return "no file of the pipeline"
    return None


def _machines(planned: list[PlannedSession]) -> list[str]:
    return list(dict.fromkeys(session.machine for session in planned))


def _shown(path: Path, root: Path) -> str:
    return f"{root.name}/{path.relative_to(root).as_posix()}"


def _remedy(path: Path, root: Path) -> str:
    target = _shown(path, root)
    if path.relative_to(root).parts[0] == "raw":
        machine = path.relative_to(root).parts[1]
        return f"`snakemake {target}` makes it on {machine}; on another machine copy {root.name}/raw/{machine} here"
    return f"`snakemake {target}` makes it"


CODE = "code"
PACKAGE_MEMBERS = f"{CODE}/src/inference_energy/"
DIFF = f"{CODE}/uncommitted.diff"
PACKAGE = Path(inference_energy.__file__).resolve().parent

_NEEDED = ("pyproject.toml", "requirements/requirements.lock")
_FOLDERS = ("config", "requirements", "workflow", "scripts", "envs", "profiles")
_PARTS = (
    "README.md",
    "LICENSE",
    "Makefile",
    "Snakefile",
    "config.yaml",
    *_FOLDERS,
)
_NOT_CODE = ("__pycache__", ".snakemake")


def collect_code(project: Path, package: Path = PACKAGE) -> tuple[dict[str, Any], list[ArchiveMember]]:
    """Return facts about the code, and the members that hold it, installable from the folder `code`.

    Args:
        project: the project's folder.
        package: the folder of the package that runs.

    Raises:
        InputError: the project's folder lacks its lock file or pyproject.toml.
    """
    for name in _NEEDED:
        if not (project / name).is_file():
            raise InputError(f"{project / name}: no such file; give the project's folder with --project")
    files = {name: project / name for name in _NEEDED}
    for part in _PARTS:
        files |= {path.relative_to(project).as_posix(): path for path in _files_below(project / part)}
    members = [ArchiveMember(f"{CODE}/{name}", path) for name, path in files.items()]
    members += [ArchiveMember(PACKAGE_MEMBERS + name, path) for name, path in package_files(package).items()]

    facts: dict[str, Any] = {"version": __version__, "package_in_project": package.is_relative_to(project.resolve())}
    diff = b""
    try:
        facts["git_commit"] = git(project, "rev-parse", "HEAD").decode().strip()
        status = git(project, "status", "--porcelain", "--", ".").decode(errors="replace").splitlines()
        diff = git(project, "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".")
        facts["git_dirty"] = bool(status)
        facts["git_untracked"] = [line[3:] for line in status if line.startswith("??")]
    except GitError as error:
        facts |= {"git_commit": None, "git_dirty": None, "missing": str(error)}
    facts["uncommitted_sha256"] = hashlib.sha256(diff).hexdigest() if diff else None
    members.append(ArchiveMember(f"{CODE}/version.json", (json.dumps(facts, indent=2) + "\n").encode()))
    if diff:
        members.append(ArchiveMember(DIFF, diff))
    return facts, members


def is_code(path: str) -> bool:
    """Return whether an archive may hold a file in its folder of code; `path` is below that folder."""
    known = (*_NEEDED, *_PARTS, "version.json", DIFF.removeprefix(f"{CODE}/"))
    package = PACKAGE_MEMBERS.removeprefix(f"{CODE}/")
    if any(part.startswith(".") or part in _NOT_CODE for part in path.split("/")):
        return False
    return path in known or path.startswith(package) or path.partition("/")[0] in _FOLDERS


def package_files(package: Path = PACKAGE) -> dict[str, Path]:
    """Return the files of the package by their names relative to its folder."""
    return {path.relative_to(package).as_posix(): path for path in _files_below(package)}


def changed_files(archived: dict[str, str], package: Path = PACKAGE) -> list[str]:
    """Return the files of the package that differ between an archive and this installation.

    Args:
        archived: SHA-256 of each file in the archive, by its name relative to the package's folder.
        package: the folder of the package that runs.
    """
    here = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in package_files(package).items()}
    return sorted(name for name in {*archived, *here} if archived.get(name) != here.get(name))


def _files_below(path: Path) -> list[Path]:
    """Return the file itself, or the regular files below a folder, without caches and hidden files."""
    if path.is_file():
        return [path]
    files = []
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        hidden = any(part.startswith(".") or part in _NOT_CODE for part in parts)
        if file.is_file() and not file.is_symlink() and not hidden:
            files.append(file)
    return files
