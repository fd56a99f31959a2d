"""The pool of load processes: deaths on both sides, signals, and what it tells."""

import asyncio
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.load.plans import closed_rows, load_spec, logged, open_rows, run, settings, write_plan

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.load.settings import LoadSpec
from inference_energy.acquire.load.standalone import CELL, run_plan
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

Start = Callable[..., str]

PARENT = """
import asyncio, pickle, sys
from inference_energy.acquire.load.worker_pool import WorkerPool
async def main():
    async with WorkerPool(pickle.loads(sys.stdin.buffer.read())) as pool:
        print(*pool.pids, flush=True)
        await pool.run_cell("load-test")
asyncio.run(main())
"""


def spec(endpoint: str, folder: Path, *, workers: int = 2, duration_s: float = 60.0) -> LoadSpec:
    return load_spec(endpoint, "stub", folder, {CELL: (duration_s, {"ignore_eos": True})}, workers=workers)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it did not come to that in time"
        time.sleep(0.05)


def test_a_killed_worker_is_an_error_and_what_it_logged_is_kept(stub_endpoint: Start, tmp_path: Path) -> None:
    write_plan(tmp_path, closed_rows(8, 4))
    killed: list[int] = []

    async def main() -> None:
        async with WorkerPool(spec(stub_endpoint(tokens_per_s=100), tmp_path)) as pool:
            task = asyncio.create_task(pool.run_cell(CELL))
            await asyncio.sleep(2.0)  # four flushes
            killed.append(pool.pids[1])
            os.kill(pool.pids[1], signal.SIGKILL)
            await asyncio.wait_for(task, 20)

    with pytest.raises(RunError, match="load process 2 of 2 died with exit code -9"):
        asyncio.run(main())
    sent = logged(tmp_path)
    assert sent["request_id"].is_unique
    lost = sent[sent["worker"] == 1]
    assert len(lost) > 10
    assert (lost["status"] == "ok").all(), "in flight at the kill: not in the log"
    ended = sent[sent["worker"] == 0]
    assert (ended["status"] == "aborted").sum() == 2, "the other one stopped and noted what it cut off"
    assert ended["end_ns"].max() - lost["end_ns"].max() < 20e9, "long before the cell's end"


def test_workers_end_with_their_parent_and_abort_what_is_in_flight(stub_endpoint: Start, tmp_path: Path) -> None:
    write_plan(tmp_path, closed_rows(4, 4, max_tokens=500))
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parent.stdin.write(pickle.dumps(spec(stub_endpoint(tokens_per_s=5), tmp_path)))
    parent.stdin.close()
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(gone(pid) for pid in pids)
    time.sleep(2.5)
    parent.kill()
    parent.wait()
    wait_until(lambda: all(gone(pid) for pid in pids))
    sent = logged(tmp_path)
    assert sent["status"].tolist() == ["aborted"] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sigint_is_for_the_parent_and_sigterm_ends_a_worker(
    stub_endpoint: Start, tmp_path: Path, number: signal.Signals
) -> None:
    write_plan(tmp_path, closed_rows(2, 2))

    async def main() -> int:
        async with WorkerPool(spec(stub_endpoint(tokens_per_s=100), tmp_path, duration_s=1.5)) as pool:
            task = asyncio.create_task(pool.run_cell(CELL))
            await asyncio.sleep(0.5)
            os.kill(pool.pids[0], number)
            await asyncio.wait_for(task, 20)
            return pool.counts.ok

    if number == signal.SIGINT:
        assert asyncio.run(main()) > 0
        return
    with pytest.raises(RunError, match="told to stop"):
        asyncio.run(main())


def test_an_interrupted_test_keeps_what_was_sent(stub_endpoint: Start, tmp_path: Path) -> None:
    write_plan(tmp_path, open_rows(40, 0.05, max_tokens=20))
    endpoint = stub_endpoint(tokens_per_s=10)

    async def main() -> None:
        some = asyncio.Event()
        asked = settings(endpoint, 60.0)
        task = asyncio.create_task(run_plan(tmp_path, asked, lambda _, counts: counts.sent < 15 or some.set()))
        await asyncio.wait_for(some.wait(), 50)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    sent = logged(tmp_path)
    assert set(sent["status"]) <= {"ok", "aborted"}
    assert len(sent) >= 10


