"""What goes into an archive, and what does not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import archived
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference_energy.errors import InputError, RunError
from inference_energy.provenance.archive import prepare_archive, write_archive
from inference_energy.provenance.archive_members import PACKAGE


def test_the_manifest_tells_size_and_sha256_of_every_member(master_zip: Path) -> None:
    members = archived.read_members(master_zip)
    manifest = json.loads(members.pop("manifest.json"))
    listed = {entry["path"]: (entry["size"], entry["sha256"]) for entry in manifest["members"]}
    assert listed == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in members.items()}
    assert manifest["created_utc"] == "2026-05-28T20:26:40Z"


def test_it_holds_results_logs_code_and_instructions(master_zip: Path, master: Path) -> None:
    members = archived.read_members(master_zip)
    for name in (archived.POWER, archived.SUMMARY, "results/logs/bench/sessions/base/server.log"):
        assert members[name] == (master / name).read_bytes()
    for name in ("results/logs/bench/environment.log", "code/requirements/requirements.lock", "code/pyproject.toml"):
        assert name in members
    source = "provenance/archive.py"
    assert members[f"code/src/inference_energy/{source}"] == (PACKAGE / source).read_bytes()
    assert "inference-energy verify synthetic.zip" in members["README.txt"].decode()
    assert not any("__pycache__" in name for name in members)


def test_the_check_in_the_instructions_works_without_the_toolkit(master_zip: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(master_zip) as opened:
        opened.extractall(tmp_path)
    text = (tmp_path / "README.txt").read_text()
    command = text[text.index("python3 -c") :].split("\n\n")[0].replace("python3", sys.executable, 1)

    def said() -> str:
        return subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert said() == "all members are as archived\n"
    (tmp_path / archived.SUMMARY).write_text("{}")
    assert said() == f"['{archived.SUMMARY}']\n"


def test_other_sessions_stay_out_and_what_is_left_out_is_told(master_zip: Path) -> None:
    members = archived.read_members(master_zip)
    assert not any("foreign" in name for name in members)
    left_out = json.loads(members["manifest.json"])["left_out"]
    assert [entry["path"] for entry in left_out] == ["results/logs/bench/sessions/base/power.arrows"]


def test_parquet_is_stored_text_deflated_and_no_time_kept(master_zip: Path) -> None:
    with zipfile.ZipFile(master_zip) as opened:
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.getinfo(archived.POWER).compress_type == zipfile.ZIP_STORED
        log = opened.getinfo("results/logs/bench/sessions/base/server.log")
        assert log.compress_size < log.file_size / 10


def test_the_same_results_give_the_same_bytes(project: Path, master_zip: Path, tmp_path: Path) -> None:
    for path in project.rglob("*"):
        os.utime(path, (1, 1))
    assert archived.pack(project, tmp_path / "again.zip").read_bytes() == master_zip.read_bytes()


def test_two_times_differ_in_the_manifest_and_the_readme_only(
    master: Path, master_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    now, then = archived.read_members(archived.pack(master, tmp_path / "now.zip")), archived.read_members(master_zip)
    assert now.keys() == then.keys()
    assert {name for name in now if now[name] != then[name]} == {"manifest.json", "README.txt"}


def test_an_archive_in_the_experiments_own_folder_does_not_hold_the_one_before(project: Path) -> None:
    output = project / "results" / archived.EXPERIMENT / "synthetic.zip"
    first = archived.read_members(archived.pack(project, output))
    second = archived.read_members(archived.pack(project, output))
    assert second.keys() == first.keys()
    left_out = json.loads(second["manifest.json"])["left_out"]
    assert {"path": f"results/{archived.EXPERIMENT}/synthetic.zip", "why": "an archive"} in left_out


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("raw/bench/environment.json", "snakemake results/raw/bench/environment.json"),
        ("raw/bench/servers/small/model.json", "copy results/raw/bench"),
        ("raw/bench/idle/small/power.parquet", "results/raw/bench/idle/small/power.parquet"),
        ("raw/bench/sessions/base/phases.parquet", "makes it on bench"),
        ("derived/bench/base/receipts.parquet", "snakemake results/derived/bench/base/receipts.parquet"),
        ("derived/bench/fits/small.json", "snakemake results/derived/bench/fits/small.json"),
        ("synthetic/summary.json", "snakemake results/synthetic/summary.json"),
        ("synthetic/experiment.json", "which `snakemake` fills"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(project: Path, name: str, remedy: str) -> None:
    (project / "results" / name).unlink()
    with pytest.raises(InputError, match=remedy):
        prepare_archive(project / "results" / archived.EXPERIMENT, project)


def test_a_project_without_a_lock_file_is_refused(project: Path) -> None:
    (project / "requirements" / "requirements.lock").unlink()
    with pytest.raises(InputError, match=r"requirements\.lock.*--project"):
        prepare_archive(project / "results" / archived.EXPERIMENT, project)


def test_names_in_the_plan_cannot_leave_the_results(project: Path) -> None:
    path = project / archived.PLAN
    content = json.loads(path.read_text())
    content["plan"]["sessions"][0]["machine"] = "../elsewhere"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"plan\.sessions\[0\]"):
        prepare_archive(project / "results" / archived.EXPERIMENT, project)


def test_only_zip_names_are_written(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end in \.zip"):
        archived.pack(project, tmp_path / "archive.tar")


def test_links_to_files_elsewhere_are_not_followed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("private")
    (project / "results" / archived.EXPERIMENT / "notes.txt").symlink_to(tmp_path / "private.txt")
    members = archived.read_members(archived.pack(project, tmp_path / "a.zip"))
    assert f"results/{archived.EXPERIMENT}/notes.txt" not in members


def test_a_file_that_cannot_be_written_leaves_nothing(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        archived.pack(project, tmp_path / "file" / "a.zip")


@pytest.mark.parametrize("variable", ["HF_TOKEN", "SOME_API_KEY", "DB_PASSWORD", "MY_TOKEN", "A_SECRET"])
def test_a_secret_in_a_log_is_refused_without_telling_it(project: Path, tmp_path: Path, variable: str) -> None:
    log = project / "results" / "logs" / "bench" / "sessions" / "base" / "server.log"
    # Across the border of two pieces that are read one after the other.
    log.write_text("x" * ((1 << 20) - 5) + "hf_verysecret\n")
    packing = prepare_archive(project / "results" / archived.EXPERIMENT, project)
    with pytest.raises(InputError, match=variable) as caught:
        write_archive(packing, tmp_path / "a.zip", environ={variable: "hf_verysecret"})
    assert str(log) in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


@pytest.mark.parametrize(
    ("form", "value"), [('{"a": "pass\\"word1"}', 'pass"word1'), ("<p>a&amp;b&lt;c123", "a&b<c123")]
)
def test_a_quoted_secret_is_found(project: Path, tmp_path: Path, form: str, value: str) -> None:
    (project / "results" / archived.EXPERIMENT / "report.html").write_text(form)
    with pytest.raises(InputError, match="X_PASSWORD"):
        write_archive(
            prepare_archive(project / "results" / archived.EXPERIMENT, project),
            tmp_path / "a.zip",
            {"X_PASSWORD": value},
        )


def test_a_secret_in_a_compressed_column_is_found(project: Path, tmp_path: Path) -> None:
    path = project / "results" / "raw" / "bench" / "sessions" / "base" / "requests.parquet"
    texts = [f"{number} failed: 401 for Bearer hf_verysecret" for number in range(1000)]
    pq.write_table(pa.table({"error": texts}), path, compression="zstd", write_statistics=False)
    assert b"hf_verysecret" not in path.read_bytes()
    packing = prepare_archive(project / "results" / archived.EXPERIMENT, project)
    with pytest.raises(InputError, match=r"requests\.parquet: holds the value .* HF_TOKEN"):
        write_archive(packing, tmp_path / "a.zip", {"HF_TOKEN": "hf_verysecret"})


@pytest.mark.parametrize("where", ["variable", "file"])
def test_what_the_configuration_names_as_secret_is_one(project: Path, tmp_path: Path, where: str) -> None:
    """The load client's key may stand in a variable of any name, a meter's login in a file."""
    logins = tmp_path / "bmc.credentials"
    logins.write_text("# the BMC\nusername = administrator\npassword = correct-horse\n")
    logins.chmod(0o600)
    plan = project / "results" / archived.EXPERIMENT / "experiment.json"
    content = json.loads(plan.read_text())
    content["config"] = {
        "client": {"api_key_env": "MINE"},
        "power": {"redfish": [{"credentials_file": str(logins)}], "pdu": {"credentials_file": str(tmp_path / "gone")}},
    }
    plan.write_text(json.dumps(content))
    log = project / "results" / "logs" / "bench" / "sessions" / "base" / "server.log"
    environ = {"MINE": "sesame-4711"}
    write_archive(prepare_archive(plan.parent, project), tmp_path / "sound.zip", environ)
    log.write_text("401 for administrator: " + ("sesame-4711" if where == "variable" else "correct-horse"))
    with pytest.raises(
        InputError, match="variable MINE" if where == "variable" else "credentials_file .*bmc"
    ) as caught:
        write_archive(prepare_archive(plan.parent, project), tmp_path / "a.zip", environ)
    assert not any(secret in str(caught.value) for secret in ("sesame", "horse"))


def test_short_values_and_other_variables_are_no_secrets(project: Path, tmp_path: Path) -> None:
    environ = {"HF_TOKEN": "INFO", "GREETING": "INFO: started", "TOKENIZERS": "INFO: started"}
    write_archive(prepare_archive(project / "results" / archived.EXPERIMENT, project), tmp_path / "a.zip", environ)
    assert (tmp_path / "a.zip").exists()


def git(project: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=project, check=True, capture_output=True)


def test_commit_and_uncommitted_changes_are_kept(project: Path, tmp_path: Path) -> None:
    (project / ".gitignore").write_text("results/\n")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    clean = archived.read_members(archived.pack(project, tmp_path / "clean.zip"))
    version = json.loads(clean["code/version.json"])
    assert len(version["git_commit"]) == 40
    assert version["git_dirty"] is False
    assert "code/uncommitted.diff" not in clean

    (project / "requirements" / "requirements.lock").write_text("numpy==2.1\n")
    (project / "new.py").write_text("")
    dirty = archived.read_members(archived.pack(project, tmp_path / "dirty.zip"))
    changed = json.loads(dirty["code/version.json"])
    assert changed["git_dirty"] is True
    assert changed["git_untracked"] == ["new.py"]
    assert b"+numpy==2.1" in dirty["code/uncommitted.diff"]
    assert changed["uncommitted_sha256"] == hashlib.sha256(dirty["code/uncommitted.diff"]).hexdigest()
    assert json.loads(dirty["manifest.json"])["code"] == changed


def test_without_git_the_commit_is_missing_with_a_reason(master_zip: Path) -> None:
    version = json.loads(archived.read_members(master_zip)["code/version.json"])
    assert version["git_commit"] is None
    assert "git" in version["missing"]
