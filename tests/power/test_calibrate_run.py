"""Whole runs of `calibrate` on the virtual node: in virtual time with a meter of power, in real time with a counter."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest
from fake_http import Response, device

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel
from inference_energy.acquire.power.calibrate import measure
from inference_energy.acquire.power.calibrate.measure import METERS, ChannelReader, Plan, calibrate, meter_source
from inference_energy.acquire.power.sources.nvml import power as nvml_power
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.bench.config import Node
from inference_energy.bench.live import step_load
from inference_energy.bench.live.node import VARIABLE, make_node, node_here
from inference_energy.bench.shims import pynvml as virtual
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

GAIN, OFFSET_W = 1.08, 40.0


class _Meter(PowerSource):
    """A meter of the whole node with one channel, made by `make` when it is opened."""

    name = "stub-meter"
    grade = "metered"

    def __init__(self, make: Callable[[], SensorChannel]) -> None:
        self._make = make

    def find_devices(self) -> tuple[str, list[str]]:
        return "a stub", ["plug"]

    def channels(self) -> list[SensorChannel]:
        return [self._make()]


class _PowerChannel(SensorChannel):
    """Shows GAIN times the virtual GPU's average of a second, and OFFSET_W."""

    def __init__(self) -> None:
        super().__init__("stub-meter", "plug", "node", "metered", 0.2)
        self._board = NvmlSource().channels()[0]

    def read(self) -> PowerSample:
        reading = self._board.read()
        assert reading.power_average_w is not None
        return PowerSample(reading.timestamp_ns, 1.0, power_average_w=GAIN * reading.power_average_w + OFFSET_W)


class _CounterChannel(SensorChannel):
    """Shows GAIN times each count that the node itself has read, and OFFSET_W since: the same truth, however late."""

    def __init__(self, counts: list[PowerSample]) -> None:
        super().__init__("stub-meter", "plug", "node", "metered", 0.1)
        self._counts = counts
        self._shown = 0

    def read(self) -> PowerSample:
        raise AssertionError("read_many is called")

    def read_many(self) -> list[PowerSample]:
        new = self._counts[self._shown :]
        self._shown += len(new)
        return [self._seen(count) for count in new]

    def _seen(self, count: PowerSample) -> PowerSample:
        assert count.energy_counter_j is not None
        offset_j = OFFSET_W * (count.timestamp_ns - self._counts[0].timestamp_ns) / 1e9
        return PowerSample(count.timestamp_ns, 1.0, energy_counter_j=GAIN * count.energy_counter_j + offset_j)


class _VirtualTime:
    """A clock that only sleeping moves; what is due meanwhile is called at its time, in one thread."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._calling = False

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        self._due.append((self.now_ns, round(period_s * 1e9), call))

    def forget(self) -> None:
        self._due.clear()

    def sleep(self, length_s: float) -> None:
        end_ns = self.now_ns + round(length_s * 1e9)
        while not self._calling and self._due:
            first = min(range(len(self._due)), key=lambda place: self._due[place][0])
            due_ns, period_ns, call = self._due[first]
            if due_ns > end_ns:
                break
            self._due[first] = (due_ns + period_ns, period_ns, call)
            self.now_ns = max(self.now_ns, due_ns)
            self._calling = True
            call()  # sleeps as long as the call of a driver takes
            self._calling = False
        self.now_ns = max(self.now_ns, end_ns)


@pytest.fixture
def see_virtual_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes a virtual node that this process sees."""

    def make() -> None:
        monkeypatch.setitem(sys.modules, "pynvml", virtual)
        made = make_node(tmp_path / "node", Node.parse({}))
        monkeypatch.setenv(VARIABLE, str(made.folder))
        monkeypatch.setenv("INFERENCE_ENERGY_LOCK_DIRECTORY", str(tmp_path))
        monkeypatch.setenv("INFERENCE_ENERGY_STEP_LOAD", f"{sys.executable} -m inference_energy.bench.live.step_load")

    return make


