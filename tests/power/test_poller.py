"""Polling: deadlines that do not drift, and channels that fail without ending the others."""

import threading
import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.power.base import Channel, Reading, SourceError
from inference_energy.acquire.power.deadlines import Deadlines
from inference_energy.acquire.power.poller import Poller


class Scripted(Channel):
    def __init__(self, device: str, read: Callable[[int], float], period_s: float | None = None) -> None:
        super().__init__("stub", device, "gpu", "sampled", period_s)
        self._read = read
        self.count = 0

    def read(self) -> Reading:
        self.count += 1
        return Reading(time.monotonic_ns(), 1.0, power_instant_w=self._read(self.count))


def poll(channels: list[Channel], until: Callable[[Poller], bool]) -> tuple[Poller, list[tuple[Channel, Reading]]]:
    rows: list[tuple[Channel, Reading]] = []
    poller = Poller(channels, 0.01, lambda channel, reading: rows.append((channel, reading)))
    poller.start()
    end_s = time.monotonic() + 20
    while not until(poller) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert poller.stop() == []
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

    channels: list[Channel] = [Scripted("flaky", flaky), Scripted("broken", broken), Scripted("good", lambda _: 5.0)]
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
    rows: list[Reading] = []
    poller = Poller([Scripted("slow", hang, period_s=0.01), good], 0.01, lambda _, reading: rows.append(reading))
    poller.start()
    end_s = time.monotonic() + 20
    while good.count < 10 and time.monotonic() < end_s:
        time.sleep(0.01)
    hanging = poller.stop(timeout_s=0.2)
    release.set()
    assert good.count >= 10
    assert hanging == ["poll-slow"]


def test_a_read_longer_than_the_interval_counts_the_polls_it_cost() -> None:
    def slow(_: int) -> float:
        time.sleep(0.035)
        return 1.0

    poller, _ = poll([Scripted("slow", slow)], lambda poller: poller.stats()[0].reads >= 4)
    (stats,) = poller.stats()
    assert stats.missed >= 2 * (stats.reads - 1)
