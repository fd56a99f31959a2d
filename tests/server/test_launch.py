"""Launch and stop, on the stub server."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_energy.acquire.server.launch import launch_server, log_tail
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.acquire.server.preflight import port_is_free
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

Make = Callable[..., LaunchSpec]


def test_ready_then_stopped(stub_spec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = stub_spec(environment={"STUB_START_DELAY_S": "1"}, arguments={"enforce-eager": True})
    seen: list[tuple[float, str]] = []

    async def use() -> dict:
        async with await launch_server(spec, on_progress=lambda *what: seen.append(what)) as server:
            assert server.alive()
            assert server.base_url == f"http://127.0.0.1:{spec.port}"
            assert server.version == "0.0.0+stub"
            assert server.ready_after_s >= 1.0
            environment = Path(f"/proc/{server.server_pid}/environ").read_text()
            assert "OMP_NUM_THREADS" not in environment
            with pytest.raises(InputError, match="being measured by"):
                acquire_locks([])
            final = await server.stop()
            assert await server.stop() is final
            assert not server.alive()
            return final

    final = asyncio.run(use())
    assert (final.state, final.return_code, final.killed_pids) == ("stopped", 0, [])
    assert seen[-1][0] > seen[0][0]
    assert "stub: loading" in seen[-1][1]
    assert "further flags: --enforce-eager" in spec.log_path.read_text()
    assert port_is_free(spec.host, spec.port)
    acquire_locks([]).close()


def test_not_ready_in_time(stub_spec: Make) -> None:
    spec = stub_spec(environment={"STUB_START_DELAY_S": "100"}, ready_timeout_s=1.0)
    with pytest.raises(RunError, match=r"not ready within 1 s[\s\S]*server\.log:[\s\S]*\| stub: loading"):
        asyncio.run(launch_server(spec))
    acquire_locks([]).close()


def test_only_this_launchs_log_is_shown(stub_spec: Make) -> None:
    spec = stub_spec(environment={"STUB_DIE_AFTER_S": "0.2", "STUB_START_DELAY_S": "100"})
    spec.log_path.write_text("a line of an earlier run\n")
    with pytest.raises(RunError, match="exit code 3") as caught:
        asyncio.run(launch_server(spec))
    assert "earlier run" not in str(caught.value)
    assert spec.log_path.read_text().startswith("a line of an earlier run\n")


def test_a_command_that_cannot_run(stub_spec: Make) -> None:
    spec = stub_spec(interpreter=None, container_command=("/no/such/program",))
    with pytest.raises(RunError, match=r"could not be started: .*No such file"):
        asyncio.run(launch_server(spec))
    acquire_locks([]).close()


def test_a_taken_port_is_found_before_the_launch(stub_spec: Make) -> None:
    spec = stub_spec()
    with socket.create_server((spec.host, spec.port)), pytest.raises(InputError, match=r"server\.port"):
        asyncio.run(launch_server(spec))
    assert not spec.log_path.exists()


def test_ended_tells_of_a_crash(stub_spec: Make) -> None:
    async def use() -> dict:
        async with await launch_server(stub_spec()) as server:
            os.kill(server.server_pid, signal.SIGKILL)
            return await asyncio.wait_for(server.ended(), 30)

    assert asyncio.run(use()).return_code == -signal.SIGKILL


def test_cancelled_while_it_starts(stub_spec: Make) -> None:
    spec = stub_spec(environment={"STUB_START_DELAY_S": "100"})
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(launch_server(spec), 1.0))
    acquire_locks([]).close()


def test_log_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert log_tail(path, 3) == []
    path.write_bytes(b"old\none\r\n\n\x1b[31mtwo\x1b[0m\n 0%\r50%\r99%\r\nthree \xff\n")
    assert log_tail(path, 9, start=4) == ["one", "two", "99%", "three \ufffd"]
    assert log_tail(path, 1) == ["three \ufffd"]
