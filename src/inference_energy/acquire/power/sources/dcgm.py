"""GPU power from NVIDIA's DCGM exporter, directly or through Prometheus, for clusters where NVML is out of reach.

The exporter reads the GPUs every 30 s unless it is started with `--collect-interval`, in ms, and shows the same values
in between. Each is logged once: a read without a change gives no row, and after three periods without one it fails.
Averaged power is that of NVML's power usage: see `sources.nvml`.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from inference_energy.acquire.power.base import (
    STILL_LIMIT_S,
    PowerSample,
    SensorChannel,
    SourceError,
)
from inference_energy.acquire.power.sources import dcgm_feeds as feeds
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.dcgm_feeds import GpuValues, Snapshot
from inference_energy.acquire.power.sources.http import unverified_warning
from inference_energy.acquire.power.sources.meter import MeterSource
from inference_energy.acquire.power.sources.sanity import AVERAGE_S, averaging
from inference_energy.config.power import DcgmSettings
from inference_energy.contracts.plausible_power import BOARD_FACTOR, stated_limit_w

KEY = "power.dcgm"
STILL_UPDATES = 10
"""Number of updates with the same power that count as a fault, however slow they are."""

_INSTANT_MODELS = re.compile(
    r"\b(A100X?|A30X?|A800|CMP 170HX|V100\w*|T4G?|P100|P40|P6|P4|M60|M40|M10|M6|M4|K\d+\w*|"
    r"TITAN|Quadro|GTX|RTX 20\d\d|NVS)\b",
    re.IGNORECASE,
)
"""Models whose power usage is instantaneous: those of GA100 and all before Ampere (NVML API reference). The list is
whole, since none are added any more; any other name is of a GPU that averages."""


class DcgmSource(MeterSource[DcgmSettings]):
    """The GPUs that a DCGM exporter shows.

    Args:
        settings: where it is; None where none is set up.
        gpus: UUIDs (a beginning is enough) or indices; None for all that match the settings' labels.
        windows_s: measured averaging times by UUID.
    """

    name = "dcgm"
    grade = "counter"  # `sampled` once the exporter turns out not to show the energy counter
    key = KEY
    setup_hint = "the url of a DCGM exporter, such as http://localhost:9400/metrics"

    def __init__(
        self,
        settings: DcgmSettings | None,
        gpus: Sequence[str | int] | None = None,
        windows_s: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(settings)
        self._windows_s = windows_s or {}
        self._gpus = None if gpus is None else list(gpus)
        self._counters: dict[str, sanity.GrowingCounter] = {}

    def find_devices(self) -> tuple[str, list[str]]:
        """Read the feed once, and name the GPUs."""
        feed = self._feed()
        try:
            gpus = self._select(feed.snapshot())
        finally:
            feed.close()
        without = sum(feeds.ENERGY not in values.fields for values in gpus.values())
        reason = f"{len(gpus)} NVIDIA GPU(s)"
        if without:
            reason += f", {without} without an energy counter: add {feeds.ENERGY} to the exporter's list of fields"
        reason += unverified_warning(self.settings.url, self.settings.verify, f"{KEY}.verify")
        return reason, list(gpus)

    def channels(self) -> list[SensorChannel]:
        """A channel for each GPU's power and state, and one for its energy counter."""
        settings, feed = self.settings, self._feed()
        self._connections.append(feed)
        try:
            gpus = self._select(feed.snapshot())
        except SourceError:
            self.close()
            raise
        channels: list[SensorChannel] = []
        for uuid, values in gpus.items():
            if feeds.POWER in values.fields or feeds.INSTANT in values.fields:
                channels.append(_PowerChannel(feed, uuid, settings))
                channels[-1].metadata = averaging(uuid, _window_s(values), self._windows_s)
            if feeds.ENERGY in values.fields:
                counter = self._counters.setdefault(uuid, sanity.GrowingCounter(f"the energy counter of {uuid}"))
                channels.append(_EnergyChannel(feed, uuid, settings, counter))
        for channel in channels:
            stated_w = [gpus[channel.device].fields.get(name) for name in feeds.LIMITS]
            channel.limit_w = stated_limit_w(stated_w, BOARD_FACTOR)
        self.grade = "counter" if any(isinstance(channel, _EnergyChannel) for channel in channels) else "sampled"
        return channels

    def describe(self) -> dict[str, Any]:
        """Add the kind of feed."""
        return {**super().describe(), "kind": self._settings.kind if self._settings else None}

    def _feed(self) -> feeds.Feed:
        settings = self.settings
        if settings.kind == "prometheus" and not settings.labels and self._gpus is None:
            raise SourceError(
                f'{KEY}.labels is empty, and a Prometheus server knows the GPUs of many machines: write {{"Hostname": '
                '"..."}, or UUIDs in power.gpus'
            )
        kind = feeds.ExporterFeed if settings.kind == "exporter" else feeds.PrometheusFeed
        uuids = [str(gpu) for gpu in self._gpus or []]
        return kind(settings, self.login(), () if any(uuid.isdigit() for uuid in uuids) else uuids)

    def _select(self, snapshot: Snapshot) -> dict[str, GpuValues]:
        """Return the selected GPUs, each once."""
        shown = {uuid: values for uuid, values in sorted(snapshot.gpus.items()) if _has_power(values)}
        if not shown:
            raise SourceError(
                f"no GPU with {feeds.POWER} there"
                + (f" and the labels {self.settings.labels}" if self.settings.labels else "")
                + ": is it a DCGM exporter, is it scraped, and is power.dcgm.period_s at least the time between its "
                "updates?"
            )
        if self._gpus is None:
            return shown
        picked = [_pick(name, shown) for name in self._gpus]
        if not picked:
            raise SourceError("power.gpus is an empty list, which asks for no GPU: write null for all")
        return {uuid: shown[uuid] for uuid in dict.fromkeys(picked)}


