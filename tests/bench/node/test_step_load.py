"""The virtual step load: what it says, and what the node's sensors then see."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from inference_energy.bench.live.cli_wrapper import bench_environment
from inference_energy.bench.live.node import VARIABLE, NodeFolder
from inference_energy.bench.live.power_trace_file import TraceReader

pytestmark = pytest.mark.slow

Make = Callable[..., NodeFolder]
COMMAND = [sys.executable, "-m", "inference_energy.bench.live.step_load", "--gpu", "GPU-x", "--steps", "0.3,0.6,0.4"]


def test_the_wrapper_names_it(make: Make) -> None:
    assert bench_environment(make(), {})["INFERENCE_ENERGY_STEP_LOAD"].split() == COMMAND[:3]


def test_the_node_draws_its_limit_exactly_while_the_load_works(make: Make) -> None:
    made = make()
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=bench_environment(made, os.environ),
        text=True,
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        events = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    assert [event["event"] for event in events] == ["ready", "edge", "edge", "done"]
    assert "simulated" in events[0]["what"]
    busy_ns, rest_ns = (event["time_ns"] for event in events[1:3])
    assert (rest_ns - busy_ns) / 1e9 == pytest.approx(0.6)
    reader = TraceReader(made.traces, made.node, made.origin_ns)
    try:
        reader.refresh()
        around = [busy_ns - 1000, busy_ns, rest_ns - 1000, rest_ns]
        power_w = reader.gpu.power_w(np.array(around, dtype=np.int64))
        assert reader.living_pid() is None
    finally:
        reader.close()
    device = made.node.device
    assert power_w[1] == power_w[2] == device.power_limit_w
    assert power_w[0] == pytest.approx(device.loaded_idle_w, abs=5)
    assert power_w[3] == pytest.approx(device.loaded_idle_w, abs=5)


def test_it_ends_with_its_owner(make: Make) -> None:
    done = subprocess.run(
        [*COMMAND[:-1], "0.3,600,0.4"],
        input="go\n",
        env=bench_environment(make(), os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "done" not in done.stdout


def test_without_a_node_there_is_nothing_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "no virtual node here" in json.loads(done.stdout)["message"]
