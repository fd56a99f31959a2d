"""GPU power through the tool nvidia-smi, for machines where Python cannot load NVIDIA's management library.

One nvidia-smi in loop mode (`--query-gpu=... --format=csv,noheader,nounits -lms N`) writes a line per GPU and period;
each GPU's channel gives its new lines, each at the time of its arrival. Fields and their
meaning: `nvidia-smi --help-query-gpu`; options and exit codes: the manual page nvidia-smi(1).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.sources.gpu_selection import select_gpus
from inference_energy.acquire.power.sources.sanity import Capability, average_window_s, averaging, usage_window_s
from inference_energy.acquire.power.sources.tools import (
    Key,
    LineStream,
    StreamChannel,
    ToolOutput,
    UnreadSamples,
    run_tool,
)
from inference_energy.config.power import NvidiaSmiSettings
from inference_energy.contracts.plausible_power import BOARD_FACTOR, stated_limit_w
from inference_energy.contracts.power import LEFT_OUT

DOMAIN = "gpu"
ANSWER_TIMEOUT_S = 20.0
"""Without persistence mode the driver loads with each call, which takes seconds on a machine of many GPUs."""

_INSTALL = "install the NVIDIA driver or, in a container, start it with the GPUs (docker run --gpus all)"


class NvidiaSmiSource(PowerSource):
    """The NVIDIA GPUs that nvidia-smi shows.

    Args:
        settings: how the tool is called.
        gpus: UUIDs (a beginning is enough) or indices; None for all.
        interval_s: time between its lines.
        windows_s: measured averaging times by UUID.
    """

    name = "nvidia-smi"
    grade = "sampled"  # the tool shows no energy counter

    def __init__(
        self,
        settings: NvidiaSmiSettings,
        gpus: Sequence[str | int] | None = None,
        interval_s: float = 0.1,
        windows_s: Mapping[str, float] | None = None,
    ) -> None:
        self._command = settings.command
        self._gpus = None if gpus is None else list(gpus)
        self._interval_s = interval_s
        self._windows_s = windows_s or {}
        self._stream: LineStream | None = None

    def find_devices(self) -> tuple[str, list[str]]:
        """Name the GPUs that give power."""
        layout = self._layout()
        alive, dead = self._alive(layout, self._values(layout))
        reason = f"{len(alive)} NVIDIA GPU(s), {' and '.join(layout.powers)}"
        if dead:
            reason += f"; left out because they give no power: {', '.join(dead)}"
        return reason, alive

    def channels(self) -> list[SensorChannel]:
        """Start nvidia-smi and make a channel for each GPU, once all have given a line."""
        self.close()
        layout = self._layout()
        values = self._values(layout)
        alive, dead = self._alive(layout, values)
        unread = UnreadSamples()

        def take(line: str, arrived_ns: int) -> bool:
            parsed = layout.parse(line, arrived_ns)
            if parsed is not None:
                uuid, reading = parsed
                unread.put((uuid, DOMAIN), reading)
            return parsed is not None

        period_ms = max(1, round(1000 * self._interval_s))
        command = [*self._command, *layout.query, "-lms", str(period_ms)]
        stream = LineStream(self.name, command, take, install=_INSTALL)
        stream.start()
        self._stream = stream
        keys: list[Key] = [(uuid, DOMAIN) for uuid in alive]
        if silent := unread.wait_for(keys, ANSWER_TIMEOUT_S, lambda: stream.down is not None):
            why = stream.why_silent()
            self.close()
            raise SourceError(f"no reading of {', '.join(sorted(uuid for uuid, _ in silent))}: {why}")
        channels: list[SensorChannel] = []
        for key in keys:
            channel = StreamChannel(self.name, key, self.grade, unread, stream, line_period_s=self._interval_s)
            uuid = key[0]
            channel.limit_w = layout.limit_w(uuid)
            channel.metadata = averaging(uuid, layout.averaging_time_s(uuid, values[uuid]), self._windows_s)
            if dead:
                channel.metadata[LEFT_OUT] = dead
            channels.append(channel)
        return channels

    def close(self) -> None:
        """End nvidia-smi."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _layout(self) -> "_Layout":
        answer = self._ask("--help-query-gpu")
        fields = set(re.findall(r'"([a-z0-9_.]+)"', answer.output))
        if "uuid" not in fields:
            raise SourceError(f"nvidia-smi does not say what it can be asked for: {answer.words}")
        return _Layout(fields, self._boards([name for name in _BOARD if name in fields]))

    def _boards(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what never changes of each GPU: field and text by UUID, as far as the tool knows it."""
        if not names:
            return {}
        answer = self._ask(f"--query-gpu=uuid,{','.join(names)}", "--format=csv,noheader,nounits")
        lines = [_texts(line, 1 + len(names)) for line in answer.output.splitlines()]
        return {line[0]: dict(zip(names, line[1:], strict=True)) for line in lines if len(line) == 1 + len(names)}

    def _values(self, layout: "_Layout") -> dict[str, PowerSample]:
        """Read each GPU once."""
        answer = self._ask(*layout.query)
        values = dict(filter(None, (layout.parse(line.strip(), 0) for line in answer.output.splitlines())))
        if not values:
            raise SourceError(f"nvidia-smi shows no GPU, it says: {answer.words}")
        return values

    def _alive(self, layout: "_Layout", values: Mapping[str, PowerSample]) -> tuple[list[str], list[str]]:
        """Return the selected GPUs that give power, and the selected GPUs that do not."""
        selected = select_gpus(self._gpus, list(values))
        alive = [uuid for uuid in selected if values[uuid].power_w]
        if not alive:
            raise SourceError(f"nvidia-smi gives no power of {', '.join(selected)}: the board or its driver lacks it")
        return alive, [uuid for uuid in selected if uuid not in alive]

    def _ask(self, *arguments: str) -> ToolOutput:
        return run_tool([*self._command, *arguments], timeout_s=ANSWER_TIMEOUT_S, install=_INSTALL)


class _Layout:
    """The fields of a query, and how a line of the answer is read.

    `power.draw`, which older tools have alone, is the mean of 1 s or instantaneous by the GPU's architecture, and
    instantaneous in tools from before the compute capability could be asked for (--help-query-gpu).

    Args:
        fields: names of the fields of this nvidia-smi.
        boards: compute capability and power limits by UUID, as far as it tells.
    """

    def __init__(self, fields: set[str], boards: Mapping[str, Mapping[str, str]]) -> None:
        columns: list[tuple[str, str]] = []
        for column, names in _COLUMNS.items():
            if name := next((name for name in names if name in fields), None):
                columns.append((column, name))
        self._usage = not any(column.startswith("power_") for column, _ in columns)
        if self._usage:
            columns.append((_USAGE, "power.draw"))
        self._can_tell = "compute_cap" in fields
        self._boards = boards
        self._columns = [column for column, _ in columns]
        self._column_of = {name: column for column, names in _COLUMNS.items() for name in names}
        self._column_of["power.draw"] = _USAGE
        self.powers = [name for _, name in columns if name.startswith("power.draw")]
        self.query = [f"--query-gpu={','.join(name for _, name in columns)}", "--format=csv,noheader,nounits"]

    def averaging_time_s(self, uuid: str, reading: PowerSample) -> float | None:
        """Return the averaging time of a GPU's power; 0 if it is instantaneous, None if it is unknown."""
        if reading.power_average_w is None:
            return 0.0
        capability = self._capability(uuid)
        return usage_window_s(capability) if self._usage else average_window_s(capability)

    def limit_w(self, uuid: str) -> float | None:
        """Return a GPU's plausibility limit; None where the tool states no power limit."""
        board = self._boards.get(uuid, {})
        return stated_limit_w([_number(board.get(name, "")) for name in _LIMITS], BOARD_FACTOR)

    def _capability(self, uuid: str) -> Capability | None:
        match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", self._boards.get(uuid, {}).get("compute_cap", ""))
        return (int(match[1]), int(match[2])) if match else None

    def parse(self, line: str, arrived_ns: int) -> tuple[str, PowerSample] | None:
        """Return UUID and reading of a line; None for a line that is not of a GPU.

        A field that cannot be read costs that field. A header, which tools in between may add, gives the columns'
        order.
        """
        texts = _texts(line, len(self._columns))
        if len(texts) != len(self._columns):
            return None
        names = [text.partition(" ")[0] for text in texts]
        if "uuid" in names and all(name in self._column_of for name in names):
            self._columns = [self._column_of[name] for name in names]
            return None
        fields = dict(zip(self._columns, texts, strict=True))
        uuid = fields.pop("uuid", "")
        if not _UUID.fullmatch(uuid):
            return None
        stamp = fields.get("driver_timestamp_us", "[N/A]")
        if _epoch_us(stamp) is None and not stamp.startswith("["):
            return None  # words that only look like a line
        values: dict[str, Any] = {column: _CONVERT[column](text) for column, text in fields.items()}
        if _USAGE in values:
            instant = not self._can_tell or usage_window_s(self._capability(uuid)) == 0.0
            values["power_instant_w" if instant else "power_average_w"] = values.pop(_USAGE)
        # The read happened inside the tool: its duration is unknown.
        return uuid, PowerSample(timestamp_ns=arrived_ns, read_latency_us=0.0, **values)


def _texts(line: str, count: int) -> list[str]:
    """Return the fields of a line. Decimal commas of a translated tool have no space behind them, separators have."""
    texts = line.split(", ")
    return [text.strip() for text in (texts if len(texts) == count else line.split(","))]


def _number(text: str) -> float | None:
    """Return a number, also with a decimal comma or its unit; None for [N/A], [Not Supported], ERR! and so on."""
    match = _NUMBER.fullmatch(text)
    return None if match is None else float(match[1].replace(",", "."))


def _whole(text: str, scale: int = 1) -> int | None:
    """Return a whole number that a column can hold, or None."""
    value = _number(text)
    return round(value * scale) if value is not None and 0 <= value * scale < LARGEST else None


def _share(text: str) -> float | None:
    percent = _number(text)
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None


def _bits(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"0[xX]0*[0-9a-fA-F]{1,15}", text) else None


def _epoch_us(text: str) -> int | None:
    """Return the tool's wall-clock time in Unix us; it is in UTC because the tool runs with TZ=UTC."""
    try:
        moment = datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
        return round(moment.timestamp() * 1e6)
    except (ValueError, OverflowError):
        return None


LARGEST = 2**62
"""Whole numbers from here on do not fit the log."""

_UUID = re.compile(r"GPU-[0-9A-Za-z-]{1,80}")
_NUMBER = re.compile(r"([-+]?\d{1,15}(?:[.,]\d{1,9})?)(?: ?(?:W|MiB|MHz|%|C))?")
_LIMITS = ("power.max_limit", "power.default_limit", "power.limit")
_BOARD = ("compute_cap", *_LIMITS)

_USAGE = "usage_w"
_COLUMNS: dict[str, tuple[str, ...]] = {
    "driver_timestamp_us": ("timestamp",),
    "uuid": ("uuid",),
    "power_average_w": ("power.draw.average",),
    "power_instant_w": ("power.draw.instant",),
    "utilization": ("utilization.gpu",),
    "memory_used_bytes": ("memory.used",),
    "sm_clock_mhz": ("clocks.sm", "clocks.current.sm"),
    "temperature_c": ("temperature.gpu",),
    "clocks_event_reasons": ("clocks_event_reasons.active", "clocks_throttle_reasons.active"),
}
"""Field of each column: the first of these names that the tool knows."""

_CONVERT: dict[str, Callable[[str], int | float | None]] = {
    "driver_timestamp_us": _epoch_us,
    "power_average_w": _number,
    "power_instant_w": _number,
    _USAGE: _number,
    "utilization": _share,
    "memory_used_bytes": lambda text: _whole(text, 1 << 20),
    "sm_clock_mhz": _whole,
    "temperature_c": _number,
    "clocks_event_reasons": _bits,
}
"""Value of each column's text; None where it is none."""
