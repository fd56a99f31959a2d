"""`load-test` as it is typed, against a stub server, and its log through `analyze`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.contracts.documents.by_hand import LoadTestDocument
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.figure import json_values

pytestmark = pytest.mark.slow

Start = Callable[..., str]
PROGRAM = [sys.executable, "-c", "from inference_energy.cli.main import main; main()"]


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("one two three\nfour five\n")
    return path


def load_test(endpoint: str, prompts: Path, output: Path, model: str = "stub") -> subprocess.CompletedProcess[str]:
    return command(
        *("load-test", "--endpoint", endpoint, "--model", model, "--prompts", prompts, "--duration", 2),
        *("--concurrency", 3, "--max-tokens", 5, "--output", output),
    )


def open_loop(endpoint: str, output: Path, *words: object) -> tuple[object, ...]:
    """20 requests/s of ten synthetic words, for two seconds."""
    shared = ("load-test", "--endpoint", endpoint, "--model", "stub", "--output", output, "--prompt-length", 10)
    return (*shared, "--qps", 20, "--duration", 2, *words)


def summary(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_log_has_the_seeds_columns_and_analyze_takes_it(
    stub_endpoint: Start, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "logs" / "requests.csv"
    before = time.time()
    done = load_test(stub_endpoint(tokens_per_s=50), prompts, output)
    assert done.returncode == 0, done.stderr
    log = pd.read_csv(output)
    assert log.columns.tolist()[:4] == ["timestamp", "prompt_tokens", "completion_tokens", "latency"]
    assert (log["completion_tokens"] == 5).all()
    assert log["timestamp"].between(before, time.time()).all()
    assert log["latency"].between(0.05, 3).all()

    begin, end = log["timestamp"].min() - 1, (log["timestamp"] + log["latency"]).max() + 1
    power = tmp_path / "power.csv"
    times = [begin + index / 10 for index in range(int((end - begin) * 10) + 2)]
    pd.DataFrame({"time": times, "power_W": 100.0, "gpu_util": 0, "mem_used_bytes": 0}).to_csv(power, index=False)
    summary = tmp_path / "summary.json"
    found = command("analyze", "--power-log", power, "--requests-log", output, "--idle-power", 40, "--output", summary)
    assert found.returncode == 0, found.stderr
    figures = json.loads(summary.read_text())["figures"]
    window_s = (log["timestamp"] + log["latency"]).max() - log["timestamp"].min()
    assert figures["energy_active_j"]["value"] == pytest.approx(60 * window_s, rel=1e-3)
    assert figures["output_tokens"]["value"] == log["completion_tokens"].sum()


def test_parquet_by_the_ending(stub_endpoint: Start, prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "requests.parquet"
    assert load_test(stub_endpoint(tokens_per_s=50), prompts, output).returncode == 0
    assert pd.read_parquet(output)["status"].eq("ok").all()


def test_wrong_use_ends_with_2_and_says_what(stub_endpoint: Start, prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "requests.csv"
    endpoint = stub_endpoint()
    for done, message in (
        (load_test("http://127.0.0.1:9", prompts, output), "--endpoint"),
        (load_test(endpoint, prompts, output, model="other"), "stub"),
        (load_test(endpoint, tmp_path / "absent.txt", output), "--prompts"),
        (load_test(endpoint, prompts, tmp_path / "requests.xlsx"), ".csv or .parquet"),
        (command(*open_loop(endpoint, output), "--max-tokens", 5, "--concurrency", 2), "--concurrency and --qps"),
        (command("load-test", "--endpoint", endpoint), "Missing option"),
    ):
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not output.exists()


def test_all_requests_failing_ends_with_1(stub_endpoint: Start, prompts: Path, tmp_path: Path) -> None:
    done = load_test(stub_endpoint(error_every=1), prompts, tmp_path / "requests.csv")
    assert done.returncode == 1
    assert "requests failed" in done.stderr


def test_an_open_loop_sums_up_and_keeps_its_files(stub_endpoint: Start, tmp_path: Path) -> None:
    output, told = tmp_path / "logs" / "run.parquet", tmp_path / "summary.json"
    done = command(
        *open_loop(stub_endpoint(tokens_per_s=100), output, "--warmup", 1, "--max-tokens", 8, "--ignore-eos"),
        *("--limits", "ttft=5,tpot=0.5", "--chunks", "--json", told, "--save-schedule", tmp_path / "schedule.parquet"),
    )
    assert done.returncode == 0, done.stderr
    found, log = summary(told), pd.read_parquet(output)
    assert json_values(read_document(told, LoadTestDocument)) == found
    schedule = pd.read_parquet(tmp_path / "schedule.parquet")
    planned = schedule[schedule["cell"] == "load-test"]
    assert set(log["cell"]) == {"load-test"}
    assert sorted(log["request_id"]) == sorted(planned["request_id"])
    warmup = pd.read_parquet(output.with_name("run-warmup.parquet"))
    assert len(warmup) == len(schedule) - len(planned) > 0
    assert found["requests"] == {"sent": len(planned), "ok": len(planned), "failed": 0, "aborted": 0, "skipped": 0}
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert figures["offered_requests_per_s"] == len(planned) / 2
    assert figures["goodput_share"] == 1
    assert figures["ttft_p50_s"] == pytest.approx(((log["first_token_ns"] - log["sent_ns"]) / 1e9).median())
    assert found["samples"]["e2e"] == len(planned)
    assert found["lateness_s"]["p50"] < 0.1
    tokens = found["counters"]["tokens"]
    assert tokens["generated"]["client"] == tokens["generated"]["server"] == 8 * len(schedule)
    assert tokens["prompt"]["difference"] == 0
    assert found["client"]["cpu_s"] > 0
    for path in found["files"].values():
        assert Path(path).is_file()
    assert set(found["files"]) == {"requests", "warm-up", "chunks", "schedule", "prompts"}
    assert "agrees exactly" in done.stdout
    assert str(output) in done.stdout.replace("\n", "").replace(" ", "")


def test_a_kept_schedule_sends_the_same_again(stub_endpoint: Start, tmp_path: Path) -> None:
    endpoint, kept = stub_endpoint(tokens_per_s=200), tmp_path / "mine.parquet"
    first = command(*open_loop(endpoint, tmp_path / "a.parquet", "--max-tokens", 3, "--save-schedule", kept))
    assert first.returncode == 0, first.stderr
    shared = ("load-test", "--endpoint", endpoint, "--model", "stub", "--duration", 2, "--schedule", kept)
    again = command(*shared, "--output", tmp_path / "b.parquet", "--save-schedule", tmp_path / "other.parquet")
    assert again.returncode == 0, again.stderr
    for one, other in (
        (kept, tmp_path / "other.parquet"),
        (tmp_path / "mine-prompts.parquet", tmp_path / "other-prompts.parquet"),
    ):
        assert pd.read_parquet(one).equals(pd.read_parquet(other))
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == len(pd.read_parquet(tmp_path / "b.parquet"))


def test_a_plan_needs_no_server_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = open_loop("http://127.0.0.1:9", tmp_path / name / "r.csv", "--seed", seed, "--vocabulary", 32000)
        done = command(*words, "--plan-only")
        assert done.returncode == 0, done.stderr
        assert "requests" in done.stdout
        assert not (tmp_path / name / "r.csv").exists()
    for file in ("r-schedule.parquet", "r-prompts.parquet"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c


def test_an_interrupted_load_is_summed_up_and_leaves_no_process(stub_endpoint: Start, tmp_path: Path) -> None:
    output, told = tmp_path / "run.csv", tmp_path / "summary.json"
    words = open_loop(stub_endpoint(tokens_per_s=100), output, "--max-tokens", 5, "--json", told, "--workers", 2)
    arguments = [*PROGRAM, *map(str, words), "--duration", "60"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        while "begins" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(2)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert len(gone) == 2
    assert not alive
    found, log = summary(told), pd.read_csv(output)
    assert found["interrupted"]
    assert found["requests"]["ok"] == (log["status"] == "ok").sum() > 5
    assert found["requests"]["sent"] == len(log)
    assert 1 < found["sent_s"] < 30
    assert found["client"]["cpu_s"] > 0


def test_a_load_process_that_dies_ends_with_1_and_keeps_the_log(stub_endpoint: Start, tmp_path: Path) -> None:
    output = tmp_path / "run.parquet"
    arguments = [*PROGRAM, *map(str, open_loop(stub_endpoint(tokens_per_s=100), output, "--max-tokens", 5))]
    with subprocess.Popen([*arguments, "--duration", "60"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "begins" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(2)
        (worker,) = psutil.Process(process.pid).children(recursive=True)
        worker.kill()
        _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the load broke off: the load process died" in words
    assert (pd.read_parquet(output)["status"] == "ok").sum() > 5


def test_a_server_that_ends_ends_the_load_and_nothing_is_lost(stub_endpoint: Start, tmp_path: Path) -> None:
    output, told = tmp_path / "run.parquet", tmp_path / "summary.json"
    endpoint = stub_endpoint(tokens_per_s=100, crash_after_requests=15)
    power = ("--power", "--power-source", "modelled", "--tdp-w", 60)
    begun_s = time.monotonic()
    done = command(*open_loop(endpoint, output, "--max-tokens", 5, "--json", told, *power), "--duration", "90")
    assert time.monotonic() - begun_s < 80
    assert done.returncode == 1
    assert "has ended; what was sent so far is kept" in done.stderr
    assert "the load broke off: the server, process" in done.stderr
    found, log = summary(told), pd.read_parquet(output)
    assert found["requests"]["ok"] == (log["status"] == "ok").sum() >= 10
    assert found["requests"]["failed"] == sum(one["count"] for one in found["errors"]) > 0
    assert found["requests"]["sent"] == len(log)
    assert found["counters"]["why"].startswith("no /metrics at")
    assert found["energy"]["figures"]["energy_total_j"]["value"] > 0
    assert pd.read_parquet(tmp_path / "run-power.parquet")["timestamp_ns"].max() > log["end_ns"].max()


def test_places_that_cannot_be_written_are_refused_before_anything_is_sent(
    stub_endpoint: Start, prompts: Path, tmp_path: Path
) -> None:
    endpoint = stub_endpoint()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.csv").mkdir()
    for output, more in (
        (tmp_path / "file" / "requests.csv", ()),
        (tmp_path / "folder.csv", ()),
        (tmp_path / "requests.csv", ("--json", tmp_path / "file" / "summary.json")),
        (tmp_path / "requests.csv", ("--save-schedule", tmp_path / "file" / "schedule.parquet")),
    ):
        words = ("--model", "stub", "--prompts", prompts, "--duration", 60)
        done = command("load-test", "--endpoint", endpoint, "--output", output, *words, *more)
        assert done.returncode == 2, done.stderr
        assert "name" in done.stderr
        assert str(tmp_path) in done.stderr
    assert not (tmp_path / "requests.csv").exists()


def test_if_the_summing_up_fails_the_logs_are_left(
    stub_endpoint: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    output = tmp_path / "run.parquet"
    arguments = [*PROGRAM, *map(str, open_loop(stub_endpoint(tokens_per_s=100), output, "--max-tokens", 5))]
    with subprocess.Popen([*arguments, "--duration", "4"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "begins" not in process.stderr.readline():
            assert process.poll() is None
        output.mkdir()  # in the way when the log is to be delivered
        _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    (kept,) = (tmp_path / "temporary").glob("load-test-*")
    assert f"The logs of the load are kept in {kept}." in words
    assert merge_request_logs(kept / "load", tmp_path / "merged.parquet").rows > 5


def test_while_load_is_sent_all_processes_together_are_small(stub_endpoint: Start, tmp_path: Path) -> None:
    """Their own memory: how much of Arrow's library file is mapped (30 to 60 MB) is the page cache's affair."""
    words = open_loop(stub_endpoint(tokens_per_s=100), tmp_path / "run.parquet", "--max-tokens", 5)
    most = 0
    arguments = [*PROGRAM, *map(str, words), "--duration", "60"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        while "begins" not in process.stderr.readline():
            assert process.poll() is None
        root = psutil.Process(process.pid)
        for _ in range(15):
            family = [root, *root.children(recursive=True)]
            assert len(family) == 2
            memory = [one.memory_info() for one in family]
            most = max(most, sum(one.rss - one.shared for one in memory))
            assert "numpy" not in " ".join(row.path for one in family for row in one.memory_maps())
            time.sleep(0.1)
        process.terminate()
        process.communicate(timeout=60)
    assert 20e6 < most < 55 * 2**20


def test_power_beside_the_load(stub_endpoint: Start, tmp_path: Path) -> None:
    output, told = tmp_path / "requests.csv", tmp_path / "summary.json"
    done = command(
        *open_loop(stub_endpoint(tokens_per_s=100), output, "--max-tokens", 5, "--json", told),
        *("--power", "--power-source", "modelled", "--tdp-w", 60, "--idle-w", 20),
    )
    assert done.returncode == 0, done.stderr
    assert json_values(read_document(told, LoadTestDocument)) == summary(told)
    energy = summary(told)["energy"]
    assert energy["why"] is None
    assert energy["figures"]["power_mean_w"]["grade"] == "modelled"
    assert 15 < energy["figures"]["power_mean_w"]["value"] < 100
    assert set(pd.read_parquet(tmp_path / "power.parquet")["domain"]) == {"cpu"}
    assert "modelled" in done.stdout
