"""The modelled source: the formula, and the CPU time of a process tree that grows and dies."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.power.sources.cputime import CpuTime, MachineCpuTime, StatusFilePid, TreeCpuTime
from inference_energy.acquire.power.sources.modelled import ModelledSource, linear_power_w

BUSY = "while True: pass"
IDLE = "import time; time.sleep(600)"
# A parent at rest whose child computes for half a second and ends.
FAMILY = f"""
import subprocess, sys, time
code = "import time; end = time.process_time() + 0.5\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", code]); print("child ended", flush=True); {IDLE}
"""


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Scripted(CpuTime):
    what = "script"

    def __init__(self, *seconds: float) -> None:
        self._seconds = iter(seconds)

    def seconds(self) -> float:
        return next(self._seconds)


def wait_until_used(tree: TreeCpuTime, seconds: float) -> float:
    until_s = time.monotonic() + 30
    while (used := tree.seconds()) < seconds and time.monotonic() < until_s:
        time.sleep(0.02)
    return used


def test_power_runs_from_idle_to_tdp() -> None:
    assert linear_power_w(0.0, 20, 100) == 20
    assert linear_power_w(0.25, 20, 100) == 40
    assert linear_power_w(1.0, 20, 100) == 100


@given(st.lists(st.floats(0, 50), min_size=2, max_size=30))
def test_power_stays_between_idle_and_tdp_and_the_energy_is_its_integral(steps: list[float]) -> None:
    used = [sum(steps[: index + 1]) for index in range(len(steps))]
    (channel,) = ModelledSource(Scripted(*used), tdp_w=100, idle_w=20, cpus=4).channels()
    readings = [channel.read() for _ in used]
    assert readings[0].power_average_w is None
    assert readings[0].energy_counter_j == 0
    energy_j = 0.0
    for before, after in pairwise(readings):
        assert after.power_average_w is not None
        assert 20 <= after.power_average_w <= 100 + 1e-9
        energy_j += after.power_average_w * (after.timestamp_ns - before.timestamp_ns) / 1e9
    assert readings[-1].energy_counter_j == pytest.approx(energy_j)


def test_what_does_not_fit_into_one_interval_is_charged_to_the_next() -> None:
    (channel,) = ModelledSource(Scripted(0.0, 1e6, 1e6), tdp_w=100, idle_w=20, cpus=1).channels()
    uses = [channel.read().utilization for _ in range(3)]
    assert uses == [None, pytest.approx(1.0), pytest.approx(1.0)]


@pytest.mark.parametrize(
    ("tdp_w", "idle_w", "key"),
    [
        (None, 10.0, "power.modelled.tdp_w"),
        (65.0, -1.0, "power.modelled.idle_w"),
        (65.0, 80.0, "power.modelled.idle_w"),
    ],
)
def test_without_its_powers_it_is_unavailable_and_names_the_key(tdp_w: float | None, idle_w: float, key: str) -> None:
    state = ModelledSource(MachineCpuTime(), tdp_w, idle_w).probe()
    assert not state.available
    assert key in state.reason


def test_it_says_modelled_wherever_it_describes_itself() -> None:
    source = ModelledSource(MachineCpuTime(), 65, 10)
    (channel,) = source.channels()
    assert "modelled" in source.probe().reason
    assert (source.grade, channel.grade, channel.domain) == ("modelled", "modelled", "cpu")
    assert source.describe()["tdp_w"] == 65


def test_a_busy_process_uses_more_than_an_idle_one() -> None:
    with running(BUSY) as busy, running(IDLE) as idle:
        trees = [TreeCpuTime(lambda pid=process.pid: pid) for process in (busy, idle)]  # type: ignore[misc]
        assert [tree.seconds() for tree in trees] == [0.0, 0.0], "what ran before is not charged"
        busy_s = wait_until_used(trees[0], 0.3)
        assert busy_s >= 0.3
        assert trees[1].seconds() < busy_s / 2


def test_the_time_of_an_ended_child_stays_in_the_total() -> None:
    with running(FAMILY) as process:
        tree = TreeCpuTime(lambda: process.pid, rescan_s=0.0)
        tree.seconds()
        used = [wait_until_used(tree, 0.4)]
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "child ended"
        used += [tree.seconds() for _ in range(5)]
    used.append(tree.seconds())
    assert used[0] >= 0.4
    assert used == sorted(used)


def test_the_whole_machine_counts_this_process_too() -> None:
    clock = MachineCpuTime()
    before_s, end_s = clock.seconds(), time.process_time() + 0.2
    while time.process_time() < end_s:
        pass
    assert clock.seconds() - before_s >= 0.1


@pytest.mark.parametrize("content", [None, "", "not json", "[]", "{}", '{"server_pid": null}', '{"server_pid": "x"}'])
def test_a_status_file_without_a_pid_means_no_server(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_text(content)
    pid = StatusFilePid(path)
    assert pid() is None
    tree = TreeCpuTime(pid)
    assert tree.seconds() == tree.seconds() == 0.0


def test_a_server_is_taken_up_when_its_status_file_appears_and_dropped_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    tree = TreeCpuTime(StatusFilePid(path))
    assert tree.seconds() == 0.0
    with running(BUSY) as process:
        path.write_text(json.dumps({"state": "running", "server_pid": process.pid}))
        assert wait_until_used(tree, 0.1) >= 0.1
    ended_s = tree.seconds()
    assert ended_s >= 0.1
    assert tree.seconds() == ended_s
    with running(BUSY) as second:
        (tmp_path / "new").write_text(json.dumps({"server_pid": second.pid}))
        (tmp_path / "new").replace(path)
        assert wait_until_used(tree, ended_s + 0.1) >= ended_s + 0.1
