"""The measurement of a GPU's sensors, phase by phase: calls, idle, the counter, and a step load."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.acquire.power.characterize.gpu import GpuUnderTest, exclusive, open_gpu
from inference_energy.acquire.power.characterize.sensor_timing import Background, Floats, Polls, call_costs_us, poll
from inference_energy.acquire.power.characterize.square_wave import StepLoad, Wave, load_command, steps_for
from inference_energy.errors import InputError

POLL_PERIOD_S = 0.002
COUNTER_PERIOD_S = 0.004
SLOW_COUNTER_PERIOD_S = 0.02
"""During a load the counter only marks where energies are cut, and its calls must not disturb the others."""

SHORTEST_S = 15.0
CALLS_SHARE, IDLE_SHARE, COUNTER_SHARE, LOAD_SHARE = 0.03, 0.27, 0.15, 0.55
SETTLE_S = 3.0
"""From the load's readiness to the first poll: longer than any known averaging time."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class StepResponse:
    """What was polled while the load switched.

    Attributes:
        power: columns average (mW), instant (mW), driver's time (us).
        counter: one column in mJ; None without a counter.
        wave: the load, in s since `origin_ns`.
        what: the load in words.
        steps: the lengths of rest and load it was asked for.
    """

    origin_ns: int
    power: Polls
    counter: Polls | None
    wave: Wave
    what: str
    steps: list[float]


@dataclass(frozen=True)
class Characterization:
    """All polls of one GPU; `load` and `counter` are None if there was none."""

    gpu: GpuUnderTest
    facts: dict[str, Any]
    calls_us: dict[str, Floats]
    idle: Polls
    counter: Polls | None
    load: StepResponse | None
    duration_s: float


def measure(
    gpu: str,
    *,
    duration_s: float,
    with_load: bool = True,
    load_python: Path | None = None,
    nvml: Any = None,
    say: Say = lambda _: None,
) -> Characterization:
    """Characterize a GPU that nobody else uses, while holding its lock.

    Args:
        gpu: NVML index or UUID.
        duration_s: of all phases together, without the load's start.
        with_load: whether to make a step load.
        load_python: a Python with torch for it.
        nvml: the module to use in place of pynvml.
        say: is told what goes on.

    Raises:
        InputError: no such GPU, it is in use, there is nothing to make the load, or the time is too short.
        RunError: the load failed, or another process came.
    """
    if duration_s < SHORTEST_S:
        raise InputError(f"--duration {duration_s:g}: write at least {SHORTEST_S:g} s")
    # A named Python is checked first; one is searched for only if there is a GPU to load.
    command = load_command(load_python) if with_load and load_python else None
    with open_gpu(gpu, nvml) as opened, exclusive([opened.uuid], nvml):
        if with_load and command is None:
            command = load_command(None)
        return _phases(opened, duration_s, command, say)


def _phases(gpu: GpuUnderTest, duration_s: float, command: list[str] | None, say: Say) -> Characterization:
    error = gpu.nvml.NVMLError
    begun_s = time.monotonic()
    say(f"{gpu.uuid}: cost of calls, {CALLS_SHARE * duration_s:.0f} s")
    calls_us = call_costs_us(gpu.calls(), CALLS_SHARE * duration_s, error)
    idle_s = (IDLE_SHARE + (0 if command else LOAD_SHARE)) * duration_s
    say(f"idle, {idle_s:.0f} s")
    idle = _poll_for(gpu.power_mw, POLL_PERIOD_S, idle_s, error)
    counter = None
    if gpu.has_counter:
        say(f"energy counter, {COUNTER_SHARE * duration_s:.0f} s")
        counter = _poll_for(lambda: [gpu.counter_mj()], COUNTER_PERIOD_S, COUNTER_SHARE * duration_s, error)
        calls_us["nvmlDeviceGetTotalEnergyConsumption"] = counter.latency_us
    load = _step_response(gpu, LOAD_SHARE * duration_s, command, say) if command else None
    return Characterization(gpu, gpu.facts(), calls_us, idle, counter, load, time.monotonic() - begun_s)


def _poll_for(read: Any, period_s: float, duration_s: float, error: type[Exception]) -> Polls:
    until_ns = time.monotonic_ns() + round(duration_s * 1e9)
    return poll(read, period_s, until_ns=until_ns, error=error, stop=threading.Event())


def _step_response(gpu: GpuUnderTest, duration_s: float, command: list[str], say: Say) -> StepResponse:
    steps = steps_for(duration_s)
    error = gpu.nvml.NVMLError
    say("step load: starting")
    with StepLoad(command, gpu.uuid, steps) as load:
        time.sleep(SETTLE_S)
        say(f"step load: {load.what}, {sum(steps):.0f} s")
        load.go()
        origin_ns = time.monotonic_ns()
        counter = None
        if gpu.has_counter:
            with Background(lambda: [gpu.counter_mj()], SLOW_COUNTER_PERIOD_S, error) as background:
                power = _poll_for(gpu.power_mw, POLL_PERIOD_S, sum(steps), error)
            counter = background.polls()
        else:
            power = _poll_for(gpu.power_mw, POLL_PERIOD_S, sum(steps), error)
        wave = Wave.from_edges(load.edges(), origin_ns)
        return StepResponse(origin_ns, power, counter, wave, load.what, steps)
