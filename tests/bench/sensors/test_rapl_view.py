"""RAPL of the bench, read by the source that reads a real one."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources import rapl
from inference_energy.acquire.power.sources.rapl import CounterAccumulator, RaplSource, find_zones
from inference_energy.bench.config import EngineSettings, RaplSensor
from inference_energy.bench.sensors.rapl import BOARD_W, PowercapTree, RaplView, unwrapped_j
from tests.bench.sensors.waves import ORIGIN_NS, at, between_j, every, square

pytestmark = pytest.mark.slow

HOST = square(150.0, 95.0, 3.1, 2.3, length_s=4000)
RANGE_J = 30_000.0
DRAM_W = 18.0


def view(**sensor: Any) -> RaplView:
    settings = {"present": True, "max_energy_range_j": RANGE_J, **sensor}
    return RaplView(RaplSensor(**settings), HOST, EngineSettings(dram_w=DRAM_W), origin_ns=ORIGIN_NS, seed=4)


def test_an_hour_with_wraps_read_through_the_powercap_folder_is_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PowercapTree(tmp_path, view(with_psys=True))
    now_ns = at(1.0).item()
    folder.make(now_ns)

    def wait(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(seconds * 1e9)
        folder.refresh(now_ns)

    monkeypatch.setattr(rapl, "timed", lambda call: (call(), now_ns, 1.0))
    channels = RaplSource(tmp_path, sleep=wait).channels()
    assert [(channel.device, channel.domain) for channel in channels] == [
        ("package-0", "cpu_package"),
        ("package-0", "dram"),
        ("psys", "psys"),
    ]
    start_ns = now_ns
    energy_j = [[channel.read().energy_counter_j for channel in channels]]
    for _ in range(1800):
        wait(2.0)
        energy_j.append([channel.read().energy_counter_j for channel in channels])
    host_j = between_j(HOST, start_ns, now_ns)
    assert host_j > 10 * RANGE_J
    assert energy_j[-1] == pytest.approx(
        [host_j, 3600 * DRAM_W, host_j + 3600 * (DRAM_W + BOARD_W)], abs=2 * 0.001 * 200
    )


def test_packages_share_the_hosts_power_and_each_has_its_memory(tmp_path: Path) -> None:
    two = view(packages=2, with_psys=True)
    PowercapTree(tmp_path, two).make(ORIGIN_NS)
    assert [(zone.path.name, zone.device, zone.domain) for zone in find_zones(tmp_path)] == [
        ("intel-rapl:0", "package-0", "cpu_package"),
        ("intel-rapl:0:0", "package-0", "dram"),
        ("intel-rapl:1", "package-1", "cpu_package"),
        ("intel-rapl:1:0", "package-1", "dram"),
        ("intel-rapl:2", "psys", "psys"),
    ]
    times_ns = every(1.0, 5, 305)
    energy_j = {zone.folder: unwrapped_j(two.raw_uj(zone, times_ns), two.range_uj)[-1] for zone in two.zones}
    host_j = between_j(HOST, times_ns[0], times_ns[-1])
    assert energy_j["intel-rapl:0"] == pytest.approx(host_j / 2, abs=0.3)
    assert energy_j["intel-rapl:1:0"] == pytest.approx(300 * DRAM_W / 2, abs=0.1)
    parts_j = sum(energy for folder, energy in energy_j.items() if folder != "intel-rapl:2")
    assert energy_j["intel-rapl:2"] == pytest.approx(parts_j + 300 * BOARD_W, abs=0.5)


def test_counters_move_at_their_updates_in_quanta_and_stay_below_the_range() -> None:
    coarse = view(update_period_s=0.05, quantum_j=0.5)
    zone = coarse.zones[0]
    raw_uj = coarse.raw_uj(zone, every(0.001, 0, 400))
    assert raw_uj.min() >= 0 and raw_uj.max() < coarse.range_uj
    steps_uj = np.diff(raw_uj)[np.diff(raw_uj) != 0]
    assert len(steps_uj) == pytest.approx(8000, abs=2)
    assert set(steps_uj % 500_000) <= {0, -coarse.range_uj % 500_000}
    assert (steps_uj < 0).sum() in (1, 2)


def test_one_reading_at_a_time_shows_what_an_array_does() -> None:
    seen = view()
    times_ns = every(0.0173, 3, 9)
    for zone in seen.zones:
        polls = [seen.raw_uj(zone, times_ns[place : place + 1]).item() for place in range(len(times_ns))]
        assert np.array_equal(polls, seen.raw_uj(zone, times_ns))


def test_unwrapping_is_that_of_the_real_source() -> None:
    seen = view()
    raw_uj = seen.raw_uj(seen.zones[0], every(1.0, 0, 1000))
    assert (np.diff(raw_uj) < 0).sum() >= 3
    accumulator = CounterAccumulator(seen.range_uj)
    assert unwrapped_j(raw_uj, seen.range_uj).tolist() == [accumulator.add(int(value)) for value in raw_uj]


def test_a_sub_zone_lies_within_its_zone_and_beside_it(tmp_path: Path) -> None:
    folder = PowercapTree(tmp_path, view())
    folder.make(at(1.0).item())
    folder.refresh(at(2.0).item())
    within, beside = tmp_path / "intel-rapl:0" / "intel-rapl:0:0", tmp_path / "intel-rapl:0:0"
    assert (within / "name").read_text() == "dram\n"
    assert (within / "energy_uj").read_text() == (beside / "energy_uj").read_text()
    assert (beside / "max_energy_range_uj").read_text() == f"{round(RANGE_J * 1e6)}\n"
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_can_be_made_again_in_another_place(tmp_path: Path) -> None:
    for _ in range(2):
        PowercapTree(tmp_path / "a", view()).make(at(1.0).item())
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(find_zones(tmp_path / "b")) == 2


def test_a_host_without_rapl_shows_no_counter(tmp_path: Path) -> None:
    PowercapTree(tmp_path, view(present=False)).make(ORIGIN_NS)
    with pytest.raises(SourceError, match="no RAPL package counter"):
        find_zones(tmp_path)


def test_a_reader_never_finds_half_a_number(tmp_path: Path) -> None:
    folder = PowercapTree(tmp_path, view())
    folder.make(ORIGIN_NS)
    done = threading.Event()

    def keep_up() -> None:
        for step in range(500):
            folder.refresh(ORIGIN_NS + step * 10**7)
        done.set()

    writer = threading.Thread(target=keep_up)
    writer.start()
    values: list[int] = []
    while not done.is_set():
        values.append(int((tmp_path / "intel-rapl:0" / "energy_uj").read_text()))
    writer.join()
    assert len(set(values)) > 10
    assert (np.array(values) >= 0).all()
