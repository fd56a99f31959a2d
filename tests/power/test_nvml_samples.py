"""The driver's ring of samples: each once, at the time it was made."""

import time
from itertools import pairwise

import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.contracts.power import GPU_SAMPLES

PERIOD_US = 20_000


def wall_us() -> int:
    return time.time_ns() // 1000


def ring(newest_us: int, count: int = 119, power_w: float = 100.0) -> list[tuple[int, float]]:
    return [(newest_us - PERIOD_US * back, power_w + back) for back in reversed(range(count))]


def opened(gpu: FakeGpu) -> tuple[FakeNvml, SensorChannel]:
    nvml = FakeNvml([gpu])
    (channel,) = [channel for channel in NvmlSource(nvml=nvml).channels() if channel.domain == GPU_SAMPLES]
    return nvml, channel


def test_there_is_a_channel_only_where_there_is_a_ring() -> None:
    channels = NvmlSource(nvml=FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", ring=[])])).channels()
    (samples,) = [channel for channel in channels if channel.domain == GPU_SAMPLES]
    assert (samples.source, samples.device, samples.optional) == ("nvml", "GPU-b", True)


def test_each_sample_becomes_one_reading_at_its_own_time() -> None:
    gpu = FakeGpu("GPU-a", ring=ring(wall_us()))
    nvml, channel = opened(gpu)
    assert channel.read_many() == [], "what is older than the channel is not its own"
    time.sleep(0.11)
    before_ns = time.monotonic_ns()
    gpu.ring = ring(newest := wall_us(), count=5)
    after_ns = time.monotonic_ns()
    readings = channel.read_many()
    assert [reading.power_instant_w for reading in readings] == [104.0, 103.0, 102.0, 101.0, 100.0]
    assert [reading.driver_timestamp_us for reading in readings] == [newest - PERIOD_US * k for k in (4, 3, 2, 1, 0)]
    times_ns = [reading.timestamp_ns for reading in readings]
    assert before_ns - 5e7 < times_ns[-1] < after_ns + 5e7, "on the monotonic clock"
    assert [b - a for a, b in pairwise(times_ns)] == [PERIOD_US * 1000] * 4
    assert all(reading.power_average_w is None for reading in readings)
    assert channel.read_many() == []
    with pytest.raises(SourceError, match="none since"):
        channel.read()
    gpu.ring = ring(newest + 3 * PERIOD_US)
    time.sleep(0.06)
    assert [r.driver_timestamp_us for r in channel.read_many()] == [newest + PERIOD_US * k for k in (1, 2, 3)]
    assert nvml.calls.count("nvmlDeviceGetSamples") == 6


def test_samples_out_of_order_are_put_in_order_and_empty_places_left_out() -> None:
    gpu = FakeGpu("GPU-a", ring=[])
    _, channel = opened(gpu)
    time.sleep(0.05)
    newest = wall_us()
    gpu.ring = [(newest, 3.0), (0, 9.0), (newest - PERIOD_US, 2.0)]
    assert [reading.power_instant_w for reading in channel.read_many()] == [2.0, 3.0]


@pytest.mark.parametrize("off_s", [-10.0, 3.0])
def test_a_clock_that_is_not_this_machines_gives_no_times(off_s: float) -> None:
    gpu = FakeGpu("GPU-a", ring=[])
    _, channel = opened(gpu)
    time.sleep(0.05)
    gpu.ring = ring(wall_us() + round(off_s * 1e6), count=2)
    with pytest.raises(SourceError, match="not this machine's"):
        channel.read_many()
    gpu.ring = ring(wall_us(), count=2)
    assert len(channel.read_many()) == 2, "and it goes on once the clocks agree"


def test_a_ring_that_stands_still_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _, channel = opened(FakeGpu("GPU-a", ring=[]))
    assert channel.read_many() == []
    later_ns = time.monotonic_ns() + 6_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: later_ns)
    with pytest.raises(SourceError, match="added none for 6 s"):
        channel.read_many()
