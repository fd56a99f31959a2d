"""Sensors that do not move."""

import pytest

from inference_energy.acquire.power.base import PowerSample
from inference_energy.acquire.power.polling import StuckDetector


def follow(values: list[float], step_s: float = 1.0, *, counter: bool = False, powered: bool = True) -> str | None:
    still = StuckDetector(30.0)
    for index, value in enumerate(values):
        time_ns = round(index * step_s * 1e9)
        if counter:
            still.update([PowerSample(time_ns, 1.0, energy_counter_j=value)], powered)
        else:
            still.update([PowerSample(time_ns, 1.0, power_average_w=value)])
    return still.fault()


@pytest.mark.parametrize("counter", [False, True])
def test_one_value_for_too_long_is_a_fault_also_after_it_moved_again(counter: bool) -> None:
    moving = [float(index) for index in range(20)]
    assert follow(moving + [70.0] * 30, counter=counter) is None, "30 readings span 29 s"
    fault = follow([*moving, *[70.0] * 40, 71.0, 72.0], counter=counter)
    assert fault == "gave the same value, 70, for 39 s: it seems stuck"


def test_a_counter_may_rest_while_its_device_draws_nothing() -> None:
    assert follow([5.0] * 100, counter=True, powered=False) is None
    assert "5, for 99 s" in (follow([5.0] * 100, counter=True) or "")


def test_only_zeros_are_told_sooner_and_a_zero_now_and_then_is_none() -> None:
    assert follow([0.0] * 10) == "gave only zeros: 10 readings in 9 s"
    assert follow([0.0] * 9) is None
    assert follow([0.0] * 10, step_s=0.1) is None
    assert follow([0.0, 0.0, 1.0, 0.0, *[0.0] * 10]) is None


def test_many_readings_at_once_are_as_each_after_the_other() -> None:
    values = [1.0, *[70.0] * 45, 2.0, 3.0]
    readings = [PowerSample(index * 10**9, 1.0, power_instant_w=value) for index, value in enumerate(values)]
    for size in (1, 7, 20, 48):
        still = StuckDetector(30.0)
        for first in range(0, len(readings), size):
            still.update(readings[first : first + size])
        assert still.fault() == "gave the same value, 70, for 44 s: it seems stuck"


def test_nothing_read_is_no_fault() -> None:
    assert follow([]) is None
