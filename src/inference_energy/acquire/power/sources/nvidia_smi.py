"""GPU power through the tool nvidia-smi, for machines where Python cannot load NVIDIA's management library.

One nvidia-smi in loop mode (`--query-gpu=... --format=csv,noheader,nounits -lms N`) writes a line per GPU and period;
each GPU's channel gives its new lines, each at the time of its arrival. Fields and their
meaning: `nvidia-smi --help-query-gpu`; options and exit codes: the manual page nvidia-smi(1).
"""

import math
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
        alive, _ = self._alive(layout, values)
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
            channel.metadata = averaging(uuid, layout.averaging_time_s(uuid, values[uuid]), self._windows_s)
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
        return _Layout(fields, self._capabilities() if "compute_cap" in fields else {})

    def _capabilities(self) -> dict[str, Capability]:
        """Return compute capabilities by UUID, as far as the tool knows them."""
        answer = self._ask("--query-gpu=uuid,compute_cap", "--format=csv,noheader,nounits")
        lines = [[text.strip() for text in line.split(",")] for line in answer.output.splitlines()]
        capabilities = {}
        for uuid, version in (line for line in lines if len(line) == 2):
            if match := re.fullmatch(r"(\d+)\.(\d+)", version):
                capabilities[uuid] = (int(match[1]), int(match[2]))
        return capabilities

    def _values(self, layout: "_Layout") -> dict[str, PowerSample]:
        """Read each GPU once."""
        answer = self._ask(*layout.query)
        values = dict(filter(None, (layout.parse(line, 0) for line in answer.output.splitlines())))
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
        capabilities: compute capability by UUID, as far as it tells.
    """

    def __init__(self, fields: set[str], capabilities: Mapping[str, Capability]) -> None:
        columns: list[tuple[str, str]] = []
        for column, names in _COLUMNS.items():
            if name := next((name for name in names if name in fields), None):
                columns.append((column, name))
        self._usage = not any(column.startswith("power_") for column, _ in columns)
        if self._usage:
            columns.append((_USAGE, "power.draw"))
        self._can_tell = "compute_cap" in fields
        self._capabilities = capabilities
        self._columns = [column for column, _ in columns]
        self.powers = [name for _, name in columns if name.startswith("power.draw")]
        self.query = [f"--query-gpu={','.join(name for _, name in columns)}", "--format=csv,noheader,nounits"]

    def averaging_time_s(self, uuid: str, reading: PowerSample) -> float | None:
        """Return the averaging time of a GPU's power; 0 if it is instantaneous, None if it is unknown."""
        if reading.power_average_w is None:
            return 0.0
        capability = self._capabilities.get(uuid)
        return usage_window_s(capability) if self._usage else average_window_s(capability)

    def parse(self, line: str, arrived_ns: int) -> tuple[str, PowerSample] | None:
        """Return UUID and reading of a line; None for a line without values."""
        texts = [text.strip() for text in line.split(",")]
        if len(texts) != len(self._columns):
            return None
        fields = dict(zip(self._columns, texts, strict=True))
        uuid = fields.pop("uuid")
        if not uuid.startswith("GPU-"):
            return None
        try:
            values: dict[str, Any] = {
                column: _CONVERT[column](text) for column, text in fields.items() if not _missing(text)
            }
        except ValueError:
            return None
        if _USAGE in values:
            instant = not self._can_tell or usage_window_s(self._capabilities.get(uuid)) == 0.0
            values["power_instant_w" if instant else "power_average_w"] = values.pop(_USAGE)
        # The read happened inside the tool: its duration is unknown.
        return uuid, PowerSample(timestamp_ns=arrived_ns, read_latency_us=0.0, **values)


def _missing(text: str) -> bool:
    """Return whether a text is no value: [N/A], [Not Supported], [GPU requires reset] or anything else in brackets."""
    return text.startswith("[") or text in ("", "N/A")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _epoch_us(text: str) -> int:
    """Return the tool's wall-clock time in Unix us; it is in UTC because the tool runs with TZ=UTC."""
    moment = datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)


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

_CONVERT: dict[str, Callable[[str], int | float]] = {
    "driver_timestamp_us": _epoch_us,
    "power_average_w": _finite,
    "power_instant_w": _finite,
    _USAGE: _finite,
    "utilization": lambda text: _finite(text) / 100,
    "memory_used_bytes": lambda text: int(text) * 1024 * 1024,
    "sm_clock_mhz": int,
    "temperature_c": _finite,
    "clocks_event_reasons": lambda text: int(text, 16),
}
