"""What can go wrong on demand. Times are seconds since the node began (sensors) or the server listens (server)."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from inference_energy.bench.parts.section import Part

Seconds = Annotated[float, Field(ge=0)]
Every = Annotated[int, Field(ge=1, description="each n-th request, counted from 1")]


class ServerFaults(Part):
    """Faults of the server; null: none."""

    start_delay_s: Seconds = 0.0
    crash_after_s: Seconds | None = None
    crash_at_request: Every | None = None
    hang_after_s: Seconds | None = None
    error_500_every: Every | None = None
    error_event_every: Every | None = None
    disconnect_every: Every | None = None
    stall_every: Every | None = None
    stall_s: Seconds = 5.0


class _Spell(Part):
    """Something that lasts from `start_s` to `end_s`."""

    start_s: Seconds = 0.0
    end_s: Seconds = 1e9

    @model_validator(mode="after")
    def _in_order(self) -> "_Spell":
        if self.end_s < self.start_s:
            raise ValueError(f"end_s ({self.end_s:g}) must not be before start_s ({self.start_s:g})")
        return self


class SensorFault(_Spell):
    """One fault of a sensor between `start_s` and `end_s`; `device` null means every GPU.

    `error`: a share of `probability` of NVML calls fails. `stuck`: readings stay at their last value. `zero`: readings
    are 0. `counter_reset`: the energy counter begins anew at `start_s`. `clock_step`: the driver's clock jumps by
    `step_s`. The first three may be those of the `power` readings or of the energy `counter` alone.
    """

    kind: Literal["error", "stuck", "zero", "counter_reset", "clock_step"]
    readings: Literal["all", "power", "counter"] = "all"
    device: int | None = None
    probability: float = Field(1.0, ge=0, le=1)
    step_s: float = 0.0


def faults_of(readings: Literal["power", "counter"], faults: Sequence[SensorFault]) -> list[SensorFault]:
    """The faults that power readings, or the energy counter, have."""
    return [fault for fault in faults if fault.readings in ("all", readings)]


class Tenant(_Spell):
    """A second user of a GPU, who adds `power_w` between the two times, and shows in the list of processes."""

    device: int = 0
    power_w: float = Field(gt=0)
    start_s: Seconds
    end_s: Seconds
    pid: int = 999_999


class Faults(Part):
    """All faults of a node."""

    server: ServerFaults = ServerFaults()
    sensors: tuple[SensorFault, ...] = ()
    tenants: tuple[Tenant, ...] = ()
