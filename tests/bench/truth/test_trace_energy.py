"""True power and its integral: from a log, at the edges of its stretches, with tenants."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.bench.config import EngineSettings, Tenant
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest
from inference_energy.bench.truth.power_trace import PowerWithTenants, Steps, device_power, host_power, power_trace
from tests.bench.truth.loads import Load, loads, physics_of, run

pytestmark = pytest.mark.slow

SECOND = 10**9


def new_engine() -> BenchEngine:
    return BenchEngine(physics_of(EngineSettings()))


def served_engine() -> BenchEngine:
    """A rest of 1 s and three steps."""
    engine = new_engine()
    engine.rest(SECOND)
    engine.add(BenchRequest(1, 10, 3))
    while engine.has_work:
        engine.begin()
        engine.complete()
    return engine


def times(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    lengths = draw(st.lists(st.integers(1, 3 * SECOND), min_size=1, max_size=12))
    starts = np.cumsum([draw(st.integers(0, SECOND)), *lengths])
    values = draw(st.lists(st.floats(0, 1000), min_size=len(starts), max_size=len(starts)))
    return Steps(starts.astype(np.int64), np.array(values))


def brute_energy_j(power: Steps, start_ns: int, end_ns: int) -> float:
    """The integral, piece by piece, without sums kept."""
    cuts = sorted({start_ns, end_ns, *(int(t) for t in power.starts_ns if start_ns < t < end_ns)})
    total_j = 0.0
    for left, right in itertools.pairwise(cuts):
        holding = [w for t, w in zip(power.starts_ns, power.values_w, strict=True) if t <= left]
        total_j += (holding[-1] if holding else power.values_w[0]) * (right - left) / 1e9
    return total_j


MOMENTS = st.tuples(st.integers(-SECOND, 40 * SECOND), st.integers(0, 20 * SECOND))


@given(steps(), MOMENTS)
def test_energy_is_the_integral_of_power(power: Steps, moment: tuple[int, int]) -> None:
    start_ns, end_ns = moment[0], moment[0] + moment[1]
    before_j, after_j = power.energy_j(times(start_ns, end_ns))
    assert after_j - before_j == pytest.approx(brute_energy_j(power, start_ns, end_ns), rel=1e-9, abs=1e-8)
    assert after_j >= before_j


def test_value_holds_from_its_start_until_the_next() -> None:
    power = Steps(times(10, 20, 30), np.array([1.0, 2.0, 3.0]))
    assert list(power.power_w(times(5, 10, 19, 20, 29, 30, 99))) == [1, 1, 1, 2, 2, 3, 3]
    assert list(power.energy_j(times(0, 10, 20, 25, 40)) * 1e9) == pytest.approx([-10, 0, 10, 20, 60])


@given(steps(), st.lists(st.integers(-SECOND, 40 * SECOND), max_size=6))
def test_asking_one_by_one_or_together_is_the_same(power: Steps, moments: list[int]) -> None:
    together = power.energy_j(times(*moments)), power.power_w(times(*moments))
    for place, moment in enumerate(moments):
        assert power.energy_j(times(moment))[0] == together[0][place]
        assert power.power_w(times(moment))[0] == together[1][place]


TENANTS = st.builds(
    lambda power_w, start_s, length_s: Tenant(power_w=power_w, start_s=start_s, end_s=start_s + length_s),
    st.floats(0.1, 300),
    st.floats(0, 20),
    st.floats(0, 20),
)


@given(steps(), st.lists(TENANTS, min_size=1, max_size=3), st.integers(0, 5 * SECOND), MOMENTS)
def test_tenants_add_their_power_and_their_energy(
    own: Steps, tenants: list[Tenant], origin_ns: int, moment: tuple[int, int]
) -> None:
    both = PowerWithTenants(own, tenants, origin_ns)
    asked = times(moment[0], moment[0] + moment[1])
    added_j = np.diff(both.energy_j(asked))[0] - np.diff(own.energy_j(asked))[0]
    expected_j, added_w = 0.0, np.zeros(2)
    for tenant in tenants:
        start_ns, end_ns = (origin_ns + round(at_s * 1e9) for at_s in (tenant.start_s, tenant.end_s))
        overlap = max(0, min(end_ns, int(asked[1])) - max(start_ns, int(asked[0])))
        expected_j += tenant.power_w * overlap / 1e9
        added_w += [tenant.power_w * (start_ns <= t < end_ns) for t in asked]
    assert added_j == pytest.approx(expected_j, rel=1e-9, abs=1e-7)
    np.testing.assert_allclose(both.power_w(asked) - own.power_w(asked), added_w, atol=1e-9)


def test_tenant_is_there_from_its_start_and_not_at_its_end() -> None:
    own = Steps(times(0), np.array([100.0]))
    both = PowerWithTenants(own, [Tenant(power_w=50.0, start_s=2.0, end_s=3.0)], origin_ns=SECOND)
    asked = times(3 * SECOND - 1, 3 * SECOND, 4 * SECOND - 1, 4 * SECOND)
    assert list(both.power_w(asked)) == [100, 150, 150, 100]
    assert both.energy_j(times(10 * SECOND))[0] - own.energy_j(times(10 * SECOND))[0] == pytest.approx(50.0)


@given(loads())
@settings(max_examples=30)
def test_trace_has_the_energy_of_the_log(load: Load) -> None:
    engine = run(load).engine
    log, trace = engine.segments, power_trace(engine.segments)
    if not len(trace):
        return
    asked = times(log.start_ns[0], *log.end_ns)
    for power, column in ((device_power(trace), "gpu_w"), (host_power(trace), "host_w")):
        values = log.floats(column)
        lengths_s = (log.integers("end_ns") - log.integers("start_ns")) / 1e9
        np.testing.assert_allclose(np.diff(power.energy_j(asked)), values * lengths_s, rtol=1e-9, atol=1e-9)
        assert np.array_equal(power.power_w(log.integers("start_ns")), values)
        assert np.array_equal(power.power_w(log.integers("end_ns") - 1), values)


def test_trace_says_when_a_step_ran_and_what_the_host_drew() -> None:
    engine = served_engine()
    trace = power_trace(engine.segments)
    settings_ = engine.physics.engine
    assert list(trace["busy"]) == [0, 1, 1, 1]
    assert list(trace["host_w"]) == [settings_.host_idle_w, *[settings_.host_busy_w] * 3]
    assert list(trace["start_ns"]) == list(engine.segments.start_ns)
    assert list(trace["events"]) == list(engine.segments.events)
    np.testing.assert_allclose(trace["temperature_c"], engine.segments.floats("temperature_c"), rtol=1e-6)


def test_device_power_counts_tenants_from_the_origin() -> None:
    trace = power_trace(served_engine().segments)
    alone = device_power(trace)
    shared = device_power(trace, [Tenant(power_w=40.0, start_s=0.5, end_s=0.75)], origin_ns=0)
    asked = times(0, SECOND)
    assert np.diff(shared.energy_j(asked))[0] - np.diff(alone.energy_j(asked))[0] == pytest.approx(10.0)


def test_log_without_a_row_is_a_trace_without_a_row() -> None:
    assert len(power_trace(new_engine().segments)) == 0
