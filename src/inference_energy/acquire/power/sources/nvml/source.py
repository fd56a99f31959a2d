"""GPU power through NVML, NVIDIA's management library (package nvidia-ml-py, module pynvml).

Each GPU has a fast channel (power, and every second utilisation, memory, clock, temperature and throttle reasons), a
slow one for its energy counter, whose call costs milliseconds, and where they are reported one for its memory's and one
for its superchip's power. Two more are optional: the driver's own samples, and foreign processes if the GPU's server is
known.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.sources.nvml.device import Card, cards, mapped, supported
from inference_energy.acquire.power.sources.nvml.power import (
    SCOPE_GPU,
    SCOPE_MODULE,
    CounterChannel,
    MemoryChannel,
    ModuleChannel,
    PowerChannel,
    SamplesChannel,
    memory_power_w,
    read_fields,
)
from inference_energy.acquire.power.sources.nvml.processes import ProcessesChannel, ServerPid
from inference_energy.acquire.power.sources.sanity import average_window_s, averaging, usage_window_s
from inference_energy.contracts.power import GPU_MODULE


class NvmlSource(PowerSource):
    """The NVIDIA GPUs of this machine.

    Args:
        gpus: UUIDs (a beginning is enough) or NVML indices; None for all, an empty list for none. A MIG instance stands
            for its card.
        nvml: the module to use in place of pynvml.
        server_pid: gives the pid of the server that owns the GPUs; None if no server is known, in which case foreign
            processes are not searched for.
        windows_s: measured averaging times by UUID.
    """

    name = "nvml"
    grade = "counter"  # `sampled` once the GPUs turn out to have no energy counter

    def __init__(
        self,
        gpus: Sequence[str | int] | None = None,
        nvml: Any = None,
        server_pid: ServerPid | None = None,
        windows_s: Mapping[str, float] | None = None,
    ) -> None:
        self._gpus = None if gpus is None else list(gpus)
        self._nvml = nvml
        self._server_pid = server_pid
        self._windows_s = windows_s or {}
        self._opened = False

    @property
    def required_by_key(self) -> str | None:
        """`power.gpus` where GPUs were named."""
        return "power.gpus" if self._gpus else None

    def find_devices(self) -> tuple[str, list[str]]:
        """Name the GPUs, and MIG instances and superchips among them."""
        with self._session() as nvml:
            gpus = self._select(nvml)
            superchips = [card.uuid for card in gpus if _module_reading(nvml, card) is not None]
        words = [f"{len(gpus)} NVIDIA GPU(s)", *filter(None, (card.partition_text() for card in gpus))]
        words += [f"{uuid} is part of a superchip, whose power is read as gpu_module" for uuid in superchips]
        return "; ".join(words), [card.uuid for card in gpus]

    def channels(self) -> list[SensorChannel]:
        """Open NVML and make the channels of the selected GPUs."""
        nvml = self._load()
        with mapped(nvml, "nvmlInit"):
            nvml.nvmlInit()
        self._opened = True
        try:
            selected = self._select(nvml)
            by_card = [self._gpu_channels(nvml, card, index / len(selected)) for index, card in enumerate(selected)]
        except SourceError:
            self.close()
            raise
        channels = list(chain.from_iterable(by_card))
        self.grade = "counter" if any(isinstance(channel, CounterChannel) for channel in channels) else "sampled"
        return channels

    def close(self) -> None:
        """Shut NVML down."""
        if self._opened:
            self._opened = False
            nvml = self._load()
            with mapped(nvml, "nvmlShutdown"):
                nvml.nvmlShutdown()

    def _gpu_channels(self, nvml: Any, card: Card, turn: float) -> list[SensorChannel]:
        channels: list[SensorChannel] = []
        module = _module_reading(nvml, card)
        power = self._power(nvml, card, turn, in_module=module is not None)
        if power is not None:
            channels.append(power)
        if supported(nvml, partial(nvml.nvmlDeviceGetTotalEnergyConsumption, card.handle)):
            channels.append(CounterChannel(nvml, card, "gpu" if module is None else GPU_MODULE))
        if supported(nvml, partial(memory_power_w, nvml, card.handle)):
            channels.append(MemoryChannel(nvml, card))
            channels[-1].metadata = self._averaging(card, average_window_s(card.capability))
        if module is not None:
            channels.append(ModuleChannel(nvml, card))
            channels[-1].metadata = self._averaging(card, _fields_window_s(card, module))
        channels += self._optional(nvml, card)
        for channel in channels:
            channel.metadata = {**channel.metadata, **card.metadata()}
            if channel.domain != GPU_MODULE:
                channel.limit_w = card.limit_w
        return channels

    def _power(self, nvml: Any, card: Card, turn: float, in_module: bool) -> PowerChannel | None:
        """Return the fast channel, or None if a superchip gives no power of the GPU alone."""
        channel = PowerChannel(nvml, card, turn)
        try:
            reading = read_fields(nvml, card.handle, SCOPE_GPU)
        except nvml.NVMLError:  # the fields exist, but cannot be read now
            window_s = average_window_s(card.capability)
        else:
            if reading is None and in_module:
                return None
            window_s = usage_window_s(card.capability) if reading is None else _fields_window_s(card, reading)
        channel.metadata = self._averaging(card, window_s)
        return channel

    def _averaging(self, card: Card, window_s: float | None) -> dict[str, Any]:
        return averaging(card.uuid, window_s, self._windows_s)

    def _optional(self, nvml: Any, card: Card) -> list[SensorChannel]:
        """Return the channels that help to judge the power but are not needed to measure it."""
        channels: list[SensorChannel] = []
        try:
            nvml.nvmlDeviceGetSamples(card.handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)
            channels.append(SamplesChannel(nvml, card.handle, card.uuid))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                channels.append(SamplesChannel(nvml, card.handle, card.uuid))
        tells = card.instances or supported(nvml, partial(nvml.nvmlDeviceGetComputeRunningProcesses, card.handle))
        if self._server_pid is not None and tells:
            channels.append(ProcessesChannel(nvml, card, self._server_pid))
        return channels

    def _load(self) -> Any:
        if self._nvml is None:
            try:
                import pynvml  # here, because a machine without it can still use the other sources
            except ImportError as error:
                raise SourceError("the Python package nvidia-ml-py is missing: install it") from error
            self._nvml = pynvml
        return self._nvml

    @contextmanager
    def _session(self) -> Iterator[Any]:
        nvml = self._load()
        with mapped(nvml, "nvmlInit"):
            nvml.nvmlInit()
        try:
            yield nvml
        finally:
            with mapped(nvml, "nvmlShutdown"):
                nvml.nvmlShutdown()

    def _select(self, nvml: Any) -> list[Card]:
        return cards(nvml, self._gpus)


def _module_reading(nvml: Any, card: Card) -> PowerSample | None:
    """Return the superchip's power, or None without a superchip or after an error: most GPUs have no superchip."""
    try:
        return read_fields(nvml, card.handle, SCOPE_MODULE)
    except nvml.NVMLError:
        return None


def _fields_window_s(card: Card, reading: PowerSample) -> float | None:
    """Return the averaging time of field values; 0 if they are instantaneous only."""
    return 0.0 if reading.power_average_w is None else average_window_s(card.capability)
