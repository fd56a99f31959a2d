"""Who else computes on the server's GPU."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sampler_handle import SamplerStats
from inference_energy.acquire.power.sources.nvml.processes import ProcessesChannel, ServerPid
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.contracts.documents.session import ChannelCounts, SeenProcess

INVISIBLE = 999_999_999


def opened(gpu: FakeGpu, server_pid: ServerPid) -> ProcessesChannel:
    channels = NvmlSource(nvml=FakeNvml([gpu]), server_pid=server_pid).channels()
    (channel,) = [channel for channel in channels if isinstance(channel, ProcessesChannel)]
    return channel


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.wait()


def test_it_looks_only_where_it_is_known_whose_the_gpus_are() -> None:
    def kinds(gpu: FakeGpu, server_pid: ServerPid | None) -> set[type]:
        return {type(channel) for channel in NvmlSource(nvml=FakeNvml([gpu]), server_pid=server_pid).channels()}

    assert ProcessesChannel in kinds(FakeGpu("GPU-a", pids=[]), lambda: None)
    assert ProcessesChannel not in kinds(FakeGpu("GPU-a", pids=[]), None)
    assert ProcessesChannel not in kinds(FakeGpu("GPU-a", pids=None), lambda: None), "a GPU that cannot tell"


def test_the_server_and_its_descendants_are_not_foreign_and_others_are(child: int) -> None:
    gpu = FakeGpu("GPU-a", pids=[os.getpid(), child])
    channel = opened(gpu, os.getpid)
    assert channel.read_many() == []
    assert channel.diagnostics() == {"foreign_processes": [], "unidentified_processes": []}
    gpu.pids = [child, os.getppid(), INVISIBLE]
    channel.read_many()
    channel.read_many()
    first, second = channel.diagnostics()["foreign_processes"]
    assert (first["pid"], second["pid"]) in {(os.getppid(), INVISIBLE), (INVISIBLE, os.getppid())}
    assert first["first_seen_ns"] < first["last_seen_ns"]
    names = {each["pid"]: each["name"] for each in (first, second)}
    assert names[INVISIBLE] is None and names[os.getppid()]
    ended = first["last_seen_ns"]
    gpu.pids = [child]
    channel.read_many()
    assert channel.diagnostics()["foreign_processes"][0]["last_seen_ns"] == ended


def test_without_a_server_whoever_is_there_is_foreign() -> None:
    channel = opened(FakeGpu("GPU-a", pids=[os.getpid(), INVISIBLE]), lambda: None)
    channel.read_many()
    assert {each["pid"] for each in channel.diagnostics()["foreign_processes"]} == {os.getpid(), INVISIBLE}


def test_a_server_whose_number_is_told_late_is_taken_off_the_list() -> None:
    known: list[int] = []
    channel = opened(FakeGpu("GPU-a", pids=[os.getpid()]), lambda: known[0] if known else None)
    channel.read_many()
    assert channel.diagnostics()["foreign_processes"]
    known.append(os.getpid())
    channel.read_many()
    assert channel.diagnostics()["foreign_processes"] == []


def test_numbers_of_another_namespace_are_not_called_foreign() -> None:
    """NVML then lists the server by a number that means nothing here, and nobody by one that does."""
    gpu = FakeGpu("GPU-a", pids=[INVISIBLE])
    channel = opened(gpu, os.getpid)
    channel.read_many()
    notes = channel.diagnostics()
    assert notes["foreign_processes"] == []
    assert [each["pid"] for each in notes["unidentified_processes"]] == [INVISIBLE]
    gpu.pids = [INVISIBLE, os.getpid()]
    channel.read_many()
    assert [each["pid"] for each in channel.diagnostics()["foreign_processes"]] == [INVISIBLE], (
        "the numbers are the same"
    )


def test_it_gives_no_reading() -> None:
    with pytest.raises(SourceError):
        opened(FakeGpu("GPU-a", pids=[]), lambda: None).read()


def test_a_foreign_process_is_a_sentence_of_the_sampler() -> None:
    seen = SeenProcess(pid=7, name=None, first_seen_ns=0, last_seen_ns=4_000_000_000)
    channel = ChannelCounts(source="nvml", device="GPU-a", domain="gpu", errors=0, foreign_processes=[seen])
    assert SamplerStats("request", True, 1.0, [channel]).faults == [
        "nvml GPU-a (gpu): process 7 (not visible from here), which is not the server's, used the GPU for at least 4 s"
    ]
