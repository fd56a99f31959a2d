"""RAPL: which zones are logged, wraps, and counters that cannot be trusted."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

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
    """A powercap folder whose counters are moved by hand; `apart_uj` lies between those of two zones."""

    def __init__(self, root: Path, zones: dict[str, str], start_uj: int = 1000, apart_uj: int = 10**9) -> None:
        self.root = root
        (root / "intel-rapl").mkdir(parents=True)
        for index, (zone, name) in enumerate(zones.items()):
            (root / zone).mkdir()
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            self.put(zone, start_uj + index * apart_uj)

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


TWICE = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-0"}
DIES = {f"intel-rapl:{index}": f"package-{index // 2}-die-{index % 2}" for index in range(4)}


def test_two_packages_of_one_name_are_both_counted_unless_they_show_one_counter(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    assert names(Powercap(two, TWICE).source(list(TWICE)).channels()) == [
        ("package-0", "cpu_package"),
        ("package-0 (intel-rapl:1)", "cpu_package"),
    ]
    source = Powercap(one, TWICE, apart_uj=0).source(list(TWICE))
    assert names(source.channels()) == [("package-0", "cpu_package")]
    assert "counted once because they show the same counter" in source.probe().reason


def test_dies_that_show_the_counter_of_their_socket_are_counted_once(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path, DIES)
    for die, first in (("intel-rapl:1", "intel-rapl:0"), ("intel-rapl:3", "intel-rapl:2")):
        powercap.put(die, powercap.get(first))
    assert names(powercap.source(list(DIES)).channels()) == [
        ("package-0-die-0", "cpu_package"),
        ("package-1-die-0", "cpu_package"),
    ]


def test_a_mirrored_counter_may_move_between_the_reads_of_its_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    powercap = Powercap(tmp_path, DIES)
    reads = 0

    def counter_uj(zone: rapl.Zone) -> int:
        nonlocal reads
        reads += 1
        return 77 * reads + (10**9 if zone.device.startswith("package-1") else 0)

    monkeypatch.setattr(rapl.Zone, "counter_uj", counter_uj)
    channels = RaplSource(powercap.root, sleep=lambda _: None).channels()
    assert [channel.device for channel in channels] == ["package-0-die-0", "package-1-die-0"]


def test_dies_with_counters_of_their_own_are_summed_however_alike_their_power(tmp_path: Path) -> None:
    assert len(Powercap(tmp_path, DIES, apart_uj=300).source(list(DIES)).channels()) == 4


def test_a_zone_within_one_of_its_domain_is_in_there(tmp_path: Path) -> None:
    Powercap(tmp_path, {"intel-rapl:0": "package-0", "intel-rapl:0:0": "package-0-die-0", "intel-rapl:0:1": "dram"})
    assert [zone.path.name for zone in find_zones(tmp_path)] == ["intel-rapl:0", "intel-rapl:0:1"]


def test_energy_and_power_come_from_the_counter(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, start_uj=RANGE_UJ - 60_000)
    (channel,) = powercap.source(["intel-rapl:0"]).channels()
    first = channel.read()
    time.sleep(0.05)  # 3 J at once would be more power than a socket can draw
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
    time.sleep(0.05)  # 1 J at once would be more power than a socket can draw
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


class Meter:
    """A channel of one package that is read every 0.1 s of a clock that only the test moves."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, start_uj: int = 40_000_000_000) -> None:
        self.powercap = Powercap(root, {"intel-rapl:0": "package-0"}, start_uj)
        self.now_ns = 10**12
        monkeypatch.setattr(rapl, "timed", lambda call: (call(), self.now_ns, 1.0))
        (self.channel,) = self.powercap.source(["intel-rapl:0"]).channels()

    def read(self, counter_uj: int, after_s: float = 0.1) -> tuple[float | None, float | None]:
        """Return power and energy when the counter shows this."""
        self.now_ns += round(after_s * 1e9)
        self.powercap.put("intel-rapl:0", counter_uj)
        sample = self.channel.read()
        return sample.power_average_w, sample.energy_counter_j


