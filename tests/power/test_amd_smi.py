"""AMD SMI as a power source: what each channel reads, and how errors leave it."""

import itertools
import sys
from collections import deque
from pathlib import Path

import pytest
from fake_amdsmi import DRIVER_NOT_LOADED, IO, NO_PERM, NOT_FOUND, NOT_SUPPORTED, FakeAmdSmi, FakeGpu

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources import amd_smi
from inference_energy.acquire.power.sources.amd_smi import AmdSmiSource

A, B = "b8ff74a1-0000-1000-80cd-aaaaaaaaaaaa", "18ff74a1-0000-1000-80cd-bbbbbbbbbbbb"
J = 1e6 / 15.3


def channels_of(*gpus: FakeGpu) -> tuple[FakeAmdSmi, list[SensorChannel]]:
    smi = FakeAmdSmi(list(gpus))
    return smi, AmdSmiSource(amdsmi=smi).channels()


def one(channels: list[SensorChannel], grade: str) -> SensorChannel:
    (found,) = [channel for channel in channels if channel.grade == grade]
    return found


def energy_j(channel: SensorChannel) -> float:
    energy = channel.read().energy_counter_j
    assert energy is not None
    return energy


def test_the_fast_channel_reads_the_power_and_the_state() -> None:
    _, channels = channels_of(FakeGpu(A))
    fast = one(channels, "sampled")
    reading = fast.read()
    assert (fast.source, fast.device, fast.domain, fast.period_s) == ("amd-smi", A, "gpu", None)
    assert (reading.power_average_w, reading.power_instant_w) == (None, 550.0)
    assert (reading.utilization, reading.memory_used_bytes) == (0.88, 150_000_000_000)
    assert (reading.sm_clock_mhz, reading.temperature_c) == (2100, 64.0)
    assert reading.clocks_event_reasons is None


def test_a_board_that_gives_an_average_has_it_in_its_own_column() -> None:
    _, channels = channels_of(FakeGpu(A, average_w=301, instant_w="N/A"))
    reading = one(channels, "sampled").read()
    assert (reading.power_average_w, reading.power_instant_w) == (301.0, None)


def test_over_what_an_average_averages_is_not_known_and_an_instant_is_none() -> None:
    for gpu, window_s in ((FakeGpu(A, average_w=301, instant_w="N/A"), None), (FakeGpu(A), 0.0)):
        _, channels = channels_of(gpu)
        assert one(channels, "sampled").metadata == {"averaging_window_s": window_s}


def test_the_state_is_not_asked_for_at_every_poll_and_does_not_cost_the_power() -> None:
    smi, channels = channels_of(FakeGpu(A, activity="N/A"))
    fast = one(channels, "sampled")
    smi.fail["amdsmi_get_clock_info"] = deque([NOT_SUPPORTED])
    first = fast.read()
    assert (first.power_instant_w, first.utilization, first.sm_clock_mhz, first.temperature_c) == (550, None, None, 64)
    for _ in range(4):
        assert fast.read().temperature_c is None
    assert smi.calls.count("amdsmi_get_gpu_activity") == 1


def test_the_accumulator_times_its_resolution_is_the_energy() -> None:
    _, channels = channels_of(FakeGpu(A, counter=1_000_000_000, step=1_000_000))
    counter = one(channels, "counter")
    first, second = counter.read(), counter.read()
    assert counter.period_s == 0.5
    assert first.energy_counter_j is not None and second.energy_counter_j is not None
    assert second.energy_counter_j - first.energy_counter_j == pytest.approx(15.3)
    assert first.energy_counter_j == pytest.approx(15_300, rel=1e-2)
    assert first.driver_timestamp_us == 1_700_000_000_123_457
    assert first.power_w is None


def test_an_older_version_calls_the_accumulator_power() -> None:
    _, channels = channels_of(FakeGpu(A, counter_key="power"))
    assert energy_j(one(channels, "counter")) > 15_000


