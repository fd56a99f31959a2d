"""AMD GPUs through AMD SMI (Python package amdsmi, which comes with ROCm and needs its libamd_smi.so).

Each GPU has a fast channel (socket power, and every second utilisation, memory, clock and temperature) and a slow one
for its energy accumulator:

    energy_j = energy_accumulator * counter_resolution / 1e6        (resolution in uJ, such as 15.3)

`current_socket_power` is instantaneous (MI300 and later), `average_socket_power` an average (MI200 and before); what a
board lacks is "N/A". Of a module with two dies the first shows the power of both, the second none. Source: AMD SMI
Python library reference, amdsmi_get_power_info and amdsmi_get_energy_count.
"""

import contextlib
import importlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError, timed
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.gpu_selection import select_gpus
from inference_energy.contracts.plausible_power import BOARD_FACTOR, stated_limit_w
from inference_energy.contracts.power import AVERAGING_WINDOW_S

COUNTER_PERIOD_S = 0.5
EXTRAS_PERIOD_S = 1.0
COUNTER_BITS = (32, 64)
"""Widths of the accumulator in different versions."""

_HINTS = {
    "NO_PERM": "this user may not use the GPU: put it into the groups video and render",
    "DRIVER_NOT_LOADED": "the driver amdgpu is not loaded: modprobe amdgpu",
    "INIT_ERROR": "AMD SMI finds no driver: modprobe amdgpu or, in a container, pass /dev/kfd and /dev/dri",
}
_NOT_SUPPORTED = ("NOT_SUPPORTED", "NOT_YET_IMPLEMENTED", "NO_DATA")


class AmdSmiSource(PowerSource):
    """The AMD GPUs of this machine.

    Args:
        gpus: UUIDs (a beginning is enough) or indices; None for all, an empty list for none.
        amdsmi: the module to use in place of amdsmi.
    """

    name = "amd-smi"
    grade = "counter"  # `sampled` once the GPUs turn out to have no energy accumulator

    def __init__(self, gpus: Sequence[str | int] | None = None, amdsmi: Any = None) -> None:
        self._gpus = None if gpus is None else list(gpus)
        self._module = amdsmi
        self._opened = False

    def find_devices(self) -> tuple[str, list[str]]:
        """Name the GPUs that give power."""
        with self._session() as smi:
            alive, dead = self._alive(smi)
        reason = f"{len(alive)} AMD GPU(s)"
        if dead:
            reason += f"; left out because they give no power of their own: {', '.join(dead)}"
        return reason, list(alive)

    def channels(self) -> list[SensorChannel]:
        """Open AMD SMI and make the channels of the selected GPUs."""
        self.close()
        smi = self._load()
        with _mapped(smi, "starting AMD SMI"):
            smi.amdsmi_init(smi.AmdSmiInitFlags.INIT_AMD_GPUS)
        self._opened = True
        try:
            alive, _ = self._alive(smi)
            counted = [uuid for uuid, handle in alive.items() if _counts(smi, handle)]
        except SourceError:
            self.close()
            raise
        self.grade = "counter" if counted else "sampled"
        fast: list[SensorChannel] = [_GpuChannel(smi, handle, uuid) for uuid, handle in alive.items()]
        for channel, handle in zip(fast, alive.values(), strict=True):
            # AMD does not document the averaging time of `average_socket_power`.
            channel.metadata = {AVERAGING_WINDOW_S: None if _averages(smi, handle) else 0.0}
            channel.limit_w = _limit_w(smi, handle)
        counters = [_CounterChannel(smi, alive[uuid], uuid) for uuid in counted]
        for counter in counters:
            counter.limit_w = next(channel.limit_w for channel in fast if channel.device == counter.device)
        return [*fast, *counters]

    def close(self) -> None:
        """Shut AMD SMI down."""
        if self._opened:
            self._opened = False
            smi = self._load()
            with _mapped(smi, "ending AMD SMI"):
                smi.amdsmi_shut_down()

    def _load(self) -> Any:
        if self._module is None:
            try:
                # Where its library is missing it prints, into the sampler's own output, and fails with a KeyError.
                with contextlib.redirect_stdout(io.StringIO()):
                    self._module = importlib.import_module("amdsmi")
            except ImportError as error:
                raise SourceError(
                    "the Python package amdsmi is missing: install the version of this machine's ROCm, which lies in "
                    "ROCm's folder under share/amd_smi"
                ) from error
            except Exception as error:
                raise SourceError(
                    "the Python package amdsmi finds no libamd_smi.so: install ROCm's package amd-smi-lib, or set "
                    "ROCM_PATH"
                ) from error
        return self._module

    @contextmanager
    def _session(self) -> Iterator[Any]:
        smi = self._load()
        with _mapped(smi, "starting AMD SMI"):
            smi.amdsmi_init(smi.AmdSmiInitFlags.INIT_AMD_GPUS)
        try:
            yield smi
        finally:
            with _mapped(smi, "ending AMD SMI"):
                smi.amdsmi_shut_down()

    def _alive(self, smi: Any) -> tuple[dict[str, Any], list[str]]:
        """Return the handles of the selected GPUs that give power by UUID, and the UUIDs of the other selected GPUs."""
        with _mapped(smi, "listing the GPUs"):
            present = {
                str(smi.amdsmi_get_gpu_device_uuid(handle)): handle for handle in smi.amdsmi_get_processor_handles()
            }
        if not present:
            raise SourceError("AMD SMI works but shows no GPU")
        selected = select_gpus(self._gpus, list(present))
        alive = {uuid: present[uuid] for uuid in selected if _gives_power(smi, present[uuid])}
        if not alive:
            raise SourceError(f"AMD SMI gives no power of {', '.join(selected)}; the second die of a module has none")
        return alive, [uuid for uuid in selected if uuid not in alive]