def test_a_step_back_for_a_moment_is_no_wrap_and_the_power_after_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(tmp_path, monkeypatch)
    base = 40_000_000_000
    meter.read(base)
    assert meter.read(base + 5_000_000) == (pytest.approx(50.0), 5.0)
    power_w, energy_j = meter.read(base + 4_995_000)
    assert (power_w, energy_j) == (None, pytest.approx(4.995)), "the log shows the step, which the analysis withholds"
    assert meter.read(base + 15_000_000) == (pytest.approx(50.0), pytest.approx(15.0))


def test_a_counter_that_begins_anew_makes_the_energy_fall_and_power_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(tmp_path, monkeypatch)
    meter.read(40_000_000_000)
    meter.read(40_005_000_000)
    readings = [meter.read(5_000_000 * step) for step in range(1, 6)]
    assert [power_w for power_w, _ in readings] == [None, None, None, pytest.approx(50.0), pytest.approx(50.0)]
    assert all(energy_j is not None and energy_j < -39_000 for _, energy_j in readings)


def test_whether_a_step_back_is_a_wrap_depends_on_the_sockets_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(tmp_path, monkeypatch, RANGE_UJ - 20_000_000)
    meter.read(RANGE_UJ - 20_000_000)
    assert meter.read(20_000_000)[1] == pytest.approx(40.0), "400 W is possible"
    _, before_j = meter.read(RANGE_UJ - 200_000_000, after_s=1e6)
    _, after_j = meter.read(200_000_000)
    assert before_j is not None
    assert after_j is not None
    assert after_j < before_j, "4 kW is not"


def test_a_wrap_between_two_polls_in_quick_succession_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(tmp_path, monkeypatch, RANGE_UJ - 200_000)
    meter.read(RANGE_UJ - 200_000)
    assert meter.read(200_000, after_s=1e-4)[1] == pytest.approx(0.4), "1 ms of 400 W, shown at once"


def test_a_socket_that_states_its_power_limits_is_held_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Powercap(tmp_path / "stated", {"intel-rapl:0": "package-0"})
    zone = tmp_path / "stated" / "intel-rapl:0"
    for name, limit_uw in (("0_power_limit", 125_000_000), ("1_power_limit", 253_000_000), ("0_max_power", 0)):
        (zone / f"constraint_{name}_uw").write_text(f"{limit_uw}\n")
    assert find_zones(tmp_path / "stated")[0].stated_limit_w() == 506.0
    (zone / "constraint_1_power_limit_uw").write_text("4294967295000000\n")
    assert find_zones(tmp_path / "stated")[0].stated_limit_w() == 250.0, "no limit is meant"
    assert Meter(tmp_path / "none", monkeypatch).channel.highest_w == 1500.0


def test_a_file_that_disappears_is_an_error_of_the_reading(tmp_path: Path) -> None:
    powercap = Powercap(tmp_path, {"intel-rapl:0": "package-0"})
    (channel,) = powercap.source(["intel-rapl:0"]).channels()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(SourceError, match="energy_uj cannot be read: No such file"):
        channel.read()


@pytest.mark.parametrize(("start_uj", "said"), [(0, "read zero"), (77, "do not move")])
def test_counters_that_never_move_make_the_source_unavailable(tmp_path: Path, start_uj: int, said: str) -> None:
    source = Powercap(tmp_path, SERVER, start_uj, apart_uj=0).source([])
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
    said = {channel.device: channel.metadata for channel in source.channels() if channel.domain == "dram"}
    assert said == {"package-1": {"left_out": ["package-0"]}}, "the log knows that a part is missing"


def test_permission_trouble_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Powercap(tmp_path, SERVER)
    opened = Path.open

    def guarded(path: Path, *args: str) -> IO[Any]:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", guarded)
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
