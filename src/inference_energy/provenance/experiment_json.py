"""experiment.json: what an experiment was, its configuration and the code that ran it.

The plan in it names what belongs to the experiment and is what a summary is computed from.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy import __version__
from inference_energy.errors import InputError
from inference_energy.plan.stage_configs import ExperimentConfig

TIMEOUT_S = 60


class GitError(Exception):
    """Git cannot tell; the message says why."""


def git(project: Path, *arguments: str) -> bytes:
    """What git prints about a project.

    Raises:
        GitError: no git here, or the project is not a work tree of its own with a commit.
    """
    # A project unpacked inside another project's work tree must not take over that project's commit.
    if not _run(project, "ls-files", "--", "pyproject.toml"):
        raise GitError("the project does not lie in a git work tree of its own")
    return _run(project, *arguments)


def _run(project: Path, *arguments: str) -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError("git is not installed or does not answer") from error
    if done.returncode != 0:
        # Git's own words hold paths of this machine.
        raise GitError("the project does not lie in a git work tree with a commit")
    return done.stdout


def experiment_record(*, config: ExperimentConfig) -> dict[str, Any]:
    """Return experiment.json: plan and configuration as given, and the version, git commit and state of the code."""
    return {**config.model_dump(), "project": {"version": __version__, **git_state(Path.cwd())}}


def git_state(project: Path) -> dict[str, Any]:
    """`git_commit` and `git_dirty` of a project's folder; null with the reason where git cannot tell."""
    try:
        commit = git(project, "rev-parse", "HEAD").decode().strip()
        dirty = bool(git(project, "status", "--porcelain", "--", "."))
    except GitError as error:
        reasons = dict.fromkeys(("git_commit", "git_dirty"), str(error))
        return {"git_commit": None, "git_dirty": None, "missing": reasons}
    return {"git_commit": commit, "git_dirty": dirty, "missing": {}}


NAME = "experiment.json"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEYS = ("experiment", "analysis", "impact", "metrics", "sessions")


@dataclass(frozen=True)
class PlannedSession:
    """A session of an experiment, by names."""

    machine: str
    session: str
    server: str


def plan_of(content: Any, where: str) -> dict[str, Any]:
    """The `plan` in the content of experiment.json.

    Args:
        content: the JSON.
        where: the file's name for messages.

    Raises:
        InputError: it lacks something, or a name is none: names become paths.
    """
    plan = content.get("plan") if isinstance(content, dict) else None
    absent = [key for key in _KEYS if not isinstance(plan, dict) or key not in plan]
    if not isinstance(plan, dict) or absent:
        raise InputError(f"{where}: lacks {', '.join(f'plan.{key}' for key in absent)}; `snakemake` writes it again")
    sessions(plan, where)
    return plan


def sessions(plan: dict[str, Any], where: str = NAME) -> list[PlannedSession]:
    """The sessions of a plan, checked as in `plan_of`."""
    found = []
    for number, entry in enumerate(plan["sessions"] if isinstance(plan["sessions"], list) else []):
        names = [entry.get(key) if isinstance(entry, dict) else None for key in ("machine", "session", "server")]
        if not all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names):
            raise InputError(f"{where}: plan.sessions[{number}]: machine, session and server must be plain names")
        found.append(PlannedSession(*map(str, names)))
    if not found:
        raise InputError(f"{where}: plan.sessions: at least one session is needed")
    return found