@pytest.fixture
def in_virtual_time(see_virtual_node: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual node whose time passes only by sleeping: threads and the load's process become calls in it."""
    clock = _VirtualTime()

    class Reader(ChannelReader):
        def __enter__(self) -> Self:
            for channel in self.readings:
                clock.every(channel.period_s or measure.PERIOD_S, lambda of=channel: self._read(of))
            return self

        def __exit__(self, *_: object) -> None:
            clock.forget()

        def _read(self, channel: SensorChannel) -> None:
            self.readings[channel] += channel.read_many()

    class Load:
        what = "in virtual time"

        def __init__(self, command: Sequence[str], gpu: str, steps: Sequence[float]) -> None:
            self._steps = steps

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def go(self) -> None: ...

        def edges(self) -> list[tuple[int, bool]]:
            node = node_here()
            assert node is not None
            load = step_load._Load(node)
            start_ns, edges = clock.now_ns, []
            for index, length_s in enumerate(self._steps):
                load.step(start_ns, length_s, index % 2 == 1)
                edges.append((start_ns, index % 2 == 1))
                start_ns += round(length_s * 1e9)
            clock.sleep((start_ns - clock.now_ns) / 1e9)
            load.close()
            return edges[1:]

    monkeypatch.setattr(time, "monotonic_ns", lambda: clock.now_ns)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(measure, "ChannelReader", Reader)
    monkeypatch.setattr(measure, "StepLoad", Load)
    see_virtual_node()


@pytest.fixture
def in_real_time(see_virtual_node: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual node whose counter is read often enough for short phases."""
    monkeypatch.setattr(measure, "SETTLE_S", 0.5)
    monkeypatch.setattr(measure, "END_S", 0.2)
    monkeypatch.setattr(measure, "SHORTEST_PHASE_S", 1.0)
    monkeypatch.setattr(nvml_power, "COUNTER_PERIOD_S", 0.1)
    see_virtual_node()


def test_a_whole_run_finds_the_gain_and_offset_of_a_meter_of_power(in_virtual_time: None) -> None:
    name, found = calibrate(_Meter(_PowerChannel), Plan(None, 0, 15.0, 2, None))
    assert name == "node"
    assert found.grade == "simulated", "whatever the meter is"
    assert found.gain == pytest.approx(GAIN, abs=0.01)
    assert found.offset_w == pytest.approx(OFFSET_W, abs=5)
    rounds = [f"{load} {number}" for number in (1, 2) for load in ("full load", "half load", "rest")]
    assert [phase.phase for phase in found.phases] == ["cold idle", *rounds]
    idle_w, *loaded_w = [phase.own_w for phase in found.phases]
    for full_w, half_w, rest_w in (loaded_w[:3], loaded_w[3:]):
        assert idle_w < rest_w < half_w < full_w
        assert half_w == pytest.approx((full_w + rest_w) / 2, rel=0.05)
    assert found.meter["devices"] == ["plug"]
    assert all(channel.startswith("nvml GPU-") for channel in found.channels)


def test_threads_and_a_loads_process_measure_the_same_in_real_time(
    in_real_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meter counts what the node counts, so that gain and offset are exact however late anything is read."""
    counts: list[PowerSample] = []
    read = nvml_power.CounterChannel.read

    def read_and_tell(channel: nvml_power.CounterChannel) -> PowerSample:
        counts.append(read(channel))
        return counts[-1]

    monkeypatch.setattr(nvml_power.CounterChannel, "read", read_and_tell)
    said: list[str] = []
    _, found = calibrate(_Meter(lambda: _CounterChannel(counts)), Plan(None, 0, 2.5, 1, None), said.append)
    assert found.gain == pytest.approx(GAIN, rel=1e-6)
    assert found.offset_w == pytest.approx(OFFSET_W, abs=1e-3)
    assert [phase.phase for phase in found.phases] == ["cold idle", "full load 1", "half load 1", "rest 1"]
    assert any("virtual load at the power limit" in line for line in said)


def test_a_device_that_is_not_read_and_a_meter_that_does_not_answer_are_refused(in_real_time: None) -> None:
    meter = _Meter(_PowerChannel)
    with pytest.raises(InputError, match="no power of GPU-none to compare"):
        calibrate(meter, Plan("GPU-none", 0, 3.0, 1, None))
    with pytest.raises(InputError, match="--gpu 3: 1 GPU"):
        calibrate(meter, Plan(None, 3, 3.0, 1, None))
    with device(lambda _: Response({"code": 404}, 404)) as fake:
        plug = meter_source("smart-plug", json.dumps({"kind": "shelly", "address": fake.url}))
        with pytest.raises(RunError, match=r"smart-plug .*gave no reading: .*no Switch or PM1"):
            calibrate(plug, Plan(None, 0, 1.5, 1, None))
    with pytest.raises(InputError, match=r"--meter smart-plug: .*is not set"):
        calibrate(METERS["smart-plug"][0](None), Plan(None, 0, 3.0, 1, None))
