"""pcm-power as a power source, against a tool that speaks like it."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError
from inference_energy.acquire.power.sources import pcm_power
from inference_energy.acquire.power.sources.pcm_power import PcmPowerSource
from inference_energy.config.power import PcmPowerSettings

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parent / "fake_tools" / "pcm_power.py"
PERIOD_S = 0.1

NO_MSR = """PCM Error: can't open MSR handle for core 0 (Permission denied)
Try no-MSR mode by setting env variable PCM_NO_MSR=1
Can not access CPUs Model Specific Registers (MSRs).
execute 'modprobe msr' as root user, then execute pcm as root user.
Unsupported processor model (167)."""
NO_VPMU = """ERROR: vPMU is not enabled in the hypervisor. Please see details in the documentation
       you can force-continue by setting PCM_IGNORE_ARCH_PERFMON=1 environment variable.
Unsupported processor model (167)."""
BUSY = (
    "Access to Intel(r) Performance Counter Monitor has denied (Performance Monitoring Unit is occupied by other "
    "application). Try to stop the application that uses PMU."
)


class Node:
    """The fake tool's file, the source that uses it, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "node.json"
        self.put(sockets=[[200.0, 12.0], [100.0, 8.0]])
        self.sources: list[PcmPowerSource] = []

    def put(self, **node: Any) -> None:
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps(node))
        whole.replace(self.file)

    def source(self) -> PcmPowerSource:
        command = [sys.executable, str(TOOL), str(self.file)]
        source = PcmPowerSource(PcmPowerSettings(command=command, period_s=PERIOD_S))
        self.sources.append(source)
        return source

    def blocks(self) -> int:
        """How many blocks the tool has written."""
        return len(Path(f"{self.file}.blocks").read_text())

    def streams(self) -> list[dict[str, Any]]:
        starts = [json.loads(line) for line in Path(f"{self.file}.starts").read_text().splitlines()]
        return [start for start in starts if "-i=1" not in start["arguments"]]


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcm_power, "PROBE_S", 0.05)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for source in node.sources:
        source.close()


def one(channels: list[SensorChannel], device: str, domain: str) -> SensorChannel:
    (found,) = [channel for channel in channels if (channel.device, channel.domain) == (device, domain)]
    return found


def failing(channel: SensorChannel, timeout_s: float = 15.0) -> str:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            channel.read()
        except SourceError as error:
            return str(error)
    raise AssertionError(f"no error within {timeout_s:g} s")


def working(channel: SensorChannel, timeout_s: float = 15.0) -> PowerSample:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            return channel.read()
        except SourceError:
            continue
    raise AssertionError(f"no reading within {timeout_s:g} s")


def counter_j(channel: SensorChannel) -> float:
    energy_j = channel.read().energy_counter_j
    assert energy_j is not None
    return energy_j


def test_each_socket_has_a_package_and_a_memory_named_as_rapl_names_them(node: Node) -> None:
    channels = node.source().channels()
    assert [(channel.device, channel.domain) for channel in channels] == [
        ("package-0", "cpu_package"),
        ("package-0", "dram"),
        ("package-1", "cpu_package"),
        ("package-1", "dram"),
    ]
    assert {(channel.source, channel.grade, channel.period_s) for channel in channels} == {
        ("pcm-power", "counter", PERIOD_S)
    }
    powers = [channel.read().power_average_w for channel in channels]
    assert powers == [200.0, 12.0, 100.0, 8.0]


def test_the_energy_adds_up_over_the_blocks_that_nobody_read_too(node: Node) -> None:
    channel = one(node.source().channels(), "package-0", "cpu_package")
    first, start_j = channel.read(), counter_j(channel)
    assert start_j - (first.energy_counter_j or 0.0) == pytest.approx(200.0 * PERIOD_S)
    written, read = node.blocks(), 2
    while node.blocks() < written + 5:
        time.sleep(PERIOD_S / 10)
    node.put(quiet=True)
    late_j = start_j
    while True:
        try:
            late_j = counter_j(channel)
        except SourceError:
            break
        read += 1
    assert late_j == pytest.approx(200.0 * PERIOD_S * node.blocks())
    assert node.blocks() > read


def test_lines_of_other_measures_are_passed_over(node: Node) -> None:
    node.put(sockets=[[200.0, 12.0]], skx=True)
    channels = node.source().channels()
    assert [channel.read().power_average_w for channel in channels] == [200.0, 12.0]


def test_the_newer_layout_with_a_separator_at_the_end_is_read_too() -> None:
    blocks = pcm_power._Blocks()
    assert blocks.take("Time elapsed: 1000 ms", 1)
    assert blocks.take("S1; Consumed DRAM energy units: 8; Consumed DRAM Joules: 2.50; DRAM Watts: 2.50;", 5)
    assert blocks.take("S1; Consumed energy units: 9; Consumed Joules: 7.50; Watts: 7.50; Headroom: 41 °C;", 6)
    reading = blocks.unread.take(("package-1", "dram"))
    assert reading == [PowerSample(5, 0.0, power_average_w=2.5, energy_counter_j=2.5)]