class _GpuChannel(SensorChannel):
    """Socket power, and every second the state that explains it."""

    def __init__(self, smi: Any, handle: Any, device: str) -> None:
        super().__init__("amd-smi", device, "gpu", "sampled")
        self.still_limit_s = None  # whole watts stay the same for minutes in a GPU at rest
        self._smi = smi
        self._handle = handle
        self._extras_due_s = 0.0

    def read(self) -> PowerSample:
        with _mapped(self._smi, f"power of {self.device}"):
            info, timestamp_ns, latency_us = timed(lambda: self._smi.amdsmi_get_power_info(self._handle))
        average_w, instant_w = _powers_w(info)
        power_w = instant_w if average_w is None else average_w
        sanity.power_w(power_w, f"the socket power of {self.device}")
        now_s = time.monotonic()
        extras: dict[str, Any] = {}
        if now_s >= self._extras_due_s:
            self._extras_due_s = now_s + EXTRAS_PERIOD_S
            # After the power reading, so that its timestamp stays that of the power alone.
            extras = _extras(self._smi, self._handle)
        return PowerSample(timestamp_ns, latency_us, power_average_w=average_w, power_instant_w=instant_w, **extras)


class _CounterChannel(SensorChannel):
    """Energy in J since the driver was loaded. After a reset of the GPU it starts again, lower than before."""

    def __init__(self, smi: Any, handle: Any, device: str) -> None:
        super().__init__("amd-smi", device, "gpu", "counter", period_s=COUNTER_PERIOD_S)
        self._smi = smi
        self._handle = handle
        self._last = self._last_ns = 0
        self._wrapped = 0

    def read(self) -> PowerSample:
        with _mapped(self._smi, f"energy accumulator of {self.device}"):
            count, timestamp_ns, latency_us = timed(lambda: self._smi.amdsmi_get_energy_count(self._handle))
        counter, resolution_uj = _counter(count)
        if not counter or not resolution_uj:
            raise SourceError(f"the energy accumulator of {self.device} reads {counter}: it does not count")
        since_s, self._last_ns = (timestamp_ns - self._last_ns) / 1e9, timestamp_ns
        if counter < self._last:
            self._wrapped += _range_passed(self._last, counter, self.highest_w * since_s * 1e6 / resolution_uj)
        self._last = counter
        driver_ns = sanity.number(count.get("timestamp"))
        return PowerSample(
            timestamp_ns,
            latency_us,
            driver_timestamp_us=round(driver_ns / 1e3) if driver_ns else None,
            energy_counter_j=(counter + self._wrapped) * resolution_uj / 1e6,
        )


