"""NVML as a power source: what each channel reads, and how errors leave it."""

import time
from collections import deque

import pynvml
import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources.nvml.source import NvmlSource

A, B = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"


def channels_of(*gpus: FakeGpu) -> tuple[FakeNvml, list[SensorChannel]]:
    nvml = FakeNvml(list(gpus))
    return nvml, NvmlSource(nvml=nvml).channels()


def one(channels: list[SensorChannel], domain: str, grade: str) -> SensorChannel:
    (found,) = [channel for channel in channels if (channel.domain, channel.grade) == (domain, grade)]
    return found


def test_the_fast_channel_reads_both_powers_and_the_state() -> None:
    _, channels = channels_of(FakeGpu(A))
    fast = one(channels, "gpu", "sampled")
    reading = fast.read()
    assert (fast.device, fast.period_s) == (A, None)
    assert (reading.power_average_w, reading.power_instant_w) == (100.0, 110.0)
    assert reading.driver_timestamp_us == 1_700_000_000_000_000
    assert reading.utilization == 0.73
    assert reading.memory_used_bytes == 70_000_000_000
    assert (reading.sm_clock_mhz, reading.temperature_c, reading.clocks_event_reasons) == (1755, 61.0, 4)


def test_a_board_is_held_to_the_highest_power_limit_that_the_driver_states() -> None:
    _, channels = channels_of(FakeGpu("GPU-a"))
    assert {channel.domain: channel.highest_w for channel in channels if channel.domain.startswith("gpu")} == {
        "gpu": 1050.0,
        "gpu_memory": 1050.0,
    }


def test_the_drivers_own_latency_is_kept_among_the_counts() -> None:
    _, channels = channels_of(FakeGpu(A))
    fast = one(channels, "gpu", "sampled")
    assert fast.diagnostics() == {}
    for _ in range(3):
        fast.read()
    assert fast.diagnostics() == {"driver_latency_us": {"mean": 12.0, "max": 12}}


def test_the_state_is_not_asked_for_at_every_poll() -> None:
    nvml, channels = channels_of(FakeGpu(A))
    fast = one(channels, "gpu", "sampled")
    for _ in range(5):
        fast.read()
    assert nvml.calls.count("nvmlDeviceGetUtilizationRates") == 1
    assert fast.read().utilization is None


def test_a_state_that_cannot_be_read_does_not_cost_the_power() -> None:
    nvml, channels = channels_of(FakeGpu(A))
    nvml.fail["nvmlDeviceGetTemperature"] = deque([pynvml.NVML_ERROR_UNKNOWN])
    reading = one(channels, "gpu", "sampled").read()
    assert reading.temperature_c is None
    assert reading.power_average_w == 100.0


def test_the_counter_has_a_slower_channel_in_joules() -> None:
    _, channels = channels_of(FakeGpu(A))
    counter = one(channels, "gpu", "counter")
    first, second = counter.read(), counter.read()
    assert counter.period_s == 0.5
    assert first.energy_counter_j is not None and second.energy_counter_j is not None
    assert second.energy_counter_j - first.energy_counter_j == 50.0
    assert first.power_w is None


def test_memory_power_is_a_domain_of_its_own_where_it_is_reported() -> None:
    _, with_memory = channels_of(FakeGpu(A))
    assert one(with_memory, "gpu_memory", "sampled").read().power_average_w == 35.0
    _, without = channels_of(FakeGpu(A, memory_w=None))
    assert all(channel.domain != "gpu_memory" for channel in without)


@pytest.mark.parametrize(
    ("capability", "average_w", "instant_w"),
    [((9, 0), 100.0, None), ((8, 6), 100.0, None), ((8, 0), None, 100.0), ((7, 0), None, 100.0)],
)
def test_without_fields_the_older_call_is_used_for_what_it_means_on_that_gpu(
    capability: tuple[int, int], average_w: float | None, instant_w: float | None
) -> None:
    nvml, channels = channels_of(FakeGpu(A, has_fields=False, capability=capability))
    fast = one(channels, "gpu", "sampled")
    asked = nvml.calls.count("nvmlDeviceGetFieldValues")
    fast.read()
    reading = fast.read()
    assert (reading.power_average_w, reading.power_instant_w) == (average_w, instant_w)
    assert nvml.calls.count("nvmlDeviceGetFieldValues") == asked + 1, "fields are not asked for again"


def test_one_missing_field_leaves_the_other() -> None:
    _, channels = channels_of(FakeGpu(A, has_instant=False))
    reading = one(channels, "gpu", "sampled").read()
    assert (reading.power_average_w, reading.power_instant_w) == (100.0, None)


