"""The trace file: what one process writes and others read, and what a node draws when nobody writes."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import H100
from inference_energy.bench.live import power_trace_file
from inference_energy.bench.live.node import NodeFolder, make_node, open_node
from inference_energy.bench.live.power_trace_file import TraceReader, TraceWriter, alive
from inference_energy.bench.live.timeline import Timeline
from inference_energy.bench.truth.ledger import GPU_IDLE, POWER_CAP
from inference_energy.bench.truth.power_trace import TRACE_DTYPE, Steps, TruePower
from inference_energy.bench.truth.step import Thermal
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

Make = Callable[..., NodeFolder]
S = 1_000_000_000
COLD_W, HOST_IDLE_W = H100.cold_idle_w, Node().engine.host_idle_w
REST_C = H100.ambient_c + H100.k_per_w * H100.cold_idle_w

WRITER = """
import os, sys, time
from pathlib import Path
from inference_energy.bench.live.power_trace_file import TraceWriter
writer = TraceWriter(Path(sys.argv[1]), os.getpid())
start_ns = time.monotonic_ns()
for i in range(2000):
    writer.append(start_ns + i, 300.0, 150.0, 60.0, 0, True)
if sys.argv[2] == "orderly":
    writer.close()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def server(made: NodeFolder, ending: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that wrote a life, and lives until its standard input closes."""
    command = [sys.executable, "-c", WRITER, str(made.traces), ending]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def reader_of(made: NodeFolder) -> TraceReader:
    return TraceReader(made.traces, made.node, made.origin_ns)


def looked(made: NodeFolder) -> TraceReader:
    reader = reader_of(made)
    reader.refresh()
    return reader


def energy_j(power: TruePower, start_ns: int, end_ns: int) -> float:
    return float(np.diff(power.energy_j(np.array([start_ns, end_ns])))[0])


def power_w(power: TruePower, time_ns: int) -> float:
    return float(power.power_w(np.array([time_ns]))[0])


def numeric_j(power: TruePower, start_ns: int, end_ns: int) -> float:
    """The integral of power by Simpson's rule, for stretches without a jump."""
    times_ns = np.linspace(start_ns, end_ns, 2001).round().astype(np.int64)
    values = power.power_w(times_ns)
    h_s = (end_ns - start_ns) / 2000 / 1e9
    return float(h_s / 3 * (values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum()))


def test_before_the_first_life_all_is_cold(make: Make) -> None:
    made = make()
    reader = looked(made)
    later_ns = made.origin_ns + 10 * S
    assert energy_j(reader.gpu, made.origin_ns, later_ns) == pytest.approx(10 * COLD_W)
    assert energy_j(reader.host, made.origin_ns - 5 * S, later_ns) == pytest.approx(15 * HOST_IDLE_W)
    assert power_w(reader.gpu, made.origin_ns - S) == COLD_W
    assert reader.temperature_c(later_ns) == pytest.approx(REST_C)
    assert reader.events(later_ns) == GPU_IDLE
    assert reader.living_pid() is None


def test_during_a_life_the_rows_hold_and_the_newest_goes_on(make: Make) -> None:
    made = make()
    reader, writer = reader_of(made), TraceWriter(made.traces, os.getpid())
    t = made.origin_ns + 10 * S
    writer.append(t, 500.0, 150.0, 50.0, POWER_CAP, True)
    writer.append(t + S, 200.0, 100.0, 55.0, 0, False)
    reader.refresh()
    assert energy_j(reader.gpu, made.origin_ns, t + 3 * S) == pytest.approx(10 * COLD_W + 500 + 2 * 200)
    assert energy_j(reader.host, t, t + 3 * S) == pytest.approx(150 + 2 * 100)
    assert [power_w(reader.gpu, t + at) for at in (-1, 0, S - 1, S)] == [COLD_W, 500.0, 500.0, 200.0]
    assert (reader.events(t), reader.events(t + S)) == (POWER_CAP, 0)
    assert reader.temperature_c(t + 2 * S) == 55.0
    assert reader.busy_share(t - S, t + S) == pytest.approx(0.5)
    assert reader.busy_share(t + S // 2, t + S // 2 + 10) == 1.0
    # A row of the future changes nothing until then.
    writer.append(t + 5 * S, 600.0, 150.0, 60.0, 0, True)
    before_j = energy_j(reader.gpu, t, t + 4 * S)
    reader.refresh()
    assert energy_j(reader.gpu, t, t + 4 * S) == before_j
    assert power_w(reader.gpu, t + 5 * S) == 600.0


def test_an_orderly_end_cools_by_the_thermal_law(make: Make) -> None:
    made = make()
    reader, writer = reader_of(made), TraceWriter(made.traces, os.getpid())
    writer.append(made.origin_ns, 600.0, 150.0, 63.0, 0, True)
    writer.close()
    writer.close()
    reader.refresh()
    end_ns = int(np.fromfile(made.traces / f"{os.getpid()}.trace", TRACE_DTYPE)["start_ns"][-1])
    heat_w = H100.leakage_w_per_k * (63.0 - REST_C)
    assert power_w(reader.gpu, end_ns) == pytest.approx(COLD_W + heat_w)
    assert power_w(reader.host, end_ns) == HOST_IDLE_W
    assert energy_j(reader.gpu, made.origin_ns, end_ns) == pytest.approx(600 * (end_ns - made.origin_ns) / S)
    # The step-by-step law of truth/thermal.py, in pieces of 10 ms.
    thermal = Thermal(H100)
    thermal.temperature_c = 63.0
    stepped_j = 0.0
    for _ in range(4000):
        stepped_j += 0.01 * (COLD_W + thermal.leakage_w)
        thermal.advance(0.01, COLD_W + thermal.leakage_w)
    assert energy_j(reader.gpu, end_ns, end_ns + 40 * S) == pytest.approx(stepped_j, rel=1e-4)
    assert reader.temperature_c(end_ns + 40 * S) == pytest.approx(thermal.temperature_c, abs=0.01)
    assert energy_j(reader.gpu, end_ns + 3 * S, end_ns + 60 * S) == pytest.approx(
        numeric_j(reader.gpu, end_ns + 3 * S, end_ns + 60 * S), rel=1e-9
    )
    assert reader.living_pid() is None


def test_a_writer_that_said_nothing_leaves_no_life(make: Make) -> None:
    made = make()
    TraceWriter(made.traces, os.getpid()).close()
    reader = looked(made)
    assert power_w(reader.gpu, time.monotonic_ns()) == COLD_W
    assert (made.traces / f"{os.getpid()}.trace").stat().st_size == 0


def test_another_process_is_followed_and_its_end_is_seen(make: Make) -> None:
    made = make()
    reader = looked(made)
    with server(made, "open") as process:
        reader.refresh()
        assert reader.living_pid() == process.pid
        assert power_w(reader.gpu, time.monotonic_ns()) == 300.0
    with server(made, "orderly") as process:
        reader.refresh()
        assert reader.living_pid() is None, "it lives, but says that it ended"
        assert power_w(reader.gpu, time.monotonic_ns()) < COLD_W + 20


def test_a_killed_server_ends_some_time_after_its_last_row_at_the_same_moment_for_every_reader(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power_trace_file, "SILENT_S", 1.0)
    made = make()
    early = reader_of(made)
    with server(made, "open") as process:
        early.refresh()
        process.send_signal(signal.SIGKILL)
        deadline_s = time.monotonic() + 20
        while alive(process.pid, time.monotonic_ns()):  # a zombie, for nobody has waited for it
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert early.living_pid() is None
    last_ns = int(np.fromfile(made.traces / f"{process.pid}.trace", TRACE_DTYPE)["start_ns"][-1])
    while time.monotonic_ns() < last_ns + 1_100_000_000:
        time.sleep(0.01)
    early.refresh()
    late = looked(made)
    for reader in (early, late):
        assert power_w(reader.gpu, last_ns + 999_999_999) == 300.0
        assert power_w(reader.gpu, last_ns + 1_000_000_001) == pytest.approx(
            COLD_W + H100.leakage_w_per_k * (60.0 - REST_C)
        )


def test_what_a_silent_server_was_seen_to_draw_is_never_taken_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_trace_file, "SILENT_S", 0.2)
    made = make()
    reader = reader_of(made)
    with server(made, "open"):
        time.sleep(0.4)
        seen_ns = time.monotonic_ns()
        reader.refresh()
        before_j = energy_j(reader.gpu, made.origin_ns, seen_ns)
    reader.refresh()
    assert reader.living_pid() is None
    assert energy_j(reader.gpu, made.origin_ns, seen_ns) == pytest.approx(before_j, abs=1e-9)
    assert power_w(reader.gpu, time.monotonic_ns()) < 300


def test_a_pid_that_another_process_has_now_is_no_server() -> None:
    assert alive(os.getpid(), time.monotonic_ns())
    assert not alive(os.getpid(), 0), "it did not run when the machine started"


def test_a_second_life_follows_the_first(make: Make) -> None:
    made = make()
    reader = reader_of(made)
    first, t = TraceWriter(made.traces, os.getpid()), time.monotonic_ns()
    first.append(t, 400.0, 150.0, 50.0, 0, True)
    reader.refresh()
    first.close()
    second = TraceWriter(made.traces, os.getpid())
    second.append(time.monotonic_ns(), 333.0, 150.0, 40.0, 0, True)
    reader.refresh()
    assert reader.living_pid() == os.getpid()
    assert power_w(reader.gpu, time.monotonic_ns()) == 333.0
    assert energy_j(looked(made).gpu, t, t + 100 * S) == energy_j(reader.gpu, t, t + 100 * S)


def test_the_late_end_of_an_older_server_does_not_end_the_newer(make: Make) -> None:
    made = make()
    reader = reader_of(made)
    with server(made, "open") as process:
        reader.refresh()
        mine = TraceWriter(made.traces, os.getpid())
        mine.append(time.monotonic_ns(), 444.0, 150.0, 50.0, 0, True)
        reader.refresh()
        ending = TraceWriter(made.traces, process.pid)
        ending._temperature_c = 50.0
        ending.close()
        reader.refresh()
    assert reader.living_pid() == os.getpid()
    assert power_w(reader.gpu, time.monotonic_ns()) == 444.0


def test_half_a_row_waits_for_its_other_half(make: Make) -> None:
    made = make()
    row = np.array([(made.origin_ns + S, 250.0, 120.0, 50.0, 0, 1)], TRACE_DTYPE).tobytes()
    path = made.traces / f"{os.getpid()}.trace"
    reader = reader_of(made)
    path.write_bytes(row[:20])
    reader.refresh()
    assert power_w(reader.gpu, made.origin_ns + 2 * S) == COLD_W
    with path.open("ab") as file:
        file.write(row[20:] + row[:5])
    reader.refresh()
    assert power_w(reader.gpu, made.origin_ns + 2 * S) == 250.0


@given(
    lengths_ms=st.lists(st.integers(0, 500), min_size=1, max_size=60),
    levels_w=st.lists(st.floats(0, 700), min_size=60, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
@settings(max_examples=60)
def test_energy_is_the_exact_integral_however_the_rows_arrive(
    lengths_ms: list[int], levels_w: list[float], cuts: list[int]
) -> None:
    count = len(lengths_ms)
    trace = np.zeros(count, TRACE_DTYPE)
    trace["start_ns"] = S + np.cumsum([0, *lengths_ms[:-1]]) * 1_000_000
    trace["gpu_w"] = levels_w[:count]
    trace["host_w"] = levels_w[-count:]
    timeline = Timeline(H100, HOST_IDLE_W, 0)
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    for first, last in itertools.pairwise(edges):
        if last > first:
            timeline.extend(trace[first:last])
    times_ns = np.linspace(S, int(trace["start_ns"][-1]) + S, 50).astype(np.int64)
    for mine, column in ((timeline.gpu_energy_j, "gpu_w"), (timeline.host_energy_j, "host_w")):
        exact_j = Steps(trace["start_ns"], trace[column]).energy_j(times_ns)
        assert np.allclose(mine(times_ns) - mine(times_ns[:1]), exact_j, rtol=1e-12, atol=1e-9)


def test_a_node_begins_once_and_can_be_opened(make: Make) -> None:
    made = make(seed=7, tensor_parallel=2)
    again = open_node(made.folder)
    assert again == made
    assert again.traces.is_dir() and again.truth.is_dir()
    with pytest.raises(InputError, match="not empty"):
        make_node(made.folder, Node())
    (made.folder / "origin.json").unlink()
    with pytest.raises(InputError, match=r"origin\.json"):
        open_node(made.folder)
    with pytest.raises(InputError, match=r"bench: gpu: 'h1'"):
        make_node(made.folder.parent / "other", Node(gpu="h1"))
    assert not (made.folder.parent / "other").exists()
