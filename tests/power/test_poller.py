"""Polling: deadlines that do not drift, and channels that fail without ending the others."""

import threading
import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.power.base import STILL_LIMIT_S, PowerSample, SensorChannel, SourceError
from inference_energy.acquire.power.polling import Deadlines, Lateness, Poller
from inference_energy.contracts.power import GPU_SAMPLES


class Scripted(SensorChannel):
    def __init__(self, device: str, read: Callable[[int], float], period_s: float | None = None) -> None:
        super().__init__("stub", device, "gpu", "sampled", period_s)
        self._read = read
        self.count = 0

    def read(self) -> PowerSample:
        self.count += 1
        return PowerSample(time.monotonic_ns(), 1.0, power_instant_w=self._read(self.count))


def poll(
    channels: list[SensorChannel], until: Callable[[Poller], bool]
) -> tuple[Poller, list[tuple[SensorChannel, PowerSample]]]:
    rows: list[tuple[SensorChannel, PowerSample]] = []

    def collect() -> None:
        rows.extend((channel, reading) for channel, readings in poller.collect() for reading in readings)

    poller = Poller(channels, 0.01)
    poller.start()
    end_s = time.monotonic() + 20
    while not until(poller) and time.monotonic() < end_s:
        collect()
        time.sleep(0.01)
    assert poller.stop() == []
    collect()
    return poller, rows


@given(st.integers(1, 10**10), st.lists(st.integers(0, 10**11), min_size=1, max_size=50))
def test_deadlines_stay_on_the_grid_ahead_of_now_and_skip_what_has_passed(period_ns: int, busy_ns: list[int]) -> None:
    start_ns = 12_345
    deadlines = Deadlines(start_ns, period_ns)
    due_ns = start_ns
    for made, busy in enumerate(busy_ns, start=1):
        now_ns = due_ns + busy
        due_ns = deadlines.advance(now_ns)
        assert (due_ns - start_ns) % period_ns == 0
        assert now_ns < due_ns <= now_ns + period_ns
        assert (due_ns - start_ns) // period_ns == made + deadlines.missed


def test_a_failing_channel_is_tried_again_and_the_others_go_on() -> None:
    def flaky(count: int) -> float:
        if count % 2:
            raise SourceError(f"try {count}")
        return 7.0

    def broken(_: int) -> float:
        raise ZeroDivisionError("a bug")

    channels: list[SensorChannel] = [
        Scripted("flaky", flaky),
        Scripted("broken", broken),
        Scripted("good", lambda _: 5.0),
    ]
    poller, rows = poll(channels, lambda poller: poller.stats()[2].reads >= 10)
    by_device = {stats.device: stats for stats in poller.stats()}
    assert by_device["good"].reads >= 10
    assert by_device["good"].errors == 0
    assert by_device["flaky"].reads >= 4
    assert by_device["flaky"].errors >= 4
    assert (by_device["flaky"].last_error or "").startswith("try ")
    assert by_device["broken"].reads == 0
    assert by_device["broken"].last_error == "ZeroDivisionError: a bug"
    assert [stats.device for stats in poller.silent()] == ["broken"]
    assert poller.latest_power_w() == {"gpu": 12.0}
    assert len(rows) == by_device["good"].reads + by_device["flaky"].reads


def test_a_hanging_slow_channel_holds_up_nobody_and_is_named() -> None:
    release = threading.Event()

    def hang(_: int) -> float:
        release.wait(60)
        return 1.0

    good = Scripted("good", lambda _: 5.0)
    poller = Poller([Scripted("slow", hang, period_s=0.01), good], 0.01)
    poller.start()
    end_s = time.monotonic() + 20
    while good.count < 10 and time.monotonic() < end_s:
        time.sleep(0.01)
    hanging = poller.stop(timeout_s=0.2)
    release.set()
    assert good.count >= 10
    assert hanging == ["poll-slow"]


def test_no_reading_is_lost_or_doubled_while_threads_read_and_one_collects() -> None:
    class Burst(Scripted):
        def read_many(self) -> list[PowerSample]:
            first = 50 * self.count
            self.count += 1
            return [PowerSample(first + place, 1.0, power_instant_w=1.0) for place in range(50)]

    channels: list[SensorChannel] = [Burst(f"GPU-{number}", float, period_s=0.0005) for number in range(4)]
    poller, rows = poll(channels, lambda poller: min(stats.reads for stats in poller.stats()) >= 100)
    for channel, stats in zip(channels, poller.stats(), strict=True):
        times = [reading.timestamp_ns for of, reading in rows if of is channel]
        assert times == list(range(50 * stats.reads))
        assert stats.rows == len(times)
    assert poller.collect() == [(channel, []) for channel in channels]


