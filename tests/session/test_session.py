"""A whole session on the stub server: its files agree with each other and with the server; failures leave logs only."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.session.run import SessionFiles, run_session
from inference_energy.acquire.session.settings import SessionSpec
from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.config.servers import AttachSettings
from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.io import file_sha256, read_json, read_table
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

Make = Callable[..., tuple[SessionSpec, SessionFiles]]


def left_of(pids_file: Path) -> list[int]:
    pids = [int(pid) for pid in pids_file.read_text().split()]
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_the_files_of_a_session_agree(make_session: Make, tmp_path: Path) -> None:
    spec, files = make_session(tokens_per_s=50, pids_file=tmp_path / "pids", workers=2)
    run_session(spec, files)
    times = read_table(files.output / "phases.parquet", phases.SCHEMA)
    assert times["phase"].tolist() == [
        *["launch", "loaded_idle", "window", "drain", "window", "drain"][:2],
        *["warmup", "drain", "window", "drain", "window", "drain", "stop", "post_idle"],
    ]
    assert (times["end_ns"] >= times["start_ns"]).all()
    assert (times["start_ns"].iloc[1:].to_numpy() >= times["end_ns"].iloc[:-1].to_numpy()).all()

    sent = read_table(files.output / "requests.parquet", requests.SCHEMA)
    assert set(sent["cell"]) == {"warmup", "low", "high"}
    assert (sent["status"] == "ok").all()
    assert len(sent[sent["cell"] == "low"]) == 20
    for window in ("low", "high"):
        span = times[(times["phase"] == "window") & (times["cell"] == window)].iloc[0]
        due_ns = sent[sent["cell"] == window]["scheduled_ns"]
        assert due_ns.between(span["start_ns"], span["end_ns"], inclusive="left").all()

    metrics = read_table(files.output / "server_metrics.parquet", server_metrics.SCHEMA)
    counted = metrics[metrics["name"] == "vllm:generation_tokens_total"]["value"]
    assert counted.iloc[-1] - counted.iloc[0] == sent["completion_tokens"].sum()
    counts = metrics[metrics["name"] == "vllm:generation_tokens_total"]
    assert counts["timestamp_ns"].is_monotonic_increasing
    for cell, asked in sent.groupby("cell"):
        own = times[times["cell"] == cell]
        before = counts[counts["timestamp_ns"] <= own["start_ns"].min()]["value"].iloc[-1]
        after = counts[counts["timestamp_ns"] >= own["end_ns"].max()]["value"].iloc[0]
        assert after - before == asked["completion_tokens"].sum(), "read right before and after, so exact"
        earlier_ns = times.loc[times["end_ns"] <= own["start_ns"].min(), "end_ns"].max()
        assert counts["timestamp_ns"].between(earlier_ns, own["start_ns"].min()).any(), "read between the phases"

    watts = read_table(files.output / "power.parquet", power.SCHEMA)
    assert watts["timestamp_ns"].iloc[0] < times["start_ns"].iloc[0]
    assert watts["timestamp_ns"].iloc[-1] > times["end_ns"].iloc[-1]
    assert watts["power_average_w"].dropna().between(5.0, 60.0).all()
    assert watts["timestamp_ns"].diff().median() == pytest.approx(0.1e9, rel=0.1)

    facts = read_json(files.output / "session.json")
    assert facts["files"][f"sessions/{facts['session']}/power.parquet"] == file_sha256(files.output / "power.parquet")
    assert facts["files"][f"servers/{facts['server']['name']}/model.json"] == file_sha256(files.model)
    assert facts["launch"]["ready_after_s"] > 0
    assert facts["stop"]["leftover_pids"] == []
    assert facts["windows"]["high"]["arrival"]["concurrency"] == 3
    client = facts["client"]
    assert len(client["workers"]) == 2
    assert client["cpu_s"] == pytest.approx(sum(worker["cpu_s"] for worker in client["workers"]))
    assert set(client["cells"]) == {"warmup", "low", "high"}
    late_s = (sent["sent_ns"] - sent["scheduled_ns"]).groupby(sent["worker"]).max() / 1e9
    assert [worker["lateness"]["max_s"] for worker in client["workers"]] == late_s.astype(float).tolist()
    assert set(sent["worker"]) == {0, 1}
    assert set(sent[sent["cell"] == "high"]["user"]) == {0, 1, 2}
    assert [source["grade"] for source in facts["power"]["sources"]] == ["modelled"]
    assert left_of(tmp_path / "pids") == []


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        ({"die_after_s": 0.1, "start_delay_s": 5}, "before it was ready"),
        ({"error_every": 1}, "requests failed"),
    ],
)
def test_a_failed_session_leaves_logs_and_no_results(
    make_session: Make, tmp_path: Path, stub: dict[str, float], message: str
) -> None:
    spec, files = make_session(pids_file=tmp_path / "pids", **stub)
    with pytest.raises(RunError, match=message):
        run_session(spec, files)
    assert not files.output.exists()
    assert (files.logs / "server.log").exists()
    assert (files.logs / "power.arrows").stat().st_size > 0
    assert (files.logs / "partial").exists() == ("error_every" in stub), "kept where there was a load"
    assert left_of(tmp_path / "pids") == []


def test_a_server_that_dies_ends_the_session_with_its_last_words_and_what_was_measured_is_kept(
    make_session: Make, tmp_path: Path
) -> None:
    spec, files = make_session(pids_file=tmp_path / "pids", crash_after_requests=25)
    with pytest.raises(RunError, match="the server ended in the middle of the run") as failed:
        run_session(spec, files)
    assert f"The last lines of {files.logs / 'server.log'}" in str(failed.value)
    partial = files.logs / "partial"
    (note,) = failed.value.__notes__
    assert note.startswith(f"What was measured until then is kept in {partial}: requests (")
    assert "power over" in note
    assert not files.output.exists()
    sent = read_table(partial / "requests.parquet", requests.SCHEMA)
    logged = merge_request_logs(files.logs / "load", tmp_path / "logged.parquet")
    assert len(sent) == logged.rows
    assert (sent["status"] == "ok").sum() >= 20, "the stub dies in the middle of the 25th; some may be beside it"
    assert set(sent.loc[sent["status"] != "ok", "error"].str.partition(":")[0]) <= {
        *("the server closed the connection before the answer was complete",),
        *("the server closed the connection without an answer", "cut off before its end"),
        "no connection to 127.0.0.1",
    }
    counts = read_table(partial / "server_metrics.parquet", server_metrics.SCHEMA)
    assert counts["timestamp_ns"].max() <= sent["end_ns"].max() + 5e9
    times = read_table(partial / "phases.parquet", phases.SCHEMA)
    assert times["phase"].tolist()[:4] == ["launch", "loaded_idle", "warmup", "drain"]
    watts = read_table(partial / "power.parquet", power.SCHEMA)
    assert watts["timestamp_ns"].min() < times["start_ns"].min()
    assert watts["timestamp_ns"].max() >= sent["end_ns"].max()
    figures = analyze_logs(partial / "power.parquet", partial / "requests.parquet", None, AnalysisConfig()).figures
    assert (figures["energy_total_j"].value or 0) > 0, "its energy is there to be computed"
    facts = read_json(partial / "session.json")
    assert facts["under_way"] == "window low"
    assert facts["failure"] == str(failed.value)
    assert left_of(tmp_path / "pids") == []


@pytest.mark.parametrize("stub", ["hang_after_s", "stall_after_s"])
def test_a_server_that_falls_silent_fails_the_session(make_session: Make, tmp_path: Path, stub: str) -> None:
    spec, files = make_session(pids_file=tmp_path / "pids", **{stub: 4.5})
    spec = replace(spec, client=spec.client.model_copy(update={"drain_s": 11.0, "request_timeout_s": 30.0}))
    with pytest.raises(RunError, match=r"the server fell silent in (warm-up|window \w+): for the last \d+ s") as failed:
        run_session(spec, files)
    assert str(files.logs / "server.log") in str(failed.value)
    assert not files.output.exists()
    assert "aborted" in failed.value.__notes__[0]
    assert left_of(tmp_path / "pids") == []


def test_what_an_earlier_failure_left_is_put_aside_by_the_next_run(make_session: Make) -> None:
    spec, files = make_session()
    left = files.logs / "partial" / "requests.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("old")
    with pytest.raises(RunError):
        run_session(
            replace(
                spec,
                server_settings=spec.server_settings.model_copy(
                    update={"variables": {"STUB_DIE_AFTER_S": "0.1", "STUB_START_DELAY_S": "5"}}
                ),
            ),
            files,
        )
    assert not left.exists()
    assert (files.logs / "partial.earlier" / "requests.parquet").read_text() == "old"


def test_an_attached_server_that_dies_ends_the_session_too(
    make_session: Make, stub_endpoint: Callable[..., str]
) -> None:
    spec, files = make_session()
    endpoint = stub_endpoint(tokens_per_s=50, crash_after_requests=12)
    attached = replace(spec, server_settings=AttachSettings(endpoint=endpoint, model=None, gpus="none"))
    with pytest.raises(RunError, match=r"the server, process \d+, ended in the middle of the run"):
        run_session(attached, files)
    assert not files.output.exists()
    assert (read_table(files.logs / "partial" / "requests.parquet", requests.SCHEMA)["status"] == "ok").any()


def test_without_a_power_source_nothing_starts(make_session: Make) -> None:
    spec, files = make_session()
    spec = replace(spec, power={"interval_s": 0.1, "sources": ["rapl"], "modelled": {"tdp_w": None, "idle_w": 0.0}})
    if os.access("/sys/class/powercap/intel-rapl:0/energy_uj", os.R_OK):
        spec = replace(spec, power={**spec.power, "sources": ["modelled"]})
    with pytest.raises(InputError, match=r"power\."):
        run_session(spec, files)
    assert not (files.logs / "server.log").exists()
    assert not files.output.exists()


def test_a_taken_port_is_refused_before_anything_starts(make_session: Make, stub_endpoint: Callable[..., str]) -> None:
    spec, files = make_session()
    port = int(stub_endpoint().rpartition(":")[2])
    spec = replace(spec, server_settings=spec.server_settings.model_copy(update={"port": port}))
    with pytest.raises(InputError, match=rf"servers\.stub\.port: {port}"):
        run_session(spec, files)
    assert not (files.logs / "power.arrows").exists()


def test_an_attached_server_is_measured_and_left_running(make_session: Make, stub_endpoint: Callable[..., str]) -> None:
    spec, files = make_session()
    endpoint = stub_endpoint(tokens_per_s=50)
    attached = replace(spec, server_settings=AttachSettings(endpoint=endpoint, model=None, gpus="none"))
    run_session(attached, files)
    facts = read_json(files.output / "session.json")
    assert facts["launch"] is None
    assert "already running" in facts["missing"]["cold_idle"]
    assert facts["model"] == "stub"
    times = read_table(files.output / "phases.parquet", phases.SCHEMA)
    assert set(times["phase"]) == {"loaded_idle", "warmup", "window", "drain"}
    import urllib.request

    with urllib.request.urlopen(f"{endpoint}/health", timeout=5) as answer:
        assert answer.status == 200


def test_an_endpoint_that_does_not_answer_is_named(make_session: Make) -> None:
    spec, files = make_session()
    settings = AttachSettings(endpoint="http://127.0.0.1:9", model=None, gpus="none")
    with pytest.raises(InputError, match=r"servers\.stub\.endpoint"):
        run_session(replace(spec, server_settings=settings), files)


def test_sigterm_stops_the_server_and_says_so(make_session: Make, tmp_path: Path) -> None:
    spec, files = make_session(pids_file=tmp_path / "pids")
    program = (
        "import pickle, sys\n"
        "from inference_energy.acquire.session.run import run_session\n"
        "spec, files = pickle.loads(sys.stdin.buffer.read())\n"
        "run_session(spec, files)\n"
    )
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    process.stdin.write(pickle.dumps((spec, files)))
    process.stdin.close()
    deadline_s = time.monotonic() + 30
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    time.sleep(1.5)
    process.terminate()
    assert process.wait(timeout=30) != 0
    assert b"interrupted by SIGTERM" in process.stderr.read()
    assert left_of(tmp_path / "pids") == []
    assert not files.output.exists()