@pytest.mark.parametrize("bits", [32, 64])
def test_energy_goes_on_across_a_wrap(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(10**12, 10**9)
    monkeypatch.setattr(amd_smi, "timed", lambda call: (call(), next(seconds), 1.0))
    gpu = FakeGpu(A, counter=(1 << bits) - 5_000_000, step=0)
    _, channels = channels_of(gpu)
    counter = one(channels, "counter")
    before_j = energy_j(counter)
    gpu.counter = 7_000_000
    # Of 64 bits only about 53 remain in a float: a step of 12 million units in 2^64 is seen to some thousand.
    assert energy_j(counter) - before_j == pytest.approx(12_000_000 / J, rel=1e-3)
    gpu.counter = 9_000_000
    assert energy_j(counter) - before_j == pytest.approx(14_000_000 / J, rel=1e-3)


def test_after_a_reset_the_counter_goes_back_so_that_it_is_noticed() -> None:
    gpu = FakeGpu(A, counter=3_000_000_000, step=0)
    _, channels = channels_of(gpu)
    counter = one(channels, "counter")
    before_j = energy_j(counter)
    gpu.counter = 1_000
    assert energy_j(counter) < before_j


def test_near_the_end_of_its_range_a_counter_may_be_reset_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(10**12, 10**9)
    monkeypatch.setattr(amd_smi, "timed", lambda call: (call(), next(seconds), 1.0))
    gpu = FakeGpu(A, counter=(1 << 32) - 200_000_000, step=0)
    _, channels = channels_of(gpu)
    counter = one(channels, "counter")
    before_j = energy_j(counter)
    gpu.counter = 1_000
    assert energy_j(counter) < before_j, "as a wrap it would be 3 kJ in a second"


@pytest.mark.parametrize("counter", [0, (1 << 64) - 1])
def test_a_counter_that_does_not_count_is_an_error_while_running_and_left_out_before(counter: int) -> None:
    gpu = FakeGpu(A)
    _, channels = channels_of(gpu)
    gpu.counter, gpu.step = counter, 0
    with pytest.raises(SourceError, match="does not count"):
        one(channels, "counter").read()
    _, without = channels_of(FakeGpu(A, counter=counter, step=0))
    assert [channel.grade for channel in without] == ["sampled"]


def test_the_grade_says_whether_there_is_a_counter() -> None:
    for gpu, grade in ((FakeGpu(A), "counter"), (FakeGpu(A, counter=None), "sampled")):
        source = AmdSmiSource(amdsmi=FakeAmdSmi([gpu]))
        source.channels()
        assert source.grade == grade
        assert source.describe() == {"name": "amd-smi", "grade": grade}


@pytest.mark.parametrize("power", [0, "N/A", 0xFFFF])
def test_the_second_die_of_a_module_is_left_out_and_named(power: int | str) -> None:
    smi = FakeAmdSmi([FakeGpu(A, average_w=237, instant_w="N/A"), FakeGpu(B, average_w=power, instant_w="N/A")])
    source = AmdSmiSource(amdsmi=smi)
    state = source.probe()
    assert (state.available, state.devices) == (True, [A])
    assert f"left out because they give no power of their own: {B}" in state.reason
    assert {channel.device for channel in source.channels()} == {A}
    alone = AmdSmiSource([B], smi).probe()
    assert not alone.available
    assert "second die" in alone.reason


@pytest.mark.parametrize("power", [0, "N/A"])
def test_a_power_that_stops_is_an_error_not_a_zero(power: int | str) -> None:
    gpu = FakeGpu(A)
    _, channels = channels_of(gpu)
    gpu.instant_w = power
    with pytest.raises(SourceError, match=A):
        one(channels, "sampled").read()
    gpu.instant_w = 551
    assert one(channels, "sampled").read().power_instant_w == 551.0


def test_a_passing_error_is_a_source_error_and_the_next_read_works() -> None:
    smi, channels = channels_of(FakeGpu(A))
    fast, counter = one(channels, "sampled"), one(channels, "counter")
    smi.fail["amdsmi_get_power_info"] = deque([IO, NO_PERM])
    with pytest.raises(SourceError, match=f"power of {A}.*13 . AMDSMI_STATUS_IO"):
        fast.read()
    with pytest.raises(SourceError, match="groups video and render"):
        fast.read()
    assert fast.read().power_instant_w == 550.0
    smi.fail["amdsmi_get_energy_count"] = deque([IO])
    with pytest.raises(SourceError, match="energy accumulator"):
        counter.read()
    assert energy_j(counter) > 0


def test_an_error_while_opening_does_not_lose_a_channel() -> None:
    smi = FakeAmdSmi([FakeGpu(A)])
    smi.fail["amdsmi_get_power_info"] = deque([IO])
    smi.fail["amdsmi_get_energy_count"] = deque([IO])
    assert [channel.grade for channel in AmdSmiSource(amdsmi=smi).channels()] == ["sampled", "counter"]


@pytest.mark.parametrize("wanted", [[1], ["1"], [B], ["18ff"], [B.upper(), 1]])
def test_gpus_are_picked_by_index_or_uuid_each_once(wanted: list[str | int]) -> None:
    assert AmdSmiSource(wanted, FakeAmdSmi([FakeGpu(A), FakeGpu(B)])).probe().devices == [B]


@pytest.mark.parametrize(("wanted", "said"), [([2], "no GPU here"), (["GPU-1"], "no GPU here"), ([], "empty")])
def test_a_wrong_choice_of_gpus_says_what_there_is(wanted: list[str | int], said: str) -> None:
    state = AmdSmiSource(wanted, FakeAmdSmi([FakeGpu(A), FakeGpu(B)])).probe()
    assert not state.available
    assert said in state.reason


@pytest.mark.parametrize(
    ("code", "said"),
    [(NO_PERM, "video and render"), (DRIVER_NOT_LOADED, "modprobe amdgpu"), (NOT_FOUND, "AMDSMI_STATUS_NOT_FOUND")],
)
def test_a_broken_driver_is_a_reason(code: int, said: str) -> None:
    state = AmdSmiSource(amdsmi=FakeAmdSmi([], broken=code)).probe()
    assert not state.available
    assert said in state.reason


def test_a_driver_without_gpus_is_unavailable() -> None:
    assert "shows no GPU" in AmdSmiSource(amdsmi=FakeAmdSmi([])).probe().reason


def test_every_session_is_closed_again() -> None:
    smi = FakeAmdSmi([FakeGpu(A)])
    source = AmdSmiSource(amdsmi=smi)
    source.probe()
    assert smi.sessions == 0
    source.channels()
    assert smi.sessions == 1
    source.close()
    source.close()
    assert smi.sessions == 0
    with pytest.raises(SourceError):
        AmdSmiSource([7], smi).channels()
    assert smi.sessions == 0


def test_a_missing_package_and_a_missing_library_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert "package amdsmi is missing" in AmdSmiSource().probe().reason
    monkeypatch.delitem(sys.modules, "amdsmi")
    # As the real module does where libamd_smi.so cannot be found.
    (tmp_path / "amdsmi.py").write_text("print('libamd_smi.so: cannot open')\n{}['libamd_smi.so']\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = AmdSmiSource().probe()
    assert not state.available
    assert "amd-smi-lib" in state.reason
    assert capfd.readouterr().out == ""