def test_a_log_that_cannot_be_written_ends_the_load_at_once(stub_endpoint: Start, tmp_path: Path) -> None:
    """As on a full disk: a file may have 16 kB."""
    write_plan(tmp_path, open_rows(2000, 0.005))
    asked = settings(stub_endpoint(tokens_per_s=1000), 60.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"the request log in .* cannot be written: File too large"):
            asyncio.run(asyncio.wait_for(run_plan(tmp_path, asked), 50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_processes_took_is_told(stub_endpoint: Start, tmp_path: Path) -> None:
    ticks: list[LiveCounts] = []
    write_plan(tmp_path, open_rows(40, 0.06))
    asked = settings(stub_endpoint(tokens_per_s=100), 2.5, workers=2)
    result = asyncio.run(run_plan(tmp_path, asked, lambda _, counts: ticks.append(counts)))
    workers = result.client.workers
    assert [worker.worker for worker in workers] == [0, 1]
    for worker in workers:
        assert 0 < worker.startup_cpu_s < worker.cpu_s < worker.wall_s * 4
        assert 10e6 < worker.peak_rss_bytes < 200e6
        lateness = worker.lateness
        assert 0 <= lateness.p50_s <= lateness.p99_s <= lateness.max_s
    sent = logged(tmp_path)
    late_s = (sent["sent_ns"] - sent["scheduled_ns"]) / 1e9
    assert max(worker.lateness.max_s for worker in workers) == pytest.approx(late_s.max())
    assert result.client.cpu_s == pytest.approx(sum(worker.cpu_s for worker in workers))
    assert 0 < result.client.cells[CELL].cpu_s < result.client.cpu_s
    assert result.counts.ok == 40
    assert [tick.ended for tick in ticks] == sorted(tick.ended for tick in ticks)
    assert any(0 < tick.sent < 40 for tick in ticks), "progress comes while it runs"
    assert result.counts.ttft.quantile_s(0.5) == pytest.approx(
        ((sent["first_token_ns"] - sent["scheduled_ns"]) / 1e9).median(), rel=0.1
    )


def test_several_cells_one_after_another(stub_endpoint: Start, tmp_path: Path) -> None:
    others = {"b": open_rows(5, 0.0), "c": closed_rows(2, 2)}
    rows = [
        {**row, "request_id": row["request_id"] + 100 * place, "cell": cell}
        for place, (cell, own) in enumerate({CELL: open_rows(5, 0.02), **others}.items())
        for row in own
    ]
    write_plan(tmp_path, rows)
    told = spec(stub_endpoint(tokens_per_s=200), tmp_path, duration_s=0.3)
    told = replace(told, cells=dict.fromkeys((CELL, "b", "c"), told.cells[CELL]))

    async def main() -> list[int]:
        async with WorkerPool(told) as pool:
            counts = []
            for name in told.cells:
                await pool.run_cell(name)
                counts.append(pool.counts.ok)
            await pool.finish()
            return counts

    counts = asyncio.run(main())
    assert counts[:2] == [5, 5]
    sent = logged(tmp_path)
    assert sent["request_id"].is_unique
    assert sent["cell"].value_counts().to_dict() == {CELL: 5, "b": 5, "c": counts[2]}


def test_a_plan_or_a_setting_that_cannot_be_used_is_the_users_mistake(stub_endpoint: Start, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt 0"):
        run("http://127.0.0.1:9", tmp_path, open_rows(1, 1.0), 1.0, prompts=())
    with pytest.raises(InputError, match="endpoints"):
        run("nowhere", tmp_path, open_rows(1, 1.0), 1.0)
    with pytest.raises(InputError, match=r"client\.api_key_env: .*NO_SUCH_KEY"):
        run("http://127.0.0.1:9", tmp_path, open_rows(1, 1.0), 1.0, api_key_env="NO_SUCH_KEY")


def test_a_key_is_in_no_file(stub_endpoint: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sesame-4711")
    run(stub_endpoint(tokens_per_s=100), tmp_path, open_rows(1, 1.0), 0.2, api_key_env="SECRET")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(b"sesame-4711" in path.read_bytes() for path in files)


def test_a_worker_needs_neither_pandas_nor_numpy(stub_endpoint: Start, tmp_path: Path) -> None:
    write_plan(tmp_path, closed_rows(2, 1))

    async def main() -> list[str]:
        async with WorkerPool(spec(stub_endpoint(tokens_per_s=100), tmp_path, workers=1, duration_s=0.5)) as pool:
            await pool.run_cell(CELL)
            maps = Path(f"/proc/{pool.pids[0]}/maps").read_text()
            return [name for name in ("numpy", "pandas", "_http_parser") if name in maps]

    assert asyncio.run(main()) == []
