"""RAPL: which zones are logged, wraps, and counters that cannot be trusted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources import rapl
from inference_energy.acquire.power.sources.rapl import CounterAccumulator, RaplSource, find_zones

RANGE_UJ = 262_143_328_850

SERVER = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "uncore",
    "intel-rapl:0:2": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "dram",
    "intel-rapl:2": "psys",
    "intel-rapl-mmio:0": "package-0",
}


class Powercap:
    """A powercap folder whose counters are moved by hand."""

    def __init__(self, root: Path, zones: dict[str, str], start_uj: int = 1000) -> None:
        self.root = root
        (root / "intel-rapl").mkdir(parents=True)
        for zone, name in zones.items():
            (root / zone).mkdir()
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            self.put(zone, start_uj)

    def get(self, zone: str) -> int:
        return int((self.root / zone / "energy_uj").read_text())

    def put(self, zone: str, counter_uj: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{counter_uj % RANGE_UJ}\n")

    def source(self, moving: list[str]) -> RaplSource:
        def tick(_: float) -> None:
            for zone in moving:
                self.put(zone, self.get(zone) + 5000)

        return RaplSource(self.root, sleep=tick)


def names(channels: list[SensorChannel]) -> list[tuple[str, str]]:
    return [(channel.device, channel.domain) for channel in channels]


def test_overlapping_zones_are_logged_once(tmp_path: Path) -> None:
    channels = Powercap(tmp_path, SERVER).source(list(SERVER)).channels()
    assert names(channels) == [
        ("package-0", "cpu_package"),
        ("package-0", "dram"),
        ("package-1", "cpu_package"),
        ("package-1", "dram"),
        ("psys", "psys"),
    ]
    assert {channel.grade for channel in channels} == {"counter"}


def test_dies_of_one_package_and_many_zones_keep_their_names_and_order(tmp_path: Path) -> None:
    zones = {f"intel-rapl:{index}": f"package-{index // 2}-die-{index % 2}" for index in range(12)}
    Powercap(tmp_path, zones)
    assert [zone.device for zone in find_zones(tmp_path)] == list(zones.values())


def test_a_package_that_is_shown_twice_counts_once(tmp_path: Path) -> None:
    Powercap(tmp_path, {"intel-rapl:0": "package-0", "intel-rapl:1": "package-0"})
    assert [zone.path.name for zone in find_zones(tmp_path)] == ["intel-rapl:0"]


def test_energy_and_power_come_from_the_counter(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, start_uj=RANGE_UJ - 60_000)
    (channel,) = powercap.source(["intel-rapl:0"]).channels()
    first = channel.read()
    powercap.put("intel-rapl:0", powercap.get("intel-rapl:0") + 3_000_000)
    second = channel.read()
    assert (first.energy_counter_j, first.power_average_w) == (0.0, None)
    assert second.energy_counter_j == pytest.approx(3.0), "across the wrap"
    elapsed_s = (second.timestamp_ns - first.timestamp_ns) / 1e9
    assert second.power_average_w == pytest.approx(3.0 / elapsed_s)


def test_a_poll_between_two_moves_has_no_power_and_loses_no_energy(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path, {"intel-rapl:0": "package-0"})
    (channel,) = powercap.source(["intel-rapl:0"]).channels()
    first, between = channel.read(), channel.read()
    assert between.power_average_w is None
    powercap.put("intel-rapl:0", powercap.get("intel-rapl:0") + 1_000_000)
    last = channel.read()
    assert last.power_average_w == pytest.approx(1e9 / (last.timestamp_ns - first.timestamp_ns))


def test_a_counter_that_stops_is_an_error_not_a_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    powercap = Powercap(tmp_path, {"intel-rapl:0": "package-0"})
    (channel,) = powercap.source(["intel-rapl:0"]).channels()
    clock_ns = 0

    def timed_by_hand(call: Callable[[], int]) -> tuple[int, int, float]:
        return call(), clock_ns, 1.0

    monkeypatch.setattr(rapl, "timed", timed_by_hand)
    channel.read()
    clock_ns = 1_900_000_000
    channel.read()
    clock_ns = 2_100_000_000
    with pytest.raises(SourceError, match=r"package-0.*has not moved for 2\.1 s"):
        channel.read()
    powercap.put("intel-rapl:0", powercap.get("intel-rapl:0") + 42_000_000)
    assert channel.read().power_average_w == pytest.approx(42 / 2.1), "it works again once the counter moves"


@pytest.mark.parametrize(("start_uj", "said"), [(0, "read zero"), (77, "do not move")])
def test_counters_that_never_move_make_the_source_unavailable(tmp_path: Path, start_uj: int, said: str) -> None:
    source = Powercap(tmp_path, SERVER, start_uj).source([])
    state = source.probe()
    assert not state.available
    assert said in state.reason
    with pytest.raises(SourceError, match=said):
        source.channels()


def test_one_dead_counter_is_left_out_and_named(tmp_path: Path) -> None:
    source = Powercap(tmp_path, SERVER).source([zone for zone in SERVER if zone != "intel-rapl:0:2"])
    assert ("package-0", "dram") not in names(source.channels())
    state = source.probe()
    assert state.available
    assert "left out because they do not move: package-0 (dram)" in state.reason


def test_permission_trouble_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Powercap(tmp_path, SERVER)
    read_text = Path.read_text

    def guarded(path: Path, *args: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args)

    monkeypatch.setattr(Path, "read_text", guarded)
    state = RaplSource(tmp_path).probe()
    assert not state.available
    assert "root since Linux 5.10" in state.reason
    assert "chmod a+r" in state.reason


def test_without_powercap_or_without_packages_it_is_unavailable(tmp_path: Path) -> None:
    assert "powercap" in RaplSource(tmp_path / "none").probe().reason
    Powercap(tmp_path, {"intel-rapl-mmio:0": "package-0"})
    assert "no RAPL package counter" in RaplSource(tmp_path).probe().reason


def test_a_counter_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    Powercap(tmp_path, SERVER)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("busy\n")
    assert "not a number" in RaplSource(tmp_path).probe().reason


@given(
    range_uj=st.integers(2, 2**40),
    start=st.integers(0, 2**40),
    shares=st.lists(st.floats(0, 1, exclude_max=True), max_size=50),
)
def test_no_energy_is_lost_or_made_over_any_number_of_wraps(range_uj: int, start: int, shares: list[float]) -> None:
    accumulator = CounterAccumulator(range_uj)
    true_uj = start
    assert accumulator.add(true_uj % range_uj) == 0.0
    last_j = 0.0
    for share in shares:
        true_uj += int(share * range_uj)
        energy_j = accumulator.add(true_uj % range_uj)
        assert energy_j >= last_j
        last_j = energy_j
    assert last_j == pytest.approx((true_uj - start) / 1e6)
