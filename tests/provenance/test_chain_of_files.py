"""What figures were measured on is held together by digests: who changes one file must change all that follow."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import archived
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archived import PLAN, POWER, REPORT, SUMMARY, edit_json, tampered
from typer.testing import CliRunner

from inference_energy.cli.main import app
from inference_energy.errors import InputError
from inference_energy.provenance.archive import prepare_archive
from inference_energy.provenance.report_check import _first_difference, _parts
from inference_energy.provenance.verify import verify

pytestmark = pytest.mark.slow

RAW = "results/raw/bench"
SESSION = f"{RAW}/sessions/base/session.json"
OF_SESSION = f"{RAW}/sessions/base/environment.json"
OF_MACHINE = f"{RAW}/environment.json"
OF_SERVER = f"{RAW}/servers/small/server_environment.json"


def rename_gpu(content: dict) -> None:
    content["gpus"][0]["name"] = "NVIDIA B200"


@pytest.mark.usefixtures("computed_once")
@pytest.mark.parametrize(
    ("member", "edit"),
    [
        (OF_SESSION, rename_gpu),
        (OF_SESSION, lambda c: c.update(simulated=True)),
        (OF_SESSION, lambda c: c["missing"].update(os="gone")),
        (OF_SERVER, lambda c: c.update(vllm_version="0.9.9")),
        (f"{RAW}/servers/small/model.json", lambda c: c.update(license="MIT")),
        (f"{RAW}/idle/small/idle.json", lambda c: c.update(duration_s=1.0)),
        (OF_MACHINE, rename_gpu),
        (OF_MACHINE, lambda c: c["gpus"].append(c["gpus"][0])),
    ],
)
def test_another_machine_server_or_model_is_found_though_manifest_and_report_were_fixed(
    master_zip: Path, tmp_path: Path, member: str, edit: Callable[[dict], object]
) -> None:
    bad = tampered(master_zip, tmp_path / "bad.zip", edit_json(member, edit), fix_manifest=True, fix_report=True)
    found = verify(bad)
    assert not found.agrees
    assert member in found.members


def test_without_the_session_json_of_its_files_the_report_still_tells(master_zip: Path, tmp_path: Path) -> None:
    def change(members: archived.Content) -> None:
        edit_json(OF_SESSION, rename_gpu)(members)
        edit_json(OF_MACHINE, rename_gpu)(members)
        digest = hashlib.sha256(members[OF_SESSION]).hexdigest()
        edit_json(SESSION, lambda c: c["files"].update({"sessions/base/environment.json": digest}))(members)

    found = verify(tampered(master_zip, tmp_path / "bad.zip", change, fix_manifest=True))
    assert set(found.members) == {OF_SESSION, SESSION}
    assert "session_sha256: stored" in found.differences[0]


def of_other_code(members: archived.Content) -> None:
    name = next(name for name in sorted(members) if name.startswith("code/src/inference_energy/"))
    members[name] += b"\n"


def test_sessions_of_earlier_toolkits_are_checked_as_far_as_they_go(project: Path, tmp_path: Path) -> None:
    session = project / SESSION
    content = json.loads(session.read_text())
    del content["files"]
    session.write_text(json.dumps(content))
    archived.compute(project / "results", json.loads((project / PLAN).read_text())["plan"])
    taken_out = archived.pack(project, tmp_path / "taken-out.zip")
    assert verify(taken_out).members[SESSION].startswith("holds no digests of raw files")
    packed = tampered(taken_out, tmp_path / "a.zip", of_other_code, fix_manifest=True)
    found = verify(packed)
    assert found.agrees and found.of_earlier_code
    assert any("session.json: no digests of raw files" in warning for warning in found.warnings)
    bad = tampered(packed, tmp_path / "b.zip", edit_json(OF_SERVER, lambda c: c.update(note="x")), fix_manifest=True)
    assert verify(bad).members == {OF_SERVER: "is not the file that report.html was made from, say the digests in it"}


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"H100", b"B200"), (b"counter", b"simulated"), (b">simulated<", b">counter<"), (b"</body>", b"<p>x</p></body>")],
)
def test_a_report_that_shows_something_else_is_found(master_zip: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    def change(members: archived.Content) -> None:
        head, found, rest = members[REPORT].partition(old)
        members[REPORT] = head + new + rest if found else members[REPORT] + new

    found = verify(tampered(master_zip, tmp_path / "a.zip", change, fix_manifest=True))
    assert list(found.members) == [REPORT]
    assert "its files give" in found.members[REPORT]


def test_numbers_of_a_report_are_compared_but_for_rounding(tmp_path: Path) -> None:
    stored = 'power <b>123.456</b> W {"dtype": "f8", "bdata": "AAAAAAAA8D8="}'
    assert _first_difference(_parts(stored), _parts(stored.replace("123.456", "123.4560000000001"))) is None
    assert _first_difference(_parts(stored), _parts(stored.replace("8D8=", "AEA="))) is not None
    assert "power <b>123.456" in str(_first_difference(_parts(stored), _parts(stored.replace("123.456", "61.728"))))


def dropped(name: str) -> Callable[[archived.Content], None]:
    def change(members: archived.Content) -> None:
        del members[name]
        edit_json("manifest.json", lambda m: m.update(members=[e for e in m["members"] if e["path"] != name]))(members)

    return change


@pytest.mark.usefixtures("computed_once")
@pytest.mark.parametrize(
    "name",
    [
        REPORT,
        "README.txt",
        OF_MACHINE,
        "results/derived/bench/base/receipts.parquet",
        "results/derived/bench/fits/small.json",
        f"{RAW}/sessions/base/prompts.parquet",
        f"{RAW}/sessions/base/server_metrics.parquet",
    ],
)
def test_a_missing_member_is_found_though_the_manifest_was_fixed(master_zip: Path, tmp_path: Path, name: str) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", dropped(name)))
    assert not found.agrees
    assert found.members[name] == "missing: every archive holds it"


def added(name: str, content: bytes = b"x") -> Callable[[archived.Content], None]:
    def change(members: archived.Content) -> None:
        members[name] = content
        entry = {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit_json("manifest.json", lambda m: m["members"].append(entry))(members)

    return change


@pytest.mark.usefixtures("computed_once")
@pytest.mark.parametrize(
    "name",
    [
        "run.sh",
        "results/notes.txt",
        "results/synthetic/report2.html",
        "results/other/summary.json",
        f"{RAW}/sessions/base/power2.parquet",
        f"{RAW}/sessions/base/answers.parquet",
        f"{RAW}/sessions/other/session.json",
        "results/raw/other/environment.json",
        "results/derived/bench/base/energy2.json",
        "results/logs/bench/sessions/base/run.sh",
        "results/logs/bench/sessions/other/server.log",
        "results/logs/elsewhere/server.log",
        "results/synthetic/calibration.json",
        "code/run.sh",
        "code/.ssh/config",
        "code/uncommitted.diff",
    ],
)
def test_an_added_member_is_found_though_the_manifest_was_fixed(master_zip: Path, tmp_path: Path, name: str) -> None:
    found = verify(tampered(master_zip, tmp_path / "bad.zip", added(name)))
    assert not found.agrees
    assert list(found.members) == [name]


@pytest.mark.usefixtures("computed_once")
@pytest.mark.parametrize("name", ["energy.json", "launch.json", "estimates.json"])
def test_a_changed_derived_file_is_found_though_the_manifest_was_fixed(
    master_zip: Path, tmp_path: Path, name: str
) -> None:
    member = f"results/derived/bench/base/{name}"
    bad = tampered(master_zip, tmp_path / "a.zip", edit_json(member, lambda c: c.update(server="x")), fix_manifest=True)
    assert [line for line in verify(bad).differences if line.startswith(f"{member}: server: stored")]


def test_what_the_pipeline_does_not_make_is_left_out_and_said(project: Path, tmp_path: Path) -> None:
    (project / "results" / archived.EXPERIMENT / "notes.txt").write_text("mine")
    packing = prepare_archive(project / "results" / archived.EXPERIMENT, project)
    assert [(entry.path, entry.why) for entry in packing.collection.left_out if "notes" in entry.path] == [
        ("results/synthetic/notes.txt", "no file of the pipeline")
    ]
    assert verify(archived.pack(project, tmp_path / "a.zip")).agrees


@pytest.mark.usefixtures("computed_once")
def test_keys_that_the_plan_lacks_are_told_and_other_than_the_configuration_found(
    master_zip: Path, tmp_path: Path
) -> None:
    def without(content: dict) -> None:
        del content["plan"]["analysis"]["max_gap_periods"]
        del content["plan"]["analysis"]["uncertainty"]["gain"]

    lacking = verify(tampered(master_zip, tmp_path / "a.zip", edit_json(PLAN, without), fix_manifest=True))
    assert lacking.agrees
    (warning,) = lacking.warnings
    assert "lacks plan.analysis.max_gap_periods, plan.analysis.uncertainty.gain" in warning

    def other(content: dict) -> None:
        content["config"]["impact"] = content["plan"]["impact"] | {"pue": 1.7}

    differing = verify(tampered(master_zip, tmp_path / "b.zip", edit_json(PLAN, other), fix_manifest=True))
    assert differing.differences == [
        f"{PLAN}: config.impact against plan.impact: pue: stored 1.7, recomputed 1.2",
    ]


@pytest.mark.usefixtures("computed_once")
@pytest.mark.parametrize(
    ("member", "content", "named"),
    [
        (SESSION, b'{"session": 1}', r"session\.json: its content is not that of session\.json: .*`\$\.session`"),
        (OF_SESSION, b"[]", r"sessions/base/environment\.json: its content"),
        (OF_SERVER, b"\xff\xfe{}", "server_environment.json: not UTF-8 at byte 0"),
        (OF_MACHINE, b'{"gpus": NaN}', "bench/environment.json: NaN is no number of JSON"),
        (f"{RAW}/idle/small/idle.json", b'{"start_ns": ' + b"9" * 30 + b"}", "start_ns holds a number beyond 64 bits"),
        (f"{RAW}/idle/small/idle.json", b'{"a": [1e400]}', r"idle\.json: a\.0 holds a number beyond"),
        (f"{RAW}/servers/small/model.json", b"[" * 5000 + b"]" * 5000, r"model\.json: nested more than 64 levels"),
        (SUMMARY, b'{"version": 1}', r"summary\.json: its content is not that of summary\.json: .*missing required"),
        (PLAN, b'{"plan": {"sessions": [{"machine": "\\u001b[31m"}]}}', "lacks plan.experiment"),
    ],
)
def test_a_hostile_document_is_named_with_its_key(
    master_zip: Path, tmp_path: Path, member: str, content: bytes, named: str
) -> None:
    bad = tampered(master_zip, tmp_path / "a.zip", lambda m: m.update({member: content}), fix_manifest=True)
    found = verify(bad)
    assert not found.agrees
    assert found.failure is not None
    assert member in found.failure
    assert found.failure.isprintable()
    assert re.search(named, found.failure), found.failure


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda p: p["analysis"].update(trim_start_s="x"), "plan.analysis.trim_start_s"),
        (lambda p: p["analysis"].update(trim_start_s=1e300), "trim_start_s"),
        (lambda p: p.update(impact=[]), "plan.impact"),
        (lambda p: p["impact"].update(unknown=1), "plan.impact.unknown"),
        (lambda p: p.update(sessions={}), "plan.sessions"),
        (lambda p: p["sessions"][0].update(server="../x"), "plan.sessions"),
        (lambda p: p["sessions"].append(p["sessions"][0] | {"session": "none"}), "sessions/none/session.json"),
    ],
)
def test_a_hostile_plan_is_named_with_its_key(
    master_zip: Path, tmp_path: Path, edit: Callable[[dict], object], key: str
) -> None:
    found = verify(
        tampered(master_zip, tmp_path / "a.zip", edit_json(PLAN, lambda c: edit(c["plan"])), fix_manifest=True)
    )
    assert not found.agrees
    assert key in str(found.failure) + str(found.differences), (found.failure, found.differences)


def test_a_table_of_too_many_rows_is_not_read(master_zip: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    rows = pa.table({"a": pa.array([1] * 1000).take(pa.array([0] * 10_000_000))})
    pq.write_table(rows, buffer, compression="zstd")
    assert len(buffer.getvalue()) < 200_000
    bad = tampered(master_zip, tmp_path / "a.zip", lambda m: m.update({POWER: buffer.getvalue()}), fix_manifest=True)
    done = CliRunner().invoke(app, ["verify", str(bad), "--max-memory-gb", "0.05"])
    assert "takes more than 0.05 GB of memory" in done.output


@pytest.mark.usefixtures("computed_once")
def test_names_in_a_manifest_cannot_write_to_the_terminal(master_zip: Path, tmp_path: Path) -> None:
    for key in ("experiment", "toolkit", "created_utc"):
        change = edit_json("manifest.json", lambda m, key=key: m.update({key: "\x1b[2J verified"}))
        with pytest.raises(InputError) as caught:
            verify(tampered(master_zip, tmp_path / "a.zip", change))
        assert str(caught.value).isprintable()