def _has_power(values: GpuValues) -> bool:
    return any(name in values.fields for name in (feeds.POWER, feeds.INSTANT, feeds.ENERGY))


def _pick(name: str | int, shown: dict[str, GpuValues]) -> str:
    if str(name).isdigit():
        matches = [uuid for uuid, values in shown.items() if values.labels.get("gpu") == str(name)]
    else:
        matches = [uuid for uuid in shown if uuid.startswith(str(name))]
    if len(matches) != 1:
        raise SourceError(
            f"{len(matches)} GPUs there match {name!r} of power.gpus; write a UUID of: {', '.join(shown)}"
        )
    return matches[0]


class _GpuChannel(SensorChannel):
    """One GPU of the feed: gives each of its updates once, and fails when there are none."""

    def __init__(self, feed: feeds.Feed, uuid: str, grade: str, settings: DcgmSettings) -> None:
        super().__init__("dcgm", uuid, "gpu", grade, settings.period_s)
        self.still_limit_s = max(STILL_LIMIT_S, STILL_UPDATES * settings.period_s)
        self._feed = feed
        self._stale_ns = int(settings.period_s * feeds.STALE_PERIODS * 1e9)
        self._seen: tuple[dict[str, float], int] | None = None

    def read(self) -> PowerSample:
        fresh = self.read_many()
        if not fresh:
            raise SourceError(f"{self.device} has nothing new yet")
        return fresh[0]

    def read_many(self) -> list[PowerSample]:
        """Return the newest update, or nothing if it was returned before."""
        snapshot = self._feed.snapshot()
        values = snapshot.gpus.get(self.device)
        if values is None:
            raise SourceError(f"{self.device} is no longer shown: the exporter or the GPU is gone, or not scraped")
        at_ns = snapshot.timestamp_ns if values.sample_ns is None else values.sample_ns
        fields = {name: value for name, value in values.fields.items() if name not in feeds.LIMITS}
        held = self._seen is not None and self._seen[0] == fields
        if not held or self._seen is None:
            self._seen = (fields, at_ns)
        age_ns = snapshot.timestamp_ns - self._seen[1]
        if age_ns > self._stale_ns:
            raise SourceError(
                f"the values of {self.device} are {age_ns / 1e9:.1f} s old: start the exporter with --collect-interval "
                f"{int((self.period_s or 1) * 1000)} (and scrape it as often), or write a longer {KEY}.period_s"
            )
        return [] if held else [self._reading(values, at_ns, snapshot.latency_us)]

    @abstractmethod
    def _reading(self, values: GpuValues, at_ns: int, latency_us: float) -> PowerSample:
        """The row of a fresh update."""


class _PowerChannel(_GpuChannel):
    """Board power and the state that explains it."""

    def __init__(self, feed: feeds.Feed, uuid: str, settings: DcgmSettings) -> None:
        super().__init__(feed, uuid, "sampled", settings)

    def _reading(self, values: GpuValues, at_ns: int, latency_us: float) -> PowerSample:
        fields = values.fields
        power_w, instant_w = (
            sanity.power_w(fields[name], f"{name} of {self.device}") if name in fields else None
            for name in (feeds.POWER, feeds.INSTANT)
        )
        if power_w is None and instant_w is None:
            raise SourceError(f"{self.device} gives no power now")
        if instant_w is None and _window_s(values) == 0.0:
            power_w, instant_w = None, power_w
        use = fields.get(feeds.UTILIZATION)
        memory_mib = fields.get(feeds.MEMORY_USED)
        return PowerSample(
            at_ns,
            latency_us,
            values.sample_unix_us,
            power_instant_w=instant_w,
            power_average_w=power_w,
            utilization=None if use is None else use / 100,
            memory_used_bytes=None if memory_mib is None else round(memory_mib * (1 << 20)),
            sm_clock_mhz=_whole(fields.get(feeds.SM_CLOCK)),
            temperature_c=fields.get(feeds.TEMPERATURE),
            clocks_event_reasons=_whole(next((fields[name] for name in feeds.REASONS if name in fields), None)),
        )


class _EnergyChannel(_GpuChannel):
    """The board's energy since the driver was loaded."""

    def __init__(self, feed: feeds.Feed, uuid: str, settings: DcgmSettings, counter: sanity.GrowingCounter) -> None:
        super().__init__(feed, uuid, "counter", settings)
        self._counter = counter

    def _reading(self, values: GpuValues, at_ns: int, latency_us: float) -> PowerSample:
        millijoules = values.fields.get(feeds.ENERGY)
        if not millijoules:
            raise SourceError(f"the energy counter of {self.device} reads zero, or is no longer shown")
        energy_j = self._counter.add(millijoules / 1e3, 0.0, at_ns)
        if energy_j is None:
            raise SourceError(f"the energy counter of {self.device} was reset: it is not used any more")
        return PowerSample(at_ns, latency_us, values.sample_unix_us, energy_counter_j=energy_j)


def _window_s(values: GpuValues) -> float | None:
    """What the power usage averages over: 1 s, 0 where it is instantaneous, None where the model is not told."""
    model = values.labels.get("modelName", "")
    if feeds.POWER not in values.fields or _INSTANT_MODELS.search(model):
        return 0.0
    return AVERAGE_S if model else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