def test_a_read_longer_than_the_interval_counts_the_polls_it_cost() -> None:
    def slow(_: int) -> float:
        time.sleep(0.035)
        return 1.0

    poller, _ = poll([Scripted("slow", slow)], lambda poller: poller.stats()[0].reads >= 4)
    (stats,) = poller.stats()
    assert stats.missed >= 2 * (stats.reads - 1)


def test_a_phase_puts_the_later_deadlines_between_the_first_and_a_period_on() -> None:
    deadlines = Deadlines(1_000, 100, phase_ns=30)
    assert deadlines.advance(1_005) == 1_030
    assert deadlines.advance(1_031) == 1_130
    assert deadlines.advance(1_331) == 1_430
    assert deadlines.missed == 2
    slow = Deadlines(1_000, 100, phase_ns=30)
    assert slow.advance(1_090) == 1_130
    assert slow.missed == 0, "the first poll took less than a period"
    assert Deadlines(1_000, 100, phase_ns=30).advance(1_250) == 1_330


class Ring(SensorChannel):
    """Several readings a read, and none at first."""

    def __init__(self) -> None:
        super().__init__("stub", "ring", GPU_SAMPLES, "sampled", period_s=0.02)
        self.optional = True
        self.count = 0

    def read(self) -> PowerSample:
        raise SourceError("read_many is what is asked")

    def read_many(self) -> list[PowerSample]:
        self.count += 1
        return [PowerSample(time.monotonic_ns(), 1.0, power_instant_w=9.0)] * (3 if self.count > 1 else 0)

    def diagnostics(self) -> dict[str, Any]:
        return {"asked": self.count}


def test_one_call_may_give_many_readings_or_none() -> None:
    poller, rows = poll([Ring(), Scripted("good", lambda _: 5.0)], lambda poller: poller.stats()[0].reads >= 4)
    ring, good = poller.stats()
    assert ring.rows == 3 * (ring.reads - 1) == sum(reading.power_w == 9.0 for _, reading in rows)
    assert good.rows == good.reads
    assert ring.to_dict()["asked"] == ring.reads
    assert poller.latest_power_w() == {"gpu": 5.0}, "samples are not the newest power of a domain"


def test_an_optional_channel_is_not_waited_for() -> None:
    class Mute(Ring):
        def read_many(self) -> list[PowerSample]:
            raise SourceError("never")

    poller, _ = poll([Mute(), Scripted("good", lambda _: 5.0)], lambda poller: poller.stats()[1].reads >= 1)
    assert poller.silent() == []
    assert poller.stats()[0].last_error == "never"


def test_how_late_polls_begin_is_told() -> None:
    lateness = Lateness()
    assert lateness.in_ms() == {}
    for late_us in [*range(1, 99), 400, 5_000]:
        lateness.add(late_us * 1_000)
    assert lateness.in_ms() == {"p50": 0.06, "p99": 0.41, "max": 5.0}
    poller, _ = poll([Scripted("good", lambda _: 5.0)], lambda poller: poller.stats()[0].reads >= 5)
    late_ms = poller.stats()[0].late_ms
    assert 0 <= late_ms["p50"] <= late_ms["p99"] <= late_ms["max"]


def test_a_value_that_never_moves_is_a_fault_of_its_channel() -> None:
    channel, modelled = Scripted("stuck", lambda _: 5.0), Scripted("moving", float)
    channel.still_limit_s = modelled.still_limit_s = 0.05
    poller, _ = poll([channel, modelled], lambda poller: poller.stats()[0].reads >= 20)
    stuck, moving = poller.stats()
    assert len(stuck.faults) == 1 and stuck.faults[0].startswith("gave the same value, 5, for ")
    assert moving.faults == []


def test_only_a_model_may_give_one_value_for_ever() -> None:
    assert Named("cpu", "cpu", "cpu", "modelled").still_limit_s is None
    assert Named("nvml", "GPU-a", "gpu", "sampled").still_limit_s == STILL_LIMIT_S


class Named(SensorChannel):
    def read(self) -> PowerSample:
        raise AssertionError("these tests do not read it")
