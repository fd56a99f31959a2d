"""Updates, grids, means, ratios and profiles: the parts of a characterisation."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.characterize.gpu import MISSING, open_gpu
from inference_energy.acquire.power.characterize.profile import profile_path, profiles_of
from inference_energy.acquire.power.characterize.sensor_timing import (
    Background,
    block_mean,
    call_costs_us,
    column,
    grid,
    integral_over_counter,
    intervals_s,
    poll,
    stamps,
    updates_of,
)
from inference_energy.errors import InputError, RunError

UUID = "GPU-1234"


def test_an_update_lies_between_the_polls_that_saw_it_come() -> None:
    time_ns = np.arange(8, dtype=np.int64) * 10
    updates = updates_of(time_ns, np.array([5, 5, 7, 7, 7, 6, 6, 5], dtype=np.int64))
    assert updates.time_ns.tolist() == [15, 45, 65]
    assert updates.value.tolist() == [7, 6, 5]
    assert updates.slack_ns.tolist() == [5, 5, 5]
    assert (intervals_s(updates) * 1e9).tolist() == pytest.approx([30, 20])


def test_timestamps_of_the_driver_are_updates_at_their_own_time() -> None:
    found = stamps(np.array([100, 100, 200, 200, 300], dtype=np.int64))
    assert found.time_ns.tolist() == [200_000, 300_000]


@pytest.mark.parametrize("step", [1, 25, 1000])
def test_the_grid_is_the_steps_of_the_values(step: int) -> None:
    values = step * np.random.default_rng(3).integers(0, 500, 200) + 7
    assert grid(values) == step


def test_a_few_values_tell_of_no_grid() -> None:
    assert grid(np.array([10, 20, 30, 40] * 20)) is None


def test_the_mean_of_independent_readings_is_covered() -> None:
    hits = 0
    for seed in range(200):
        times_s = np.arange(0, 12, 0.1)
        values = 70 + np.random.default_rng(seed).standard_normal(len(times_s))
        mean = block_mean(times_s, values, 1.0)
        assert mean.interval_95 is not None
        hits += mean.interval_95[0] < 70 < mean.interval_95[1]
    assert 180 <= hits <= 198


def test_a_short_stretch_has_a_mean_without_an_interval() -> None:
    mean = block_mean(np.arange(0, 3, 0.1), np.full(30, 70.0), 1.0)
    assert (mean.value, mean.interval_95, mean.parts) == (70.0, None, 2)


def test_the_integral_is_compared_between_edges_of_the_counter() -> None:
    counter_s = np.arange(0, 20, 0.1)
    power_s = np.arange(0.03, 19.9, 0.1)
    mean = integral_over_counter(power_s, np.full(199, 98.0), counter_s, 100 * counter_s, np.array([1.0, 5, 9, 13, 17]))
    assert mean is not None and mean.interval_95 is not None
    assert mean.value == pytest.approx(0.98)
    assert mean.parts == 4
    assert mean.interval_95[0] <= 0.98 <= mean.interval_95[1] + 1e-12


def test_no_ratio_without_a_whole_part_or_a_counter_that_moves() -> None:
    times_s = np.arange(0, 10, 0.1)
    power_w = np.full(100, 98.0)
    assert integral_over_counter(times_s, power_w, times_s, 100 * times_s, np.array([1.0])) is None
    assert integral_over_counter(times_s, power_w, times_s, np.zeros(100), np.array([1.0, 5.0])) is None


def test_polls_keep_deadlines_and_count_what_failed() -> None:
    calls = iter([1, 2, None, 4, 5] + [6] * 1000)

    def read() -> list[int]:
        value = next(calls)
        if value is None:
            raise KeyError("gone")
        return [value, MISSING if value == 4 else 10 * value]

    until_ns = time.monotonic_ns() + 300_000_000
    polls = poll(read, 0.01, until_ns=until_ns, error=KeyError, stop=threading.Event())
    assert polls.failed == 1
    assert 3 < len(polls.middle_ns) <= 30
    assert polls.values[:4, 0].tolist() == [1, 2, 4, 5]
    assert column(polls, 1)[1].tolist()[:3] == [10, 20, 50], "a poll that gave nothing is left out"
    assert (polls.late_us >= 0).all() and (np.diff(polls.middle_ns) > 0).all()


def test_no_reading_at_all_is_an_error_that_says_why() -> None:
    def read() -> list[int]:
        raise KeyError("gone")

    with pytest.raises(RunError, match=r"no reading.*gone"):
        poll(read, 0.01, until_ns=time.monotonic_ns() + 50_000_000, error=KeyError, stop=threading.Event())
    with Background(read, 0.01, KeyError) as background:
        time.sleep(0.05)
    with pytest.raises(RunError, match=r"no reading.*gone"):
        background.polls()


def test_costs_are_those_of_the_calls_that_worked() -> None:
    def fails() -> None:
        raise KeyError

    costs = call_costs_us({"slow": lambda: time.sleep(0.002), "fails": fails}, 0.1, KeyError)
    assert list(costs) == ["slow"]
    assert np.median(costs["slow"]) >= 2000


def test_a_gpu_gives_average_instant_and_counter() -> None:
    nvml = FakeNvml([FakeGpu(UUID, average_w=100.5, instant_w=110.25)])
    with open_gpu("0", nvml) as gpu:
        assert gpu.power_mw()[:2] == (100_500, 110_250)
        assert gpu.counter_mj() > 0
        assert (gpu.uuid, gpu.has_fields, gpu.has_instant, gpu.has_counter) == (UUID, True, True, True)
        assert gpu.facts()["uuid"] == UUID
    assert nvml.sessions == 0


def test_an_old_gpu_gives_what_it_has() -> None:
    nvml = FakeNvml([FakeGpu(UUID, average_w=100.5, has_fields=False, has_counter=False)])
    with open_gpu("GPU-12", nvml) as gpu:
        assert gpu.power_mw() == (100_500, MISSING, MISSING)
        assert (gpu.has_fields, gpu.has_average, gpu.has_instant, gpu.has_counter) == (False, True, False, False)
        assert list(gpu.calls()) == ["nvmlDeviceGetPowerUsage"]


@pytest.mark.parametrize("wanted", ["1", "GPU-9", "MIG-1"])
def test_a_gpu_that_is_not_here_is_the_users_mistake(wanted: str) -> None:
    nvml = FakeNvml([FakeGpu(UUID)])
    with pytest.raises(InputError, match="--gpu: "), open_gpu(wanted, nvml):
        pass
    assert nvml.sessions == 0


def test_without_nvml_there_is_nothing_to_characterize() -> None:
    nvml = FakeNvml([])
    nvml.broken = nvml.NVML_ERROR_LIBRARY_NOT_FOUND
    with pytest.raises(InputError, match="--gpu: no NVIDIA driver"), open_gpu("0", nvml):
        pass


def test_runs_cite_the_profiles_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "characterisation"
    assert profiles_of([UUID], folder) == {}
    folder.mkdir()
    path = profile_path(folder, UUID)
    path.write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    assert profiles_of([UUID, "GPU-other"], folder) == {
        UUID: {"file": f"characterisation/{UUID}.json", "sha256": digest}
    }
