"""What an experiment was: its configuration, and the code that ran it."""

import subprocess
from pathlib import Path
from typing import Any

from inference_energy import __version__


def experiment_record(spec: dict[str, Any]) -> dict[str, Any]:
    """experiment.json: `plan` and `config` as given, and `project`: version, git commit, and whether it was changed.

    Args:
        spec: `plan` (what the summary is computed from) and `config` (the whole configuration).
    """
    return {**spec, "project": {"version": __version__, **git_state(Path.cwd())}}


def git_state(folder: Path) -> dict[str, Any]:
    """`git_commit` and `git_dirty` of a work tree; null with the reason where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        reason = "not a git work tree with a commit, or no git here"
        return {"git_commit": None, "git_dirty": None, "missing": {"git_commit": reason, "git_dirty": reason}}
    return {"git_commit": commit, "git_dirty": bool(_git(folder, "status", "--porcelain")), "missing": {}}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
