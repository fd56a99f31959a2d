"""experiment.json names the commit that ran, and never another project's."""

import subprocess
from pathlib import Path

from inference_energy.provenance.experiment_json import git_state


def repository(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text("[project]\n")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_commit_and_whether_the_folder_was_changed(tmp_path: Path) -> None:
    commit = repository(tmp_path / "project")
    assert git_state(tmp_path / "project") == {"git_commit": commit, "git_dirty": False, "missing": {}}
    (tmp_path / "project" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert git_state(tmp_path / "project")["git_dirty"] is True


def test_a_copy_inside_another_project_has_no_commit(tmp_path: Path) -> None:
    repository(tmp_path / "outer")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir()
    found = git_state(inner)
    assert found["git_commit"] is None
    assert "of its own" in found["missing"]["git_commit"]