def _range_passed(last: int, counter: int, highest_step: float) -> int:
    """Return the range that a wrap from `last` to `counter` passed; 0 if that is more than is possible: a reset."""
    sizes = [1 << bits for bits in COUNTER_BITS]
    return next((size for size in sizes if last < size and counter + size - last <= highest_step), 0)


def _limit_w(smi: Any, handle: Any) -> float | None:
    """Return a GPU's plausibility limit by its power cap, which AMD SMI gives in uW, and did in W; None without one."""
    try:
        cap = smi.amdsmi_get_power_cap_info(handle)
    except (smi.AmdSmiException, AttributeError):
        return None
    caps = [sanity.number(cap.get(name)) for name in ("max_power_cap", "default_power_cap", "power_cap")]
    return stated_limit_w([None if each is None else each / 1e6 if each > 1e5 else each for each in caps], BOARD_FACTOR)


def _powers_w(info: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return average and instantaneous socket power in W; "N/A" and the largest 16- or 32-bit number mean none."""
    powers = [sanity.number(info.get(f"{kind}_socket_power")) for kind in ("average", "current")]
    average_w, instant_w = (None if power in (0xFFFF, 0xFFFFFFFF) else power for power in powers)
    return average_w, instant_w


def _counter(count: dict[str, Any]) -> tuple[int | None, float | None]:
    """Return the accumulator and its resolution in uJ; older versions call the accumulator `power`."""
    counter = count.get("energy_accumulator", count.get("power"))
    resolution_uj = sanity.number(count.get("counter_resolution"))
    if sanity.number(counter) is None or counter == (1 << 64) - 1:
        return None, resolution_uj
    return int(counter or 0), resolution_uj


def _gives_power(smi: Any, handle: Any) -> bool:
    """Return False only if the GPU gives no power; after a passing error it is worth trying again."""
    try:
        return any(_powers_w(smi.amdsmi_get_power_info(handle)))
    except smi.AmdSmiException as error:
        return not _unsupported(error)


def _averages(smi: Any, handle: Any) -> bool:
    try:
        return _powers_w(smi.amdsmi_get_power_info(handle))[0] is not None
    except smi.AmdSmiException:  # it exists, but cannot be read now
        return True


def _counts(smi: Any, handle: Any) -> bool:
    try:
        return all(_counter(smi.amdsmi_get_energy_count(handle)))
    except smi.AmdSmiException as error:
        return not _unsupported(error)


def _unsupported(error: Exception) -> bool:
    return any(name in str(error) for name in _NOT_SUPPORTED)


def _extras(smi: Any, handle: Any) -> dict[str, Any]:
    """Read the GPU's state. Unavailable parts stay null, so that the power reading beside them is kept.

    AMD's throttle bits differ from NVML's, so that column stays empty.
    """
    hot, now = smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT
    calls: dict[str, Callable[[], Any]] = {
        "utilization": lambda: int(smi.amdsmi_get_gpu_activity(handle)["gfx_activity"]) / 100,
        "memory_used_bytes": lambda: int(smi.amdsmi_get_gpu_memory_usage(handle, smi.AmdSmiMemoryType.VRAM)),
        "sm_clock_mhz": lambda: int(smi.amdsmi_get_clock_info(handle, smi.AmdSmiClkType.GFX)["clk"]),
        "temperature_c": lambda: float(smi.amdsmi_get_temp_metric(handle, hot, now)),
    }
    state: dict[str, Any] = {}
    for column, call in calls.items():
        try:
            state[column] = call()
        except (smi.AmdSmiException, KeyError, TypeError, ValueError):  # "N/A" is no number
            state[column] = None
    return state


@contextmanager
def _mapped(smi: Any, doing: str) -> Iterator[None]:
    """Turn AMD SMI's exceptions into `SourceError`."""
    try:
        yield
    except smi.AmdSmiException as error:
        message = " ".join(str(error).split())
        hint = next((text for name, text in _HINTS.items() if name in message), None)
        raise SourceError(hint or f"{doing}: AMD SMI says {message!r}") from error
