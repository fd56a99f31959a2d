"""What an experiment was: its configuration, and the code that ran it."""

from pathlib import Path
from typing import Any

from inference_energy import __version__
from inference_energy.provenance.git import GitError, git


def experiment_record(spec: dict[str, Any]) -> dict[str, Any]:
    """experiment.json: `plan` and `config` as given, and `project`: version, git commit, and whether it was changed.

    Args:
        spec: `plan` (what the summary is computed from) and `config` (the whole configuration).
    """
    return {**spec, "project": {"version": __version__, **git_state(Path.cwd())}}


def git_state(project: Path) -> dict[str, Any]:
    """`git_commit` and `git_dirty` of a project's folder; null with the reason where git cannot tell."""
    try:
        commit = git(project, "rev-parse", "HEAD").decode().strip()
        dirty = bool(git(project, "status", "--porcelain", "--", "."))
    except GitError as error:
        reasons = dict.fromkeys(("git_commit", "git_dirty"), str(error))
        return {"git_commit": None, "git_dirty": None, "missing": reasons}
    return {"git_commit": commit, "git_dirty": dirty, "missing": {}}
