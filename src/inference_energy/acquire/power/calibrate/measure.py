"""Comparing a node with an external meter: phases of idle, full and half load, read by both sides at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.acquire.power.base import Channel, PowerSource, SourceError
from inference_energy.acquire.power.calibrate.follow import Follower
from inference_energy.acquire.power.calibrate.line import fit_line
from inference_energy.acquire.power.calibrate.phases import Phase, PhaseMeans, Track, phase_means, track_of
from inference_energy.acquire.power.calibrate.record import record
from inference_energy.acquire.power.characterise.exclusive import exclusive
from inference_energy.acquire.power.characterise.step_load import StepLoad, load_command
from inference_energy.acquire.power.simulated import GRADE, labelled, simulated_node
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.power.sources.rapl import POWERCAP, RaplSource
from inference_energy.contracts.calibration import NODE, Calibration, channel_text
from inference_energy.contracts.power import summed_domains, weakest_grade
from inference_energy.errors import InputError, RunError

SETTLE_S = 5.0
END_S = 2.0
"""Left out at the end of a phase, lest a slow meter's last reading reach into the next."""

SHORTEST_PHASE_S = 15.0
HALF_S = 0.2
"""Half load switches so fast that every meter shows a mean."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to do: `device` names one whose power alone the meter sees; the load runs on GPU `gpu`."""

    device: str | None
    gpu: int
    phase_s: float
    repeats: int
    load_python: Path | None


def calibrate(meter: PowerSource, plan: Plan, say: Say = lambda _: None) -> tuple[str, Calibration]:
    """Measure, fit, and return (name of the boundary, its calibration); see `record`.

    Raises:
        InputError: a channel or the load is missing, a GPU is in use, or the phases are too short.
        RunError: a channel gave too little, or the load moved too little.
    """
    if plan.phase_s < SHORTEST_PHASE_S:
        raise InputError(f"--phase {plan.phase_s:g}: write at least {SHORTEST_PHASE_S:g} s")
    command = load_command(plan.load_python)
    with _open_own(plan.device) as own, _open(meter, "--meter") as outside:
        gpus = list(dict.fromkeys(channel.device for channel in own if channel.domain == "gpu"))
        if plan.gpu >= len(gpus):
            raise InputError(f"--gpu {plan.gpu}: {len(gpus)} GPU(s) are read here")
        with exclusive(gpus), Follower([*own, *outside]) as follower:
            phases = [_cold_idle(plan, say)]
            _check_all_speak(follower)
            phases += _under_load(command, gpus[plan.gpu], plan, say)
    mine = _tracks(own, follower, counted=True)
    # The energy counters of meters move in coarse steps, and some only once a minute.
    means = phase_means(mine, _tracks(outside, follower, counted=False), phases)
    line = fit_line(*_columns(means))
    facts = {**meter.describe(), "devices": sorted({channel.device for channel in outside})}
    simulated = any(channel.grade == GRADE for channel in own)
    grade = GRADE if simulated else weakest_grade(channel.grade for channel in outside)
    return plan.device or NODE, record(line, means, [track.name for track in mine], facts, grade)


def _cold_idle(plan: Plan, say: Say) -> Phase:
    say(f"cold idle, {plan.phase_s:.0f} s")
    begun_ns = time.monotonic_ns()
    time.sleep(plan.phase_s)
    return _phase("cold idle", begun_ns, time.monotonic_ns())


def _check_all_speak(follower: Follower) -> None:
    """Before the load, so that a meter that does not answer costs no more than the idle phase."""
    for channel, readings in follower.readings.items():
        if not readings:
            name = f"{channel.source} {channel.device}"
            raise RunError(f"{name} gave no reading: {follower.errors.get(channel, 'its first read still goes on')}")


def _under_load(command: Sequence[str], gpu: str, plan: Plan, say: Say) -> list[Phase]:
    """Rounds of full load, half load and rest."""
    pulses = [HALF_S] * (2 * round(plan.phase_s / HALF_S / 2))
    steps = [1.0]
    for _ in range(plan.repeats):
        # The half load's first pulse is a rest and its last one busy; the long rest follows.
        steps += [plan.phase_s, *pulses, plan.phase_s]
    with StepLoad(command, gpu, steps) as load:
        say(f"load ({load.what}), {sum(steps):.0f} s")
        load.go()
        edges = load.edges()
        ended_ns = time.monotonic_ns()
        time.sleep(2.0)  # the meter must reach beyond the last phase
    phases = []
    each = 2 + len(pulses)
    for repeat in range(plan.repeats):
        first = repeat * each
        full_ns, half_ns, rest_ns = (edges[first + place][0] for place in (0, 1, 1 + len(pulses)))
        last = first + each
        after_ns = edges[last][0] if last < len(edges) else ended_ns
        phases.append(_phase(f"full load {repeat + 1}", full_ns, half_ns))
        phases.append(_phase(f"half load {repeat + 1}", half_ns, rest_ns))
        phases.append(_phase(f"rest {repeat + 1}", rest_ns, after_ns))
    return phases


def _phase(name: str, start_ns: int, end_ns: int) -> Phase:
    return Phase(name, start_ns + round(SETTLE_S * 1e9), end_ns - round(END_S * 1e9))


@contextmanager
def _open_own(device: str | None) -> Iterator[list[Channel]]:
    """The node's own channels that add up without counting anything twice, or those of one device."""
    node = simulated_node()
    sources = [labelled(NvmlSource()), labelled(RaplSource(node / "powercap" if node else POWERCAP))]
    working = [source for source in sources if source.state().available]
    with ExitStack() as stack:
        channels: list[Channel] = []
        for source in working:
            channels += source.channels()
            stack.callback(source.close)
        summed = summed_domains(channel.domain for channel in channels if not channel.optional)
        chosen = [
            channel
            for channel in channels
            if channel.domain in summed and not channel.optional and device in (None, channel.device)
        ]
        if not chosen:
            reasons = "; ".join(f"{source.name}: {source.state().reason}" for source in sources)
            raise InputError(f"there is no power of {device or 'this node'} to compare with the meter ({reasons})")
        yield chosen


@contextmanager
def _open(source: PowerSource, option: str) -> Iterator[list[Channel]]:
    try:
        channels = [channel for channel in source.channels() if channel.domain == NODE]
    except SourceError as error:
        raise InputError(f"{option} {source.name}: {error}") from error
    try:
        if not channels:
            raise InputError(f"{option} {source.name}: it gives no power of the whole node")
        yield channels
    finally:
        source.close()


def _tracks(channels: Sequence[Channel], follower: Follower, *, counted: bool) -> list[Track]:
    """The energy of each (source, device, domain): a GPU's counter and its power are one."""
    by_key: dict[tuple[str, str, str], list[Channel]] = {}
    for channel in channels:
        by_key.setdefault((channel.source, channel.device, channel.domain), []).append(channel)
    found = []
    for key, mine in by_key.items():
        readings = [reading for channel in mine for reading in follower.readings[channel]]
        readings.sort(key=lambda reading: reading.timestamp_ns)
        try:
            found.append(track_of(channel_text(*key), readings, counted=counted))
        except RunError as error:
            last = next((follower.errors[channel] for channel in mine if channel in follower.errors), None)
            raise RunError(f"{error}{f', at last with: {last}' if last else ''}") from error
    return found


def _columns(means: Sequence[PhaseMeans]) -> Any:
    return np.array([[mean.own_w, mean.u_own_w, mean.meter_w, mean.u_meter_w] for mean in means]).T
