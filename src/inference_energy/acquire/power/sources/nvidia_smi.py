"""GPU power through the tool nvidia-smi, for machines where Python cannot load NVIDIA's management library.

One nvidia-smi in loop mode (`--query-gpu=... --format=csv,noheader,nounits -lms N`) writes a line a GPU and period;
each GPU's channel gives the lines that it has not given yet, each at the time of its arrival. Fields and their
meaning: `nvidia-smi --help-query-gpu`; options and exit codes: the manual page nvidia-smi(1).
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from inference_energy.acquire.power.base import Channel, PowerSource, Reading, SourceError, SourceState
from inference_energy.acquire.power.settings import NvidiaSmiSettings
from inference_energy.acquire.power.sources.selection import select_gpus
from inference_energy.acquire.power.sources.streaming import Key, LineStream, StreamChannel, Unread
from inference_energy.acquire.power.sources.tool import Answer, ask

DOMAIN = "gpu"
ANSWER_TIMEOUT_S = 20.0
"""Without persistence mode the driver loads with each call, which takes seconds on a machine of many GPUs."""

GA100 = 8.0
"""Compute capability up to which `power.draw` is instantaneous; above, it is the mean of 1 s (--help-query-gpu)."""

_INSTALL = "install the NVIDIA driver or, in a container, start it with the GPUs (docker run --gpus all)"


class NvidiaSmiSource(PowerSource):
    """The NVIDIA GPUs that nvidia-smi shows.

    Args:
        settings: how it is called here.
        gpus: UUIDs (a beginning is enough) or indices; None for all.
        interval_s: time between its lines.
    """

    name = "nvidia-smi"

    def __init__(
        self, settings: NvidiaSmiSettings, gpus: Sequence[str | int] | None = None, interval_s: float = 0.1
    ) -> None:
        self._command = settings.command
        self._gpus = None if gpus is None else list(gpus)
        self._interval_s = interval_s
        self._stream: LineStream | None = None

    @property
    def grade(self) -> str:
        """`sampled`: the tool shows no energy counter."""
        return "sampled"

    def state(self) -> SourceState:
        """Name the GPUs that give power, or say why there are none."""
        try:
            layout = self._layout()
            alive, dead = self._alive(layout)
        except SourceError as error:
            return SourceState(self.name, False, str(error), [])
        reason = f"{len(alive)} NVIDIA GPU(s), {' and '.join(layout.powers)}"
        if dead:
            reason += f"; left out because they give no power: {', '.join(dead)}"
        return SourceState(self.name, True, reason, alive)

    def channels(self) -> list[Channel]:
        """Start nvidia-smi and make a channel for each GPU, once all have given a line."""
        self.close()
        layout = self._layout()
        alive, _ = self._alive(layout)
        unread = Unread()

        def take(line: str, arrived_ns: int) -> bool:
            found = layout.parse(line, arrived_ns)
            if found is not None:
                uuid, reading = found
                unread.put((uuid, DOMAIN), reading)
            return found is not None

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
        return [
            StreamChannel(self.name, key, self.grade, unread, stream, line_period_s=self._interval_s) for key in keys
        ]

    def close(self) -> None:
        """End nvidia-smi."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _layout(self) -> "_Layout":
        answer = self._ask("--help-query-gpu")
        known = set(re.findall(r'"([a-z0-9_.]+)"', answer.output))
        if "uuid" not in known:
            raise SourceError(f"nvidia-smi does not say what it can be asked for: {answer.words}")
        average = True
        if not known & {"power.draw.average", "power.draw.instant"}:
            average = self._averages(known)
        return _Layout(known, average)

    def _averages(self, known: set[str]) -> bool:
        """Whether `power.draw` is an average on these GPUs; a tool too old to tell the capability is from before."""
        if "compute_cap" not in known:
            return False
        answer = self._ask("--query-gpu=compute_cap", "--format=csv,noheader,nounits")
        try:
            return all(_finite(line) > GA100 for line in answer.output.split())
        except ValueError as error:
            raise SourceError(f"nvidia-smi does not say which GPUs these are, it says: {answer.words}") from error

    def _alive(self, layout: "_Layout") -> tuple[list[str], list[str]]:
        """The selected GPUs that give power, and those that do not."""
        answer = self._ask(*layout.query)
        found = dict(filter(None, (layout.parse(line, 0) for line in answer.output.splitlines())))
        if not found:
            raise SourceError(f"nvidia-smi shows no GPU, it says: {answer.words}")
        selected = select_gpus(self._gpus, list(found))
        alive = [uuid for uuid in selected if found[uuid].power_w]
        if not alive:
            raise SourceError(f"nvidia-smi gives no power of {', '.join(selected)}: the board or its driver lacks it")
        return alive, [uuid for uuid in selected if uuid not in alive]

    def _ask(self, *arguments: str) -> Answer:
        return ask([*self._command, *arguments], timeout_s=ANSWER_TIMEOUT_S, install=_INSTALL)


class _Layout:
    """What is asked for, and how a line of the answer is read.

    Args:
        known: the fields that this nvidia-smi knows.
        average: whether its `power.draw` is an average; only asked where it knows no better.
    """

    def __init__(self, known: set[str], average: bool) -> None:
        columns: list[tuple[str, str]] = []
        for column, names in _COLUMNS.items():
            if name := next((name for name in names if name in known), None):
                columns.append((column, name))
        if not any(column.startswith("power_") for column, _ in columns):
            columns.append(("power_average_w" if average else "power_instant_w", "power.draw"))
        self._columns = [column for column, _ in columns]
        self.powers = [name for column, name in columns if column.startswith("power_")]
        self.query = [f"--query-gpu={','.join(name for _, name in columns)}", "--format=csv,noheader,nounits"]

    def parse(self, line: str, arrived_ns: int) -> tuple[str, Reading] | None:
        """The UUID and reading of a line; None where it is not a line of values."""
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
        # The read itself happened inside the tool: its duration is not known, and no time of ours was spent.
        return uuid, Reading(timestamp_ns=arrived_ns, read_latency_us=0.0, **values)


def _missing(text: str) -> bool:
    """[N/A], [Not Supported], [Unknown Error], [GPU requires reset], ...: whatever stands in brackets is no value."""
    return text.startswith("[") or text in ("", "N/A")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _epoch_us(text: str) -> int:
    """The tool's wall-clock time, written in UTC because the tool runs with TZ=UTC."""
    moment = datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)


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
"""Where each column comes from: the first of these names that the tool knows."""

_CONVERT: dict[str, Callable[[str], int | float]] = {
    "driver_timestamp_us": _epoch_us,
    "power_average_w": _finite,
    "power_instant_w": _finite,
    "utilization": lambda text: _finite(text) / 100,
    "memory_used_bytes": lambda text: int(text) * 1024 * 1024,
    "sm_clock_mhz": int,
    "temperature_c": _finite,
    "clocks_event_reasons": lambda text: int(text, 16),
}
