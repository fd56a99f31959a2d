"""Which readings are believed: powers against a limit, and the steps of energy counters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.contracts.plausible_power import (
    CheckedCounter,
    checked_counter,
    implausible,
    limit_w,
    stated_limit_w,
)


def checked(
    counter_j: list[float], period_s: float = 0.5, domain: str = "gpu", highest_w: float = 700.0
) -> CheckedCounter:
    times_ns = np.arange(len(counter_j), dtype=np.int64) * round(period_s * 1e9)
    return checked_counter(times_ns, np.array(counter_j), domain, highest_w)


def test_a_steady_counter_is_believed_whole() -> None:
    found = checked([150.0 * step for step in range(20)])
    assert (len(found.counter_j), len(found.withheld_ns), len(found.breaks_ns)) == (20, 0, 0)


@pytest.mark.parametrize("wrong_j", [-5.0, 0.0, 1e9, 749.0, float("inf")])
def test_a_glitch_of_one_reading_is_left_out(wrong_j: float) -> None:
    values = [150.0 * step + 1000.0 for step in range(10)]
    values[5] = wrong_j
    found = checked(values)
    assert found.withheld_j.tolist() == [wrong_j]
    assert found.counter_j.tolist() == values[:5] + values[6:]
    assert len(found.breaks_ns) == 0


def test_a_wrong_first_reading_is_left_out() -> None:
    found = checked([9e9, *(150.0 * step for step in range(9))])
    assert found.withheld_j.tolist() == [9e9]
    assert len(found.breaks_ns) == 0


@pytest.mark.parametrize("shift_j", [-1350.0, 5000.0, 1e8])
def test_a_counter_that_goes_on_from_elsewhere_broke_there(shift_j: float) -> None:
    values = [150.0 * step + 1000.0 for step in range(10)]
    values[5:] = [value + shift_j for value in values[5:]]
    found = checked(values)
    assert found.breaks_ns.tolist() == [[2_000_000_000, 2_500_000_000]]
    assert found.counter_j.tolist() == values


def test_a_gpus_counter_of_32_bits_wraps() -> None:
    wrap_j = 2**32 / 1e3
    true_j = [wrap_j - 500 + 150.0 * step for step in range(8)]
    found = checked([value % wrap_j for value in true_j])
    assert found.counter_j == pytest.approx(true_j)
    reset = checked([wrap_j / 2, wrap_j / 2 + 150, *(150.0 * step for step in range(8))])
    assert len(reset.breaks_ns) == 1, "from the middle of its range it began anew"


def test_a_counter_that_stood_still_may_catch_up() -> None:
    values = [0.0, 150.0, 300.0, *[300.0] * 10, 1950.0, 2100.0, 2250.0]
    found = checked(values)
    assert (len(found.withheld_ns), len(found.breaks_ns)) == (0, 0)


def test_a_counter_of_whole_watt_hours_is_believed() -> None:
    values = [3600.0 * (second // 18) for second in range(60)]
    found = checked(values, period_s=1.0, domain="node", highest_w=400.0)
    assert (len(found.withheld_ns), len(found.breaks_ns)) == (0, 0)


@given(st.lists(st.floats(allow_nan=False), max_size=40))
def test_every_reading_is_believed_or_withheld_once(values: list[float]) -> None:
    found = checked(values)
    assert len(found.counter_j) + len(found.withheld_ns) == len(values)
    assert np.all(np.isfinite(found.counter_j))
    falls = int(np.sum(np.diff(found.counter_j) < 0))
    assert falls <= len(found.breaks_ns)


def test_powers_are_held_to_the_limit_and_missing_ones_are_not_wrong() -> None:
    powers_w = np.array([-1.0, 0.0, 350.0, 700.0, 700.1, np.inf, np.nan])
    assert implausible(powers_w, 700.0).tolist() == [True, False, False, False, True, True, False]


def test_the_limit_is_the_logs_else_the_domains() -> None:
    assert limit_w("gpu", {"plausible_power_w": 525.0}) == 525.0
    assert limit_w("gpu", {"plausible_power_w": "much"}) == limit_w("gpu", {}) == 2000.0
    assert stated_limit_w([350.0, 400.0, None, 0.0, 4294967.0], 1.5) == 600.0
    assert stated_limit_w([None, 0.0], 1.5) is None
