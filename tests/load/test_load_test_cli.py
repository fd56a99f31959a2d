"""`load-test` as it is typed, against a stub server, and its log through `analyze`."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

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
