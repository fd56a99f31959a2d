"""Mistakes that are found before a launch, and the keys that their messages name."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from inference_energy.acquire.server.preflight import check_gpus, check_interpreter, check_model, check_port
from inference_energy.errors import InputError


class FakeNvml:
    """One GPU, GPU-a, with the given processes (pid, bytes)."""

    class NVMLError(Exception):
        pass

    def __init__(self, *processes: tuple[int, int | None], absent: bool = False) -> None:
        self.processes = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes]
        self.absent = absent

    def nvmlInit(self) -> None:  # noqa: N802
        if self.absent:
            raise self.NVMLError("no library")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return "GPU-a"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-a":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        return self.processes


def test_foreign_process_on_the_gpu() -> None:
    nvml = FakeNvml((os.getpid(), 3 * 2**20), (2**22 + 1, None))
    with pytest.raises(InputError, match=rf"server\.gpus: .*process {os.getpid()} \(\S+\), 3 MiB, on GPU-a") as caught:
        check_gpus(["GPU-a"], nvml=nvml, release_limit_s=0)
    assert "4194305 (name not visible from here), unknown memory" in str(caught.value)


def test_own_processes_and_free_gpus_pass() -> None:
    check_gpus(["GPU-a"], own_pids=[os.getpid()], nvml=FakeNvml((os.getpid(), 1)), release_limit_s=0)
    check_gpus(["GPU-a"], nvml=FakeNvml())


def test_gpu_released_within_the_limit_passes() -> None:
    nvml = FakeNvml((1, 1))
    answers = [nvml.processes, []]
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda handle: answers.pop(0)
    check_gpus(["GPU-a"], nvml=nvml, release_limit_s=30)
    assert answers == []


def test_unknown_gpu_lists_those_there() -> None:
    with pytest.raises(InputError, match=r"server\.gpus: no GPU GPU-b here .*there are: GPU-a"):
        check_gpus(["GPU-b"], nvml=FakeNvml())


def test_without_nvml_nothing_is_said() -> None:
    check_gpus(["GPU-a"], nvml=FakeNvml(absent=True))


def test_port_in_use_names_who_has_it(free_port: int) -> None:
    check_port("127.0.0.1", free_port)
    with socket.create_server(("127.0.0.1", free_port)):
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(InputError, match=rf"server\.port: {free_port} .* in use by process {os.getpid()} \("):
                check_port(host, free_port)
    check_port("127.0.0.1", free_port)


def test_impossible_addresses() -> None:
    with pytest.raises(InputError, match=r"server\.port: 70000"):
        check_port("127.0.0.1", 70000)
    with pytest.raises(InputError, match=r"server\.host: 192\.0\.2\.1 cannot be bound"):
        check_port("192.0.2.1", 8000)


def test_models(model: Path, tmp_path: Path) -> None:
    check_model(str(model))
    check_model("owner/model")
    with pytest.raises(InputError, match=r"model\.path: .* holds no config\.json"):
        check_model(str(tmp_path))
    for missing in (str(tmp_path / "none"), "./none", "models/of/mine"):
        with pytest.raises(InputError, match=r"model\.path: .* does not exist"):
            check_model(missing)
    with pytest.raises(InputError, match=r"model\.path: .* is neither"):
        check_model("a model")


def test_interpreter(tmp_path: Path) -> None:
    check_interpreter(None)
    with pytest.raises(InputError, match=r"server\.interpreter: .* is no executable"):
        check_interpreter(tmp_path / "python")
