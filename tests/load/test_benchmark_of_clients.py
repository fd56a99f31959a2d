"""The benchmark of load clients runs with our own client and says what it must; how fast is nobody's concern here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_our_client_has_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/load_clients.py", "--seconds", "1", "--clients", "plain"]
    command += ["--parts", "throughput", "arrivals", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    burst, timed = found["throughput"]["ours, plain"], found["arrivals"]["ours, plain"]
    assert burst["failed"] == timed["failed"] == 0
    assert burst["tokens_per_cpu_s"] > burst["requests"] > 8  # 128 tokens a request, and less than a core
    assert 100 < timed["requests"] < 300
    assert 0 < timed["ttft_error_ms"]["p50"] < timed["ttft_error_ms"]["max"]
    assert 0 < timed["own_lateness_ms"]["p50"] < timed["send_lag_ms"]["p50"]
    assert timed["itl_error_ms"]["p50"] >= 0
    assert timed["cpu_ms_per_request"] > 0
    assert timed["processes"] == 2
    assert 0 < timed["pss_mb"] < timed["rss_mb"]