@pytest.mark.parametrize(
    "line",
    [
        "S0; Consumed energy units: 9; Consumed Joules: nan; Watts: nan; Thermal headroom below TjMax: 45",
        "S0; Consumed energy units: 9; Consumed Joules: 7.5",
        "S0; Consumed energy units: 9; Consumed Joules: -7.50; Watts: -7.50; Thermal",
        "S0CH1; DRAMClocks: 1; Rank0 CKE Off Residency: 3.10%;",
        "garbage",
    ],
)
def test_a_line_that_is_no_energy_is_not_used(line: str) -> None:
    assert not pcm_power._Blocks().take(line, 1)


def test_after_a_lost_block_the_sum_starts_again_from_zero(node: Node) -> None:
    channel = one(node.source().channels(), "package-0", "cpu_package")
    while counter_j(channel) < 100:
        pass
    node.put(sockets=[[200.0, 12.0], [100.0, 8.0]], die=True)
    said = failing(channel)
    assert "pcm-power ended with exit code 3" in said
    node.put(sockets=[[200.0, 12.0], [100.0, 8.0]])
    reading = working(channel)
    assert reading.power_average_w == 200.0
    assert reading.energy_counter_j is not None
    assert reading.energy_counter_j < 100, "it must go back, so that nobody takes the difference for the energy"
    assert counter_j(channel) > reading.energy_counter_j
    assert len(node.streams()) >= 2


def test_after_a_lost_line_only_its_counter_starts_again() -> None:
    blocks = pcm_power._Blocks()
    package, dram = (
        "S0; Consumed energy units: 9; Consumed Joules: 100.00; Watts: 100.00; Thermal headroom below TjMax: 45",
        "S0; Consumed DRAM energy units: 8; Consumed DRAM Joules: 10.00; DRAM Watts: 10.00",
    )
    sums: dict[str, list[float | None]] = {"cpu_package": [], "dram": []}
    for lost in (False, False, True, False, False):
        blocks.take("Time elapsed: 1000 ms", 1)
        for line in [dram] if lost else [package, dram]:
            assert blocks.take(line, 1)
        for domain in ("cpu_package", "dram"):
            sums[domain] += [reading.energy_counter_j for reading in blocks.unread.take(("package-0", domain))]
    assert sums == {"cpu_package": [100, 200, 0, 100], "dram": [10, 20, 30, 40, 50]}


def test_a_tool_that_was_killed_comes_back(node: Node) -> None:
    channel = node.source().channels()[0]
    os.kill(node.streams()[0]["pid"], 9)
    assert "exit code -9" in failing(channel)
    assert working(channel).power_average_w == 200.0


def test_silence_is_an_error(node: Node) -> None:
    channel = node.source().channels()[0]
    node.put(sockets=[[200.0, 12.0]], quiet=True)
    assert "no line for cpu_package of package-0" in failing(channel)


def test_a_counter_that_reads_zero_is_left_out_and_all_zero_is_unavailable(node: Node) -> None:
    node.put(sockets=[[200.0, 0.0]])
    state = node.source().probe()
    assert (state.available, state.devices) == (True, ["package-0 (cpu_package)"])
    assert "read zero: package-0 (dram)" in state.reason
    assert [channel.domain for channel in node.source().channels()] == ["cpu_package"]
    node.put(sockets=[[0.0, 0.0]])
    state = node.source().probe()
    assert not state.available
    assert "zero" in state.reason


def test_a_counter_that_stops_is_an_error_not_a_zero(node: Node) -> None:
    channel = one(node.source().channels(), "package-1", "dram")
    node.put(sockets=[[200.0, 12.0], [100.0, 0.0]])
    assert "dram of package-1: reads 0 W" in failing(channel)
    node.put(sockets=[[200.0, 12.0], [100.0, 9.0]])
    assert working(channel).power_average_w == 9.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NO_MSR, "modprobe msr"),
        (NO_VPMU, "measure on the host"),
        (BUSY, "another profiler"),
        ("Unsupported processor model (0x8a).", "use rapl"),
        ("You must be root to access server uncore counters in PCM.", "must run as root"),
        ("something new", "something new"),
    ],
)
def test_what_keeps_the_tool_from_counting_is_said_with_what_to_do(node: Node, text: str, said: str) -> None:
    node.put(fail=[text, 1])
    state = node.source().probe()
    assert not state.available
    assert said in state.reason
    with pytest.raises(SourceError):
        node.source().channels()


def test_a_missing_tool_says_what_to_install() -> None:
    state = PcmPowerSource(PcmPowerSettings(command=["no-such-pcm-power"])).probe()
    assert not state.available
    assert "install the package pcm" in state.reason


def test_closing_ends_the_process(node: Node) -> None:
    source = node.source()
    source.channels()
    pid = node.streams()[0]["pid"]
    source.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
