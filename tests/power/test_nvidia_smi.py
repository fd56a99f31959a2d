"""nvidia-smi as a power source, against a tool that speaks like it."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_energy.acquire.power.base import PowerSample, SourceError
from inference_energy.acquire.power.sources import nvidia_smi
from inference_energy.acquire.power.sources.nvidia_smi import NvidiaSmiSource
from inference_energy.config.power import NvidiaSmiSettings

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parent / "fake_tools" / "nvidia_smi.py"
A, B = "GPU-5dc24d97-b7da-46af-3499-71149fc3b7d1", "GPU-aaaa0000-b7da-46af-3499-71149fc3b7d1"
INTERVAL_S = 0.05

NEW_FIELDS = [
    ["timestamp"],
    ["uuid", "gpu_uuid"],
    ["compute_cap"],
    ["power.draw"],
    ["power.draw.average", "gpu.power.draw.average"],
    ["power.draw.instant", "gpu.power.draw.instant"],
    ["utilization.gpu"],
    ["memory.used"],
    ["clocks.current.sm", "clocks.sm"],
    ["temperature.gpu"],
    ["clocks_event_reasons.active", "clocks_throttle_reasons.active"],
]
OLD_FIELDS = [
    ["timestamp"],
    ["uuid"],
    ["power.draw"],
    ["utilization.gpu"],
    ["memory.used"],
    ["clocks.sm"],
    ["temperature.gpu"],
    ["clocks_throttle_reasons.active"],
]


def gpu(uuid: str, **changes: str) -> dict[str, str]:
    values = {
        "uuid": uuid,
        "compute_cap": "9.0",
        "power.draw": "455.10",
        "power.draw.average": "455.10",
        "power.draw.instant": "460.25",
        "utilization.gpu": "97",
        "memory.used": "71234",
        "clocks.sm": "1755",
        "temperature.gpu": "61",
        "clocks_event_reasons.active": "0x0000000000000004",
        "clocks_throttle_reasons.active": "0x0000000000000004",
    }
    return {**values, **{name.replace("__", "."): value for name, value in changes.items()}}


class Node:
    """The fake tool's file, the source that uses it, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "node.json"
        self.put(gpus=[gpu(A)], fields=NEW_FIELDS)
        self.sources: list[NvidiaSmiSource] = []

    def put(self, **node: Any) -> None:
        text = json.dumps(node)
        whole = self.file.with_suffix(".new")
        whole.write_text(text)
        whole.replace(self.file)

    def source(self, gpus: list[str | int] | None = None) -> NvidiaSmiSource:
        command = [sys.executable, str(TOOL), str(self.file)]
        source = NvidiaSmiSource(NvidiaSmiSettings(command=command), gpus, INTERVAL_S)
        self.sources.append(source)
        return source

    def starts(self) -> list[dict[str, Any]]:
        lines = Path(f"{self.file}.starts").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def streams(self) -> list[dict[str, Any]]:
        return [start for start in self.starts() if "-lms" in start["arguments"]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for source in node.sources:
        source.close()


def until(read: Callable[[], PowerSample], good: Callable[[PowerSample], bool], timeout_s: float = 15.0) -> PowerSample:
    """Read, through errors, until a reading is as wanted."""
    until_s = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < until_s:
        try:
            reading = read()
        except SourceError as error:
            last = error
            continue
        last = reading
        if good(reading):
            return reading
    raise AssertionError(f"not within {timeout_s:g} s; the last was {last!r}")


def failing(read: Callable[[], object], timeout_s: float = 15.0) -> str:
    """Read until it fails; the error's text."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            read()
        except SourceError as error:
            return str(error)
    raise AssertionError(f"no error within {timeout_s:g} s")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_line_becomes_a_reading_with_all_its_columns(node: Node) -> None:
    before_ns = time.monotonic_ns()
    (channel,) = node.source().channels()
    reading = channel.read()
    assert (channel.source, channel.device, channel.domain, channel.grade) == ("nvidia-smi", A, "gpu", "sampled")
    assert channel.period_s is None
    assert before_ns < reading.timestamp_ns <= time.monotonic_ns()
    assert (reading.power_average_w, reading.power_instant_w) == (455.10, 460.25)
    assert reading.utilization == 0.97
    assert reading.memory_used_bytes == 71234 * 1024 * 1024
    assert (reading.sm_clock_mhz, reading.temperature_c, reading.clocks_event_reasons) == (1755, 61.0, 4)


def test_the_tools_own_time_is_read_as_utc_whatever_the_zone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (channel,) = node.source().channels()
    told_us = channel.read().driver_timestamp_us
    assert told_us is not None
    assert abs(told_us / 1e6 - time.time()) < 60


def test_every_line_is_given_once_and_in_order(node: Node) -> None:
    (channel,) = node.source().channels()
    times = [channel.read().timestamp_ns for _ in range(6)]
    assert times == sorted(set(times))


def test_polling_gives_every_line_and_never_waits(node: Node) -> None:
    (channel,) = node.source().channels()
    channel.read_many()
    assert [channel.read_many() for _ in range(20)].count([]) >= 10, "a read that waits would have a line each time"
    times: list[int] = []
    until_s = time.monotonic() + 15
    while len(times) < 5:
        assert time.monotonic() < until_s
        time.sleep(2.5 * INTERVAL_S)
        times += [reading.timestamp_ns for reading in channel.read_many()]
    assert times == sorted(set(times))


def test_polling_a_silent_tool_is_an_error_only_after_three_periods(node: Node) -> None:
    (channel,) = node.source().channels()
    node.put(gpus=[gpu(A)], fields=NEW_FIELDS, quiet=True)
    last_s = time.monotonic()

    def given() -> None:
        nonlocal last_s
        if channel.read_many():
            last_s = time.monotonic()

    assert "runs, but writes nothing" in failing(given)
    assert time.monotonic() - last_s > 3 * INTERVAL_S
    node.put(gpus=[gpu(A)], fields=NEW_FIELDS)
    until(channel.read, lambda reading: True)


def test_all_gpus_share_one_process_and_keep_their_values_apart(node: Node) -> None:
    node.put(gpus=[gpu(A), gpu(B, power__draw__average="101.00")], fields=NEW_FIELDS)
    channels = node.source().channels()
    assert [channel.device for channel in channels] == [A, B]
    assert [channel.read().power_average_w for channel in channels] == [455.10, 101.00]
    (stream,) = node.streams()
    assert stream["arguments"][-2:] == ["-lms", "50"]


@pytest.mark.parametrize("wanted", [[1], [B], ["GPU-aaaa"], ["GPU-aaaa", 1]])
def test_only_the_gpus_asked_for_are_read(node: Node, wanted: list[str | int]) -> None:
    node.put(gpus=[gpu(A), gpu(B)], fields=NEW_FIELDS)
    source = node.source(wanted)
    assert source.probe().devices == [B]
    assert [channel.device for channel in source.channels()] == [B]


@pytest.mark.parametrize(
    ("wanted", "said"), [([2], "no GPU here"), (["GPU-"], "2 GPUs"), (["MIG-1"], "MIG instance"), ([], "empty list")]
)
def test_a_wrong_choice_says_what_there_is(node: Node, wanted: list[str | int], said: str) -> None:
    node.put(gpus=[gpu(A), gpu(B)], fields=NEW_FIELDS)
    state = node.source(wanted).probe()
    assert not state.available
    assert said in state.reason


@pytest.mark.parametrize("text", ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU requires reset]", "N/A"])
def test_fields_without_a_value_are_null(node: Node, text: str) -> None:
    lacking = gpu(A, power__draw__average=text, memory__used=text, temperature__gpu=text)
    node.put(gpus=[{**lacking, "clocks_event_reasons.active": text}], fields=NEW_FIELDS)
    (channel,) = node.source().channels()
    reading = channel.read()
    assert (reading.power_average_w, reading.power_instant_w) == (None, 460.25)
    assert (reading.memory_used_bytes, reading.temperature_c, reading.clocks_event_reasons) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "capability", "average_w", "instant_w", "window_s"),
    [
        (OLD_FIELDS, None, None, 455.10, 0.0),
        ([*OLD_FIELDS, ["compute_cap"]], "8.0", None, 455.10, 0.0),
        ([*OLD_FIELDS, ["compute_cap"]], "8.6", 455.10, None, 1.0),
        ([*OLD_FIELDS, ["compute_cap"]], "[N/A]", 455.10, None, None),
    ],
)
def test_an_older_tool_gives_power_draw_for_what_it_means_on_that_gpu(
    node: Node,
    fields: list[list[str]],
    capability: str | None,
    average_w: float | None,
    instant_w: float | None,
    window_s: float | None,
) -> None:
    node.put(gpus=[gpu(A, compute_cap=capability or "")], fields=fields)
    (channel,) = node.source().channels()
    reading = channel.read()
    assert (reading.power_average_w, reading.power_instant_w) == (average_w, instant_w)
    assert reading.clocks_event_reasons == 4
    assert channel.metadata["averaging_window_s"] == window_s


def test_gpus_of_two_kinds_are_each_taken_for_what_they_are(node: Node) -> None:
    fields = [*OLD_FIELDS, ["compute_cap"]]
    node.put(gpus=[gpu(A, compute_cap="8.0"), gpu(B, compute_cap="8.9")], fields=fields)
    first, second = node.source().channels()
    assert (first.read().power_average_w, second.read().power_average_w) == (None, 455.10)
    assert (first.metadata["averaging_window_s"], second.metadata["averaging_window_s"]) == (0.0, 1.0)
    node.put(
        gpus=[gpu(A, compute_cap="8.0", power__draw__average="[N/A]"), gpu(B, compute_cap="8.9")], fields=NEW_FIELDS
    )
    first, second = node.source().channels()
    assert (first.metadata["averaging_window_s"], second.metadata["averaging_window_s"]) == (0.0, 1.0)


def test_a_tool_that_died_is_started_again_and_a_cut_line_is_no_reading(node: Node) -> None:
    (channel,) = node.source().channels()
    seen: list[float | None] = []

    def read() -> PowerSample:
        reading = channel.read()
        seen.append(reading.power_average_w)
        return reading

    # Cut in its last field, the line would still look whole.
    node.put(gpus=[gpu(A, power__draw__average="300.00")], fields=NEW_FIELDS, die=True)
    said = failing(read)
    assert "nvidia-smi ended with exit code 9" in said
    assert "started again" in said
    node.put(gpus=[gpu(A, power__draw__average="310.00")], fields=NEW_FIELDS)
    until(read, lambda reading: reading.power_average_w == 310.0)
    assert set(seen) <= {455.10, 310.0}
    assert len(node.streams()) >= 2


def test_a_tool_that_was_killed_comes_back(node: Node) -> None:
    (channel,) = node.source().channels()
    channel.read()
    killed = node.streams()[0]["pid"]
    os.kill(killed, 9)
    assert "exit code -9" in failing(channel.read)
    assert until(channel.read, lambda reading: True).power_average_w == 455.10
    assert node.streams()[-1]["pid"] != killed


def test_a_tool_that_says_nothing_is_an_error_after_three_periods(node: Node) -> None:
    (channel,) = node.source().channels()
    node.put(gpus=[gpu(A)], fields=NEW_FIELDS, quiet=True)
    began_s = time.monotonic()
    assert "no line for gpu" in failing(channel.read)
    assert time.monotonic() - began_s < 5
    node.put(gpus=[gpu(A)], fields=NEW_FIELDS)
    assert until(channel.read, lambda reading: True).power_average_w == 455.10


def test_a_gpu_that_vanishes_from_the_output_is_an_error_and_the_other_goes_on(node: Node) -> None:
    node.put(gpus=[gpu(A), gpu(B)], fields=NEW_FIELDS)
    lost, other = node.source().channels()
    node.put(
        gpus=[gpu(B)],
        fields=NEW_FIELDS,
        garbage="Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system",
    )
    said = failing(lost.read)
    assert "GPU is lost" in said
    assert other.read().power_average_w == 455.10


@pytest.mark.parametrize("line", ["garbage", "a, b, c, d, e, f, g, h, i", f"x, {A}, 1, 2, 3, 4, 5, 6, 7", "é\x00,,,,"])
def test_garbage_between_the_lines_is_passed_over(node: Node, line: str) -> None:
    node.put(gpus=[gpu(A)], fields=NEW_FIELDS, garbage=line)
    (channel,) = node.source().channels()
    assert {channel.read().power_average_w for _ in range(4)} == {455.10}


LAYOUT = nvidia_smi._Layout(
    {name for names in NEW_FIELDS for name in names}, {A: {"compute_cap": "9.0", "power.max_limit": "700.00"}}
)
GOOD = ["2026/11/30 08:00:00.123", A, "455.10", "460.25", "97", "71234", "1755", "61", "0x0000000000000004"]
WHOLE = {
    "power_average_w": 455.10,
    "power_instant_w": 460.25,
    "utilization": 0.97,
    "memory_used_bytes": 71234 << 20,
    "sm_clock_mhz": 1755,
    "temperature_c": 61.0,
    "clocks_event_reasons": 4,
}
UNREADABLE = ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU requires reset]", "N/A", "ERR!", "Unknown", ""]
UNREADABLE += ["nan", "inf", "-inf", "1e400", "9" * 5000, "0x", "Not Active", "\ufffd"]


def parsed(texts: list[str], separator: str = ", ") -> dict[str, Any] | None:
    found = LAYOUT.parse(separator.join(texts), 0)
    return None if found is None else {name: value for name, value in found[1]._asdict().items() if name in WHOLE}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_field_that_cannot_be_read_costs_that_field(text: str) -> None:
    for place, column in enumerate(WHOLE, start=2):
        line = [*GOOD[:place], text, *GOOD[place + 1 :]]
        assert parsed(line) == {**WHOLE, column: None}


def test_units_decimal_commas_and_fractions_are_understood() -> None:
    line = [*GOOD[:2], "455,10 W", "460.25W", "97 %", "71234.0 MiB", "1755 MHz", "61 C", GOOD[8]]
    assert parsed(line) == WHOLE
    assert parsed(GOOD, ",") == WHOLE


def test_a_cut_off_line_is_none() -> None:
    line = ", ".join(GOOD)
    for length in range(len(line) - len(GOOD[-1]) - 2):
        assert LAYOUT.parse(line[:length], 0) is None
    assert parsed([*GOOD[:8], "0x00000000000"]) is not None, "the last field alone is cut off"


def test_a_header_gives_the_order_of_the_columns() -> None:
    layout = nvidia_smi._Layout({name for names in NEW_FIELDS for name in names}, {})
    order = ["uuid", "power.draw.instant [W]", "power.draw.average [W]", "timestamp", "memory.used [MiB]"]
    order += ["utilization.gpu [%]", "clocks.current.sm [MHz]", "temperature.gpu", "clocks_event_reasons.active"]
    assert layout.parse(", ".join(order), 0) is None
    found = layout.parse(", ".join([A, "460.25", "455.10", GOOD[0], "71234", "97", *GOOD[6:]]), 0)
    assert found is not None
    assert {name: value for name, value in found[1]._asdict().items() if name in WHOLE} == WHOLE


def test_a_board_is_held_to_its_highest_power_limit() -> None:
    assert LAYOUT.limit_w(A) == 1050.0
    assert LAYOUT.limit_w(B) is None
    unread = nvidia_smi._Layout({"uuid", "power.draw"}, {A: {"power.max_limit": "[N/A]", "power.limit": "300.00 W"}})
    assert unread.limit_w(A) == 450.0


def test_lines_with_a_field_that_is_no_number_keep_the_others(node: Node) -> None:
    (channel,) = node.source().channels()
    node.put(gpus=[gpu(A, power__draw__average="nan", utilization__gpu="Unknown")], fields=NEW_FIELDS)
    reading = until(channel.read, lambda reading: reading.power_average_w is None)
    assert (reading.power_instant_w, reading.utilization, reading.sm_clock_mhz) == (460.25, None, 1755)


def test_a_gpu_without_power_is_named_in_the_log(node: Node) -> None:
    lost = gpu(B, power__draw__average="[Unknown Error]", power__draw__instant="[Unknown Error]")
    node.put(gpus=[gpu(A), lost], fields=NEW_FIELDS)
    (channel,) = node.source().channels()
    assert channel.metadata["left_out"] == [B]


def test_zero_watts_and_no_power_are_errors_not_readings(node: Node) -> None:
    (channel,) = node.source().channels()
    node.put(gpus=[gpu(A, power__draw__average="0.00", power__draw__instant="0.00")], fields=NEW_FIELDS)
    assert "reads 0 W" in failing(channel.read)
    node.put(gpus=[gpu(A, power__draw__average="[N/A]", power__draw__instant="[N/A]")], fields=NEW_FIELDS)
    until_s = time.monotonic() + 10
    while "no power at present" not in failing(channel.read):
        assert time.monotonic() < until_s


def test_a_gpu_without_power_is_left_out_and_named(node: Node) -> None:
    mute = gpu(B, power__draw__average="[N/A]", power__draw__instant="[N/A]")
    node.put(gpus=[gpu(A), mute], fields=NEW_FIELDS)
    state = node.source().probe()
    assert (state.available, state.devices) == (True, [A])
    assert f"left out because they give no power: {B}" in state.reason
    node.put(gpus=[mute], fields=NEW_FIELDS)
    state = node.source().probe()
    assert not state.available
    assert "gives no power" in state.reason


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9),
        ("Failed to initialize NVML: Driver/library version mismatch", 18),
        ("Failed to initialize NVML: Insufficient Permissions", 4),
        ("No devices were found", 6),
    ],
)
def test_what_the_tool_complains_about_is_the_reason(node: Node, text: str, code: int) -> None:
    node.put(fail=[text, code])
    state = node.source().probe()
    assert not state.available
    assert text in state.reason
    with pytest.raises(SourceError, match=re.escape(text)):
        node.source().channels()


def test_a_missing_tool_and_one_that_may_not_be_run_say_what_to_do(tmp_path: Path) -> None:
    missing = NvidiaSmiSource(NvidiaSmiSettings(command=["no-such-nvidia-smi"])).probe()
    assert not missing.available
    assert "install the NVIDIA driver" in missing.reason
    locked = tmp_path / "nvidia-smi"
    locked.write_text("#!/bin/sh\n")
    locked.chmod(0o600)
    refused = NvidiaSmiSource(NvidiaSmiSettings(command=[str(locked)])).probe()
    assert "may not run" in refused.reason


def test_closing_ends_the_process_and_opening_again_works(node: Node) -> None:
    source = node.source()
    source.channels()
    pid = node.streams()[0]["pid"]
    assert alive(pid)
    source.close()
    source.close()
    assert not alive(pid)
    assert not [thread for thread in threading.enumerate() if thread.name == "stream-nvidia-smi"]
    (channel,) = source.channels()
    assert channel.read().power_average_w == 455.10


def test_the_tool_does_not_see_our_secrets(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", "sesame")
    node.source().channels()
    assert all("sesame" not in json.dumps(start) for start in node.starts())
