"""The code behind results: the package's own source, the lock file, and which commit they are."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import inference_energy
from inference_energy import __version__
from inference_energy.errors import InputError
from inference_energy.provenance.collect import Member

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
_GIT_TIMEOUT_S = 60


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
        facts["git_commit"] = _git(project, "rev-parse", "HEAD").decode().strip()
        status = _git(project, "status", "--porcelain", "--", ".").decode(errors="replace").splitlines()
        diff = _git(project, "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".")
        facts["git_dirty"] = bool(status)
        facts["git_untracked"] = [line[3:] for line in status if line.startswith("??")]
    except _GitError as error:
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


class _GitError(Exception):
    """Git cannot tell; the message says why."""


def _git(project: Path, *arguments: str) -> bytes:
    # A project unpacked inside another project's work tree must not take over that project's commit.
    if not _run_git(project, "ls-files", "--", "pyproject.toml"):
        raise _GitError("the project does not lie in a git work tree of its own")
    return _run_git(project, *arguments)


def _run_git(project: Path, *arguments: str) -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project, env=environment, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _GitError("git is not installed or does not answer") from error
    if done.returncode != 0:
        # Git's own words hold paths of this machine.
        raise _GitError("the project does not lie in a git work tree with a commit")
    return done.stdout
