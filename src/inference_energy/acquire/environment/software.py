"""The Python and the version of this project that measure. The server's own packages are recorded elsewhere."""

import platform
import subprocess
from pathlib import Path

from inference_energy import __version__
from inference_energy.acquire.environment.facts import Facts, MissingFactError

_PACKAGE = Path(__file__).resolve().parents[2]


def python_facts() -> Facts:
    """The interpreter."""
    facts = Facts("python")
    facts.add("version", platform.python_version)
    facts.add("implementation", platform.python_implementation)
    return facts


def project_facts(package: Path = _PACKAGE) -> Facts:
    """Version, commit and whether the package's files differ from that commit; `package` is the package's folder."""
    facts = Facts("project")
    facts.add("version", lambda: __version__)
    facts.add("git_commit", lambda: _git(package, "rev-parse", "HEAD"))
    facts.add("git_dirty", lambda: bool(_git(package, "status", "--porcelain", "--", ".")))
    return facts


def _git(folder: Path, *arguments: str) -> str:
    # A package installed into a virtual environment inside another project must not take over that project's commit.
    if not _run_git(folder, "ls-files", "--", "__init__.py"):
        raise MissingFactError("the package does not lie in a git work tree of its own")
    return _run_git(folder, *arguments)


def _run_git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingFactError("git is not installed or does not answer") from error
    if done.returncode != 0:
        # Git's own words hold paths of this machine.
        raise MissingFactError("the package does not lie in a git work tree that git accepts")
    return done.stdout.strip()
