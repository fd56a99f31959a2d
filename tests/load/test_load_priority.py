"""A load process's place before others, and how many connections it may hold."""

import os
import platform
import subprocess
import sys

import pytest

from inference_energy.acquire.load import worker_runtime

ALLOWED_TO = "import os; os.setpriority(os.PRIO_PROCESS, 0, {nice})"
PREFER = """
import os
from inference_energy.acquire.load.worker_runtime import set_priority
set_priority()
print(os.getpriority(os.PRIO_PROCESS, 0))
"""
CONNECTIONS = """
import resource
from inference_energy.acquire.load.worker_runtime import allow_many_connections
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
allow_many_connections()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


def said(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=True).stdout.strip()


def test_the_preference_is_taken_where_it_is_allowed() -> None:
    trial = [sys.executable, "-c", ALLOWED_TO.format(nice=worker_runtime.NICE)]
    allowed = subprocess.run(trial, capture_output=True, check=False).returncode == 0
    assert int(said(PREFER)) == (worker_runtime.NICE if allowed else os.getpriority(os.PRIO_PROCESS, 0))


def test_a_kernel_without_the_call_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int, int]] = []
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    monkeypatch.setattr(os, "setpriority", lambda *arguments: taken.append(arguments))
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid() + 1)
    worker_runtime.set_priority()
    assert taken == [(os.PRIO_PROCESS, 0, worker_runtime.NICE)]


def test_real_time_priority_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_FIFO)
    monkeypatch.setattr(platform, "machine", lambda: pytest.fail("it asked for another policy"))
    worker_runtime.set_priority()


def test_connections_up_to_the_hard_limit() -> None:
    assert said(CONNECTIONS) == "True"