def test_a_passing_error_is_a_source_error_and_the_next_read_works() -> None:
    nvml, channels = channels_of(FakeGpu(A))
    fast = one(channels, "gpu", "sampled")
    nvml.fail["nvmlDeviceGetFieldValues"] = deque([pynvml.NVML_ERROR_TIMEOUT, pynvml.NVML_ERROR_GPU_IS_LOST])
    with pytest.raises(SourceError, match=f"power of {A}.*Timeout"):
        fast.read()
    with pytest.raises(SourceError, match="reboot"):
        fast.read()
    reading = fast.read()
    assert reading.power_instant_w == 110.0, "still read by fields"


def test_an_error_inside_the_fields_is_not_read_as_a_power() -> None:
    gpu = FakeGpu(A)
    _, channels = channels_of(gpu)
    fast, memory = one(channels, "gpu", "sampled"), one(channels, "gpu_memory", "sampled")
    gpu.field_error = pynvml.NVML_ERROR_NO_DATA
    for channel in (fast, memory):
        with pytest.raises(SourceError):
            channel.read()
    gpu.field_error = None
    assert fast.read().power_average_w == 100.0


def test_an_error_while_opening_does_not_lose_the_counter() -> None:
    nvml = FakeNvml([FakeGpu(A)])
    nvml.fail["nvmlDeviceGetTotalEnergyConsumption"] = deque([pynvml.NVML_ERROR_UNKNOWN])
    assert one(NvmlSource(nvml=nvml).channels(), "gpu", "counter").read().energy_counter_j is not None


def test_the_grade_says_whether_there_is_a_counter() -> None:
    for gpu, grade in ((FakeGpu(A), "counter"), (FakeGpu(A, has_counter=False), "sampled")):
        source = NvmlSource(nvml=FakeNvml([gpu]))
        source.channels()
        assert source.grade == grade
        assert source.describe() == {"name": "nvml", "grade": grade}


@pytest.mark.parametrize("wanted", [[1], ["1"], [B], ["GPU-bbbb"], ["GPU-bbbb", 1]])
def test_gpus_are_picked_by_index_or_uuid_each_once(wanted: list[str | int]) -> None:
    nvml = FakeNvml([FakeGpu(A), FakeGpu(B)])
    assert NvmlSource(wanted, nvml).probe().devices == [B]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([2], "no GPU here.*2.*0: GPU-aaaa.*1: GPU-bbbb"),
        (["GPU-"], "2 GPUs here"),
        (["MIG-1"], "no GPU here shows one"),
        ([], "empty"),
    ],
)
def test_a_wrong_choice_of_gpus_says_what_there_is(wanted: list[str | int], said: str) -> None:
    state = NvmlSource(wanted, FakeNvml([FakeGpu(A), FakeGpu(B)])).probe()
    assert not state.available
    with pytest.raises(SourceError, match=said):
        NvmlSource(wanted, FakeNvml([FakeGpu(A), FakeGpu(B)])).channels()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "install the driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reboot"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia"),
    ],
)
def test_a_broken_driver_is_a_reason_with_advice(code: int, said: str) -> None:
    state = NvmlSource(nvml=FakeNvml([], broken=code)).probe()
    assert not state.available
    assert said in state.reason


def test_a_driver_without_gpus_is_unavailable() -> None:
    assert not NvmlSource(nvml=FakeNvml([])).probe().available


def test_every_session_is_closed_again() -> None:
    nvml = FakeNvml([FakeGpu(A)])
    source = NvmlSource(nvml=nvml)
    source.probe()
    assert nvml.sessions == 0
    source.channels()
    assert nvml.sessions == 1
    source.close()
    source.close()
    assert nvml.sessions == 0
    with pytest.raises(SourceError):
        NvmlSource([7], nvml).channels()
    assert nvml.sessions == 0


def test_the_states_of_the_gpus_are_asked_for_at_different_times(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([FakeGpu(f"GPU-{number}") for number in range(4)])
    fast = [c for c in NvmlSource(nvml=nvml).channels() if (c.domain, c.grade) == ("gpu", "sampled")]
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    assert all(channel.read().utilization is not None for channel in fast), "each is known from the start"
    asked: list[list[int]] = []
    for tick in range(1, 9):
        now_s[0] = 1000.0 + 0.25 * tick
        asked.append([number for number, channel in enumerate(fast) if channel.read().utilization is not None])
    assert asked == [[3], [2], [1], [0]] * 2
