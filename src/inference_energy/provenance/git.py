"""What git knows of the project's folder."""

import os
import subprocess
from pathlib import Path

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
