"""The interface of a power source, which offers sensor channels to read.

A new source is one file with a `PowerSource` and its `SensorChannel`s, and one line in `choose.candidates`. Exceptions
of a vendor's library stop at that file and leave it as `SourceError`.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from inference_energy.contracts.plausible_power import domain_limit_w

T = TypeVar("T")

STILL_LIMIT_S = 30.0
"""A power sensor updates several times a second and its last digit moves: a value this old is a fault."""


class SourceError(Exception):
    """A power source could not be opened or read; the message says why and, where it is known, what to do."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """Whether a source works on this machine. `reason` says what it offers, or what to do to make it work."""

    name: str
    available: bool
    reason: str
    devices: list[str]


class PowerSample(NamedTuple):
    """One reading of one channel: the columns of power.parquet without source, device and domain.

    `timestamp_ns` is the middle of the read on the monotonic clock, `read_latency_us` the duration of the read. It is a
    tuple because thousands are made every second, and a frozen dataclass takes three times as long to make.
    """

    timestamp_ns: int
    read_latency_us: float
    driver_timestamp_us: int | None = None
    power_instant_w: float | None = None
    power_average_w: float | None = None
    energy_counter_j: float | None = None
    utilization: float | None = None
    memory_used_bytes: int | None = None
    sm_clock_mhz: int | None = None
    temperature_c: float | None = None
    clocks_event_reasons: int | None = None

    @property
    def power_w(self) -> float | None:
        """The average in W if the sensor gives one (it misses nothing between polls), else the instantaneous power."""
        return self.power_instant_w if self.power_average_w is None else self.power_average_w


class SensorChannel(ABC):
    """One thing to read at one rate.

    `device` is the GPU's UUID, `package-0` and the like; `domain` is one of `contracts.power.DOMAINS`; `grade` is one
    of `contracts.grades.POWER_GRADES`; `period_s` is the time between reads, or None for the sampler's interval. A
    channel with a period of its own is read in a thread of its own, so that a slow call delays no other channel.

    Attributes:
        optional: whether sampling may begin, and goes on as if nothing were lost, without a reading of this channel.
        still_limit_s: report a fault if the value does not change for this long; None disables the check.
        hide: takes a login out of the messages of the channel; see `PowerSource.hide`.
        limit_w: highest plausible power by the power limit that the driver states, or by the settings; None where
            neither says, and that of the domain holds (`contracts.plausible_power`).
        metadata: facts about the channel for the log's metadata; `contracts.power` has the keys.
    """

    def __init__(self, source: str, device: str, domain: str, grade: str, period_s: float | None = None) -> None:
        self.source = source
        self.device = device
        self.domain = domain
        self.grade = grade
        self.period_s = period_s
        self.optional = False
        self.still_limit_s = None if grade == "modelled" else STILL_LIMIT_S
        self.hide: Callable[[str], str] = str
        self.limit_w: float | None = None
        self.metadata: dict[str, Any] = {}

    @property
    def highest_w(self) -> float:
        """The plausibility limit that holds."""
        return domain_limit_w(self.domain) if self.limit_w is None else self.limit_w

    @abstractmethod
    def read(self) -> PowerSample:
        """Read once.

        Raises:
            SourceError: no reading this time. The caller may try again.
        """

    def read_many(self) -> list[PowerSample]:
        """Read once where one call gives several readings, or none this time; in order of time.

        Raises:
            SourceError: as from `read`.
        """
        return [self.read()]

    def diagnostics(self) -> dict[str, Any]:
        """Return JSON-able facts about the channel for the sampler's statistics, besides its readings."""
        return {}


class PowerSource(ABC):
    """One interface to power on this machine, such as NVML, RAPL or a model.

    Attributes:
        name: as users write it in `power.sources`.
        grade: the best grade that the source's channels reach; a source may lower it when it is opened.
    """

    name: str
    grade: str

    @property
    def measures(self) -> bool:
        """Whether the source reads power, rather than modelling it."""
        return self.grade != "modelled"

    def probe(self) -> SourceState:
        """Return whether the source works here, and why not."""
        try:
            reason, devices = self.find_devices()
        except SourceError as error:
            return SourceState(self.name, False, self.hide(str(error)), [])
        except Exception as error:  # whatever a device or a library answers must not end the choice of sources
            return SourceState(self.name, False, f"its answer cannot be understood ({type(error).__name__})", [])
        return SourceState(self.name, True, self.hide(reason), [self.hide(device) for device in devices])

    @abstractmethod
    def find_devices(self) -> tuple[str, list[str]]:
        """Return what the source offers here, as words for the user, and the names of its devices.

        Raises:
            SourceError: the source does not work here; the message says what to do to make it work.
        """

    @abstractmethod
    def channels(self) -> list[SensorChannel]:
        """Open the source and return its channels.

        Raises:
            SourceError: the source does not work here.
        """

    def describe(self) -> dict[str, Any]:
        """Return the source's part of a log's metadata: `name`, `grade` and the parameters of a model."""
        return {"name": self.name, "grade": self.grade}

    def hide(self, text: str) -> str:
        """Return a text of the source without the login of its device, which some devices send back."""
        return text

    @property
    def required_by_key(self) -> str | None:
        """The configuration key that names a device of this source, which must then not be left out silently."""
        return None

    def close(self) -> None:
        """Release what `channels` opened; the channels must not be read afterwards."""
        return


def timed(call: Callable[[], T]) -> tuple[T, int, float]:
    """Make a call; return its result, its middle in monotonic ns, and its duration in us."""
    before_ns = time.monotonic_ns()
    result = call()
    after_ns = time.monotonic_ns()
    return result, (before_ns + after_ns) // 2, (after_ns - before_ns) / 1e3
