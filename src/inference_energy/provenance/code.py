"""The code behind results: the package's own source, the lock file, and which commit they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import inference_energy
from inference_energy import __version__
from inference_energy.errors import InputError
from inference_energy.provenance.collect import Member
from inference_energy.provenance.git import GitError, git

CODE = "code"
PACKAGE_MEMBERS = f"{CODE}/src/inference_energy/"
DIFF = f"{CODE}/uncommitted.diff"
PACKAGE = Path(inference_energy.__file__).resolve().parent

_NEEDED = ("pyproject.toml", "requirements/requirements.lock")
_PARTS = (
    "README.md",
    "LICENSE",
    "Makefile",
    "Snakefile",
    "config.yaml",
    *("config", "requirements", "workflow", "scripts", "envs", "profiles"),
)
_NOT_CODE = ("__pycache__", ".snakemake")


def collect_code(project: Path, package: Path = PACKAGE) -> tuple[dict[str, Any], list[Member]]:
    """What is known of the code, and the members that hold it, installable from the folder `code`.

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
        files |= {path.relative_to(project).as_posix(): path for path in _files(project / part)}
    members = [Member(f"{CODE}/{name}", path) for name, path in files.items()]
    members += [Member(PACKAGE_MEMBERS + name, path) for name, path in package_files(package).items()]

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
    members.append(Member(f"{CODE}/version.json", (json.dumps(facts, indent=2) + "\n").encode()))
    if diff:
        members.append(Member(DIFF, diff))
    return facts, members


def package_files(package: Path = PACKAGE) -> dict[str, Path]:
    """The files of the package: names relative to its folder, and their paths."""
    return {path.relative_to(package).as_posix(): path for path in _files(package)}


def changed_files(archived: dict[str, str], package: Path = PACKAGE) -> list[str]:
    """Files of the package that differ between an archive and this installation.

    Args:
        archived: SHA-256 of each file in the archive, by its name relative to the package's folder.
        package: the folder of the package that runs.
    """
    here = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in package_files(package).items()}
    return sorted(name for name in {*archived, *here} if archived.get(name) != here.get(name))


def _files(path: Path) -> list[Path]:
    """The file itself, or the regular files below a folder, without caches and hidden files."""
    if path.is_file():
        return [path]
    found = []
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        hidden = any(part.startswith(".") or part in _NOT_CODE for part in parts)
        if file.is_file() and not file.is_symlink() and not hidden:
            found.append(file)
    return found
