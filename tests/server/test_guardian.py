"""Nothing of a server survives, however its run ends. Each time the server has three children that try to escape:
an ordinary one, one in its own session, and a daemon that ignores SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from inference_energy.acquire.server.guardian import is_gone, process_stat
from inference_energy.acquire.server.guardian_client import Guardian, GuardianSpec, is_snakemake

pytestmark = pytest.mark.slow

OWNER = Path(__file__).with_name("owner.py")
LIMIT_S = 60.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat.state not in "ZX"


class Run:
    """An owner at work in a folder, as a process (group) of its own that can be killed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, then: str, **stub: object) -> None:
        self._spawn([sys.executable, str(OWNER), *self._arguments(then, stub)])

    def start_in_snakemake(self) -> None:
        words = " ".join([sys.executable, str(OWNER), *self._arguments("wait", {})])
        (self.folder / "Snakefile").write_text(
            f"rule session:\n    output: 'done'\n    shell: '{words} && touch done'\n"
        )
        self._spawn([sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(self.folder)])

    def _arguments(self, then: str, stub: dict[str, object]) -> list[str]:
        return [str(self.folder), str(self.port), then, *(f"STUB_{name}={value}" for name, value in stub.items())]

    def _spawn(self, command: list[str]) -> None:
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        with (self.folder / "owner.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def await_ready(self) -> None:
        wait_for((self.folder / "ready").exists, "the server to be ready")
        assert len([pid for pid in self.pids() if is_running(pid)]) == 4

    def pids(self) -> list[int]:
        """The server, then its children."""
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def server_pid(self) -> int:
        return self.pids()[0]

    def owner_pid(self) -> int:
        return int((self.folder / "owner.pid").read_text())

    def status(self) -> dict:
        return json.loads((self.folder / "server.json").read_text())

    def signal(self, number: int, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def exit_code(self) -> int:
        return self.process.wait(LIMIT_S)

    def assert_nothing_left(self) -> dict:
        """All processes of the server, the guardian and the owner are gone; the final status."""
        wait_for(lambda: self.status()["state"] == "stopped", "the guardian to have stopped the server")
        final = self.status()
        pids = [*self.pids(), final["guardian_pid"], self.owner_pid()]
        assert len(set(pids)) == 6
        wait_for(lambda: not any(map(is_running, pids)), f"all of {pids} to be gone")
        assert final["leftover_pids"] == []
        assert (final["server_pid"], final["killed_pids"] != []) == (self.server_pid(), True)
        return final

    def clean_up(self) -> None:
        for pid in self.pids():  # only if a test failed
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def run(tmp_path: Path, model: Path, free_port: int) -> Iterator[Run]:
    run = Run(tmp_path, free_port)
    yield run
    run.clean_up()


def test_run_ends_well(run: Run) -> None:
    run.start("end")
    assert run.exit_code() == 0
    final = run.assert_nothing_left()
    assert final["reason"] == "its owner asked for it"
    assert final["return_code"] == 0
    assert set(final["killed_pids"]) == set(run.pids()) - {run.server_pid()}


def test_load_fails(run: Run) -> None:
    run.start("raise")
    assert run.exit_code() == 1
    assert "the load failed" in (run.folder / "owner.log").read_text()
    run.assert_nothing_left()


def test_server_crashes_in_mid_run(run: Run) -> None:
    run.start("wait", CRASH_AFTER_S=1)
    assert run.exit_code() == 1
    final = run.assert_nothing_left()
    assert final["reason"] == "the server ended by itself"
    assert final["return_code"] == -signal.SIGKILL


def test_server_dies_before_it_is_ready(run: Run) -> None:
    run.start("wait", START_DELAY_S=100, DIE_AFTER_S=0.5)
    assert run.exit_code() == 1
    output = (run.folder / "owner.log").read_text()
    assert "before it was ready: exit code 3" in output
    assert "| stub: dying early" in output
    assert run.assert_nothing_left()["return_code"] == 3


def test_server_hangs(run: Run) -> None:
    run.start("wait", HANG_AFTER_S=0.5)
    run.await_ready()
    time.sleep(1.0)
    (run.folder / "go").touch()
    assert run.exit_code() == 0
    assert run.server_pid() in run.assert_nothing_left()["killed_pids"]


def test_server_ignores_sigterm(run: Run) -> None:
    run.start("end", IGNORE_SIGTERM=1)
    assert run.exit_code() == 0
    final = run.assert_nothing_left()
    assert run.server_pid() in final["killed_pids"]
    assert final["stop_duration_s"] >= 1.0  # the grace was given


@pytest.mark.parametrize(
    ("number", "group", "reason"),
    [
        (signal.SIGINT, True, "its owner asked for it"),
        (signal.SIGTERM, False, "its owner ended"),
        (signal.SIGKILL, False, "its owner ended"),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_owner_is_ended(run: Run, number: int, group: bool, reason: str) -> None:
    run.start("wait")
    run.await_ready()
    run.signal(number, group)
    assert run.exit_code() != 0
    final = run.assert_nothing_left()
    # Pipe and pid of a killed owner go at the same moment; the guardian may see either first.
    assert final["reason"] in (reason, f"the watched process {run.process.pid} ended")


def test_owner_is_ended_while_the_server_starts(run: Run) -> None:
    run.start("wait", START_DELAY_S=100)
    wait_for(lambda: len(run.pids()) == 4, "the server's processes")
    run.signal(signal.SIGINT, group=True)
    assert run.exit_code() != 0
    run.assert_nothing_left()


def test_guardian_is_killed(run: Run) -> None:
    run.start("wait")
    run.await_ready()
    guardian_pid = run.status()["guardian_pid"]
    os.kill(guardian_pid, signal.SIGKILL)
    assert run.exit_code() == 1
    assert "the guardian was killed" in (run.folder / "owner.log").read_text()
    assert not any(map(is_running, [*run.pids(), guardian_pid]))


def test_guardian_gets_sigterm(run: Run) -> None:
    run.start("wait")
    run.await_ready()
    os.kill(run.status()["guardian_pid"], signal.SIGTERM)
    assert run.exit_code() == 1
    assert run.assert_nothing_left()["reason"] == "the guardian got SIGTERM"


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGKILL, False), (signal.SIGKILL, True)],
    ids=["Ctrl-C", "SIGTERM to all", "SIGKILL of Snakemake", "SIGKILL of all"],
)
def test_snakemake_is_ended(run: Run, number: int, group: bool) -> None:
    run.start_in_snakemake()
    run.await_ready()
    run.signal(number, group)
    assert run.exit_code() != 0
    final = run.assert_nothing_left()
    if not group:  # its orphaned job did not notice; only the watched pid told
        assert final["reason"] == f"the watched process {run.process.pid} ended"


@pytest.mark.pipeline
def test_snakemake_alone_gets_sigterm(run: Run) -> None:
    """Snakemake then lets its running job finish, so the server lives as long as the job and no longer."""
    run.start_in_snakemake()
    run.await_ready()
    run.signal(signal.SIGTERM)
    time.sleep(1.0)
    assert is_running(run.server_pid())
    (run.folder / "go").touch()
    run.exit_code()
    assert run.assert_nothing_left()["reason"] == "its owner asked for it"


SHARES_MEMORY_AND_CRASHES = """
import os, signal, sys, time
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=16)
print(memory.name, flush=True)
if os.fork() == 0:
    time.sleep(100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_shared_memory_of_a_crashed_server_is_freed(tmp_path: Path) -> None:
    """vLLM's processes share hundreds of MB, which only Python's resource tracker removes after a crash."""
    log_path = tmp_path / "log"
    spec = GuardianSpec(
        command=[sys.executable, "-c", SHARES_MEMORY_AND_CRASHES],
        environment={},
        cwd=tmp_path,
        log_path=log_path,
        status_path=tmp_path / "status.json",
        grace_s=0.5,
    )
    with Guardian.start(spec) as guardian:
        wait_for(guardian.ended, "the guardian to have cleaned up")
        assert guardian.status().return_code == -signal.SIGKILL
        assert len(guardian.status().killed_pids) == 1
    assert not (Path("/dev/shm") / log_path.read_text().split()[0]).exists()


def test_a_reused_pid_counts_as_gone() -> None:
    ours = process_stat(os.getpid())
    assert not is_gone(os.getpid(), ours.start_ticks)
    assert is_gone(os.getpid(), ours.start_ticks - 1)


def test_a_zombie_counts_as_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        start_ticks = process_stat(process.pid).start_ticks
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "the child to be a zombie")
        assert is_gone(process.pid, start_ticks)


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (["/x/bin/python3.12", "/x/bin/snakemake", "--cores", "1"], True),
        (["/x/bin/python", "-m", "snakemake", "--cores", "1"], True),
        (["/x/bin/python", "-u", "-m", "snakemake"], True),
        (["snakemake"], True),
        (["/bin/bash", "-c", "snakemake --cores 1"], False),
        (["/x/bin/python", "plot.py", "snakemake"], False),
        (["/x/bin/python", "-m", "pytest", "snakemake"], False),
        ([], False),
    ],
)
def test_is_snakemake(command_line: list[str], expected: bool) -> None:
    assert is_snakemake(command_line) is expected
