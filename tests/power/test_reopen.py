"""Opening a source anew: when, what goes on meanwhile, and what comes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power import reconnect
from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.polling import Lateness, PolledChannel, Poller
from inference_energy.acquire.power.reconnect import SourceReconnector
from inference_energy.acquire.power.sampler import Sampler
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.sources.nvml.source import NvmlSource

TIMEOUT_S = 20


class Meter(SensorChannel):
    def __init__(self, owner: "Meters", device: str, domain: str, optional: bool = False) -> None:
        super().__init__("meters", device, domain, "sampled")
        self.optional = optional
        self._owner = owner
        self._session = owner.session

    def read(self) -> PowerSample:
        assert self._session == self._owner.session, "a closed source was read"
        if (self.device, self.domain) in self._owner.lost:
            raise SourceError("lost")
        return PowerSample(time.monotonic_ns(), 1.0, power_instant_w=1.0)


class Meters(PowerSource):
    """`lost` channels give errors; `heals` says whether opening brings them back."""

    name = "meters"
    grade = "sampled"

    def __init__(self, *channels: tuple[str, str], heals: bool = True, optional: bool = False) -> None:
        self._channels = channels
        self._heals = heals
        self._optional = optional
        self.lost: set[tuple[str, str]] = set()
        self.session = 0
        self.opened = 0
        self.broken: str | None = None
        self.opening = threading.Event()
        self.opening.set()

    def find_devices(self) -> tuple[str, list[str]]:
        return "", []

    def channels(self) -> list[SensorChannel]:
        self.opening.wait(TIMEOUT_S)
        self.opened += 1
        self.session += 1
        if self.broken:
            raise SourceError(self.broken)
        if self._heals and self.session > 1:
            self.lost.clear()
        return [Meter(self, device, domain, self._optional and domain == "dram") for device, domain in self._channels]

    def close(self) -> None:
        self.session += 1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE_S", 0.05)


class Run:
    def __init__(self, *sources: Meters) -> None:
        opened = [(source, source.channels()) for source in sources]
        self.poller = Poller([c for _, channels in opened for c in channels], 0.005)
        by_channel = {polled.channel: polled for polled in self.poller.polled}
        self.reopeners = [SourceReconnector(s, [by_channel[c] for c in channels]) for s, channels in opened]

    def until(self, done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + TIMEOUT_S
        while not done():
            assert time.monotonic() < end_s, [stats.to_dict() for stats in self.poller.stats()]
            for reopener in self.reopeners:
                reopener.check()
            time.sleep(0.005)


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*sources: Meters) -> Run:
        runs.append(Run(*sources))
        runs[-1].poller.start()
        return runs[-1]

    yield start
    for each in runs:
        assert each.poller.stop() == []
        assert not any(reopener.busy(TIMEOUT_S) for reopener in each.reopeners)


def test_a_lost_device_comes_back_when_its_source_is_opened_anew(run: Callable[..., Run]) -> None:
    meters = Meters(("a", "gpu"), ("b", "gpu"))
    running = run(meters)
    first, second = (polled.stats for polled in running.poller.polled)
    running.until(lambda: first.reads > 3 and second.reads > 3)
    meters.lost.add(("a", "gpu"))
    running.until(lambda: first.reopened == 1)
    seen = first.reads
    running.until(lambda: first.reads > seen + 3)
    assert first.errors >= reconnect.ERRORS_BEFORE_REOPENING
    assert second.reopened == 1
    assert meters.opened == 2
    assert running.poller.polled[0].failing == 0


def test_other_sources_go_on_while_one_is_being_opened(run: Callable[..., Run]) -> None:
    slow, other = Meters(("a", "gpu")), Meters(("b", "gpu"))
    running = run(slow, other)
    slow.opening.clear()
    slow.lost.add(("a", "gpu"))
    running.until(running.reopeners[0].busy)
    stats, others = (polled.stats for polled in running.poller.polled)
    before = others.reads
    running.until(lambda: others.reads > before + 10 and stats.last_error == "its source is being reopened")
    assert others.errors == 0
    slow.opening.set()
    running.until(lambda: stats.reopened >= 1 and running.poller.polled[0].failing == 0)


def test_a_channel_beside_working_ones_of_its_device_does_not_stop_them(run: Callable[..., Run]) -> None:
    meters = Meters(("a", "gpu"), ("a", "gpu_memory"))
    running = run(meters)
    meters.lost.add(("a", "gpu_memory"))
    power, memory = (polled.stats for polled in running.poller.polled)
    running.until(lambda: memory.errors > 4 * reconnect.ERRORS_BEFORE_REOPENING)
    assert meters.opened == 1
    assert power.errors == 0


def test_an_optional_channel_neither_saves_nor_costs_a_device(run: Callable[..., Run]) -> None:
    meters = Meters(("a", "cpu_package"), ("a", "dram"), optional=True)
    running = run(meters)
    package, dram = (polled.stats for polled in running.poller.polled)
    meters.lost.add(("a", "dram"))
    running.until(lambda: dram.errors > 4 * reconnect.ERRORS_BEFORE_REOPENING)
    assert meters.opened == 1
    meters.lost = {("a", "cpu_package")}
    running.until(lambda: package.reopened == 1)


class InVirtualTime:
    """One source, whose channels are polled and whose reopener is asked at every half second of a clock of its own."""

    def __init__(self, meters: Meters, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(reconnect, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(reconnect, "FIRST_PAUSE_S", 2.0)
        self.polled = [PolledChannel(channel, 0.5, Lateness()) for channel in meters.channels()]
        self._meters = meters
        self._reopener = SourceReconnector(meters, self.polled)

    def tries_s(self, length_s: float) -> list[float]:
        """Go on for a time; return when in it the source was opened."""
        begun_s, tries_s = self.now_s, []
        while self.now_s < begun_s + length_s:
            for polled in self.polled:
                polled.poll()
            opened = self._meters.opened
            self._reopener.check()
            assert not self._reopener.busy(TIMEOUT_S)
            if self._meters.opened > opened:
                tries_s.append(self.now_s - begun_s)
            self.now_s += 0.5
        return tries_s


def pauses_s(tries_s: list[float]) -> list[float]:
    return [after_s - before_s for before_s, after_s in pairwise(tries_s)]


def test_a_source_that_cannot_be_opened_is_tried_again_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    meters = Meters(("a", "gpu"), ("b", "gpu"))
    running = InVirtualTime(meters, monkeypatch)
    assert running.tries_s(60) == []
    meters.lost.add(("a", "gpu"))
    meters.broken = "still gone"
    tries_s = running.tries_s(200)
    assert tries_s[0] == 0.5 * (reconnect.ERRORS_BEFORE_REOPENING - 1), "at the last of so many errors"
    assert pauses_s(tries_s) == [2, 4, 8, 16, 32, 60, 60]
    stats = running.polled[1].stats
    assert stats.last_error == "reopening meters failed: still gone"
    meters.broken = None
    assert len(running.tries_s(120)) == 1
    assert stats.reopened == 1
    assert [polled.failing for polled in running.polled] == [0, 0]
    meters.lost.add(("a", "gpu"))
    meters.broken = "gone again"
    assert pauses_s(running.tries_s(20)) == [2, 4, 8], "after it was well, from the beginning"


def test_a_device_that_stays_lost_is_tried_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    meters = Meters(("a", "gpu"), heals=False)
    running = InVirtualTime(meters, monkeypatch)
    meters.lost.add(("a", "gpu"))
    assert pauses_s(running.tries_s(200)) == [2, 4, 8, 16, 32, 60, 60]
    assert running.polled[0].stats.reopened == 8


def test_a_channel_that_was_not_found_while_its_device_was_lost_comes_back_after_it(run: Callable[..., Run]) -> None:
    """Opened during the trouble a source may give less than it can: it is opened once more when that is over."""
    meters = Meters(("a", "gpu"), ("a", "gpu_memory"), heals=False)
    every = meters._channels
    running = run(meters)
    power, memory = (polled.stats for polled in running.poller.polled)
    meters.lost = {("a", "gpu"), ("a", "gpu_memory")}
    meters._channels = every[:1]
    running.until(lambda: memory.last_error == "meters no longer gives this after it was reopened")
    meters.lost, meters._channels = set(), every
    seen = memory.reads
    running.until(lambda: memory.reads > seen + 3 and running.poller.polled[0].failing == 0)
    opened = meters.opened
    more = power.reads + 30
    running.until(lambda: power.reads > more)
    assert meters.opened == opened, "and not again and again"


def test_what_is_gone_for_good_does_not_cost_the_others_more_than_one_opening(run: Callable[..., Run]) -> None:
    meters = Meters(("a", "gpu"), ("a", "gpu_memory"), heals=False)
    running = run(meters)
    power, memory = (polled.stats for polled in running.poller.polled)
    meters.lost = {("a", "gpu"), ("a", "gpu_memory")}
    meters._channels = meters._channels[:1]
    running.until(lambda: memory.last_error == "meters no longer gives this after it was reopened")
    meters.lost = set()
    running.until(lambda: running.poller.polled[0].failing == 0)
    opened = meters.opened
    more = power.reads + 100
    running.until(lambda: power.reads > more)
    assert meters.opened <= opened + 1


def test_the_sampler_brings_nvml_back_after_the_driver_was_reloaded(tmp_path: Path) -> None:
    nvml = FakeNvml([FakeGpu("GPU-a", has_counter=False, memory_w=None)])
    spec = SamplerSpec.parse({"interval_s": 0.02, "duration_s": 60})
    source = NvmlSource(nvml=nvml)
    sampler = Sampler(spec, [source], tmp_path / "power.arrows")

    def reload_driver_then_stop() -> None:
        end_s = time.monotonic() + TIMEOUT_S
        for sessions in (1, None, 1):
            if sessions is None:
                time.sleep(0.3)
                nvml.sessions = 0  # every call says Uninitialized from here on
            while sessions is not None and nvml.sessions != sessions and time.monotonic() < end_s:
                time.sleep(0.01)
        time.sleep(0.3)
        sampler.request_stop()

    thread = threading.Thread(target=reload_driver_then_stop)
    thread.start()
    counts = sampler.run()
    thread.join(TIMEOUT_S)
    (channel,) = counts["channels"]
    assert channel["reopened"] == 1
    assert channel["errors"] >= reconnect.ERRORS_BEFORE_REOPENING
    assert (
        str(pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)) in channel["last_error"]
        or "anew" in channel["last_error"]
    )
    assert nvml.sessions == 0
