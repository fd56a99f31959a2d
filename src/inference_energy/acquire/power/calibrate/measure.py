"""Comparison of a node's own power with an external meter: phases of idle, full and half load, read by both at once.

Each channel is read in a thread of its own. The mean power of each phase gets a standard uncertainty from blocks of the
phase; a line through the phases' means gives gain and offset, which go to calibration.json (`contracts.calibration`).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from inference_energy import __version__
from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.calibrate.york_fit import Line, fit_line
from inference_energy.acquire.power.characterize.gpu import exclusive
from inference_energy.acquire.power.characterize.square_wave import StepLoad, load_command
from inference_energy.acquire.power.simulated import GRADE, labelled, simulated_node
from inference_energy.acquire.power.sources.ipmi import IpmiSource
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.power.sources.pdu import PduSource
from inference_energy.acquire.power.sources.rapl import POWERCAP, RaplSource
from inference_energy.acquire.power.sources.redfish import RedfishSource
from inference_energy.acquire.power.sources.smart_plug import SmartPlugSource
from inference_energy.config.base import Section
from inference_energy.config.power import IpmiSettings, PduSettings, RedfishSettings, SmartPlugSettings
from inference_energy.contracts.calibration import NODE, VERSION, Calibration, CalibrationFile, channel_text
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import clock_anchor, read_json, write_json
from inference_energy.contracts.power import summed_domains
from inference_energy.errors import InputError, RunError

PERIOD_S = 0.1


class ChannelReader:
    """Reads channels for the length of a `with` block, each in a thread of its own.

    Attributes:
        readings: of each channel in order of time; complete after the block.
        errors: the last error of each channel that had one.
    """

    def __init__(self, channels: Sequence[SensorChannel]) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.readings: dict[SensorChannel, list[PowerSample]] = {channel: [] for channel in channels}
        self.errors: dict[SensorChannel, str] = {}

    def __enter__(self) -> Self:
        for channel in self.readings:
            thread = threading.Thread(target=self._follow, args=(channel,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _follow(self, channel: SensorChannel) -> None:
        while True:
            try:
                self.readings[channel] += channel.read_many()
            except SourceError as error:
                self.errors[channel] = str(error)
            if self._stop.wait(channel.period_s or PERIOD_S):
                return


Floats = NDArray[np.float64]
BLOCKS = 5
FEWEST_READINGS = 4


class Phase(NamedTuple):
    """A stretch of constant load, in monotonic ns."""

    name: str
    start_ns: int
    end_ns: int


class Track(NamedTuple):
    """The energy of one channel over time: from its counter, or the trapezoid of its power; shape (n,) each."""

    name: str
    time_ns: NDArray[np.int64]
    energy_j: Floats


@dataclass(frozen=True)
class PhaseMeans:
    """One phase's mean powers, each with its standard uncertainty."""

    phase: str
    own_w: float
    u_own_w: float
    meter_w: float
    u_meter_w: float


def track_of(name: str, readings: Sequence[PowerSample], *, counted: bool) -> Track:
    """The channel's energy.

    Args:
        name: for messages.
        readings: in order of time.
        counted: whether to take its energy counter, where it has one, rather than its power.

    Raises:
        RunError: there are fewer than `FEWEST_READINGS` readings.
    """
    counts = [
        (sample.timestamp_ns, sample.energy_counter_j) for sample in readings if sample.energy_counter_j is not None
    ]
    powered = [(sample.timestamp_ns, sample.power_w) for sample in readings if sample.power_w is not None]
    chosen = counts if counts and (counted or not powered) else powered
    if len(chosen) < FEWEST_READINGS:
        raise RunError(f"{name} gave {len(chosen)} readings: too few to compare")
    time_ns = np.array([at_ns for at_ns, _ in chosen], dtype=np.int64)
    values = np.array([value for _, value in chosen], dtype=np.float64)
    if chosen is powered:
        steps_j = np.diff(time_ns) / 1e9 * (values[1:] + values[:-1]) / 2
        values = np.concatenate(([0.0], np.cumsum(steps_j)))
    return Track(name, time_ns, values)


def power_of(tracks: Sequence[Track], phase: Phase) -> tuple[float, float]:
    """(mean, standard uncertainty) in W of the tracks' sum over a phase, from `BLOCKS` equal blocks.

    Raises:
        RunError: a track does not reach over the phase, or has too few readings in it.
    """
    edges_ns = np.linspace(phase.start_ns, phase.end_ns, BLOCKS + 1)
    blocks_w = np.zeros(BLOCKS)
    for track in tracks:
        inside = (track.time_ns >= phase.start_ns) & (track.time_ns <= phase.end_ns)
        if inside.sum() < FEWEST_READINGS or track.time_ns[-1] < phase.end_ns or track.time_ns[0] > phase.start_ns:
            raise RunError(f"{track.name} gave {inside.sum()} readings in the phase {phase.name}: too few to compare")
        blocks_w += np.diff(np.interp(edges_ns, track.time_ns, track.energy_j)) / (np.diff(edges_ns) / 1e9)
    return float(blocks_w.mean()), float(blocks_w.std(ddof=1) / np.sqrt(BLOCKS))


def phase_means(own: Sequence[Track], meter: Sequence[Track], phases: Sequence[Phase]) -> list[PhaseMeans]:
    """Both powers of every phase."""
    return [PhaseMeans(phase.name, *power_of(own, phase), *power_of(meter, phase)) for phase in phases]


METERS: dict[str, tuple[Callable[..., PowerSource], type[Section]]] = {
    "smart-plug": (SmartPlugSource, SmartPlugSettings),
    "pdu": (PduSource, PduSettings),
    "redfish": (RedfishSource, RedfishSettings),
    "ipmi": (IpmiSource, IpmiSettings),
}


def meter_source(name: str, settings: str) -> PowerSource:
    """Set a meter up.

    Args:
        name: of its source.
        settings: its settings as JSON, or the path of a JSON file with them. They hold no secret.

    Raises:
        InputError: the name is unknown, or the settings do not fit.
    """
    if name not in METERS:
        raise InputError(f"--meter {name}: write one of {', '.join(METERS)}")
    source, kind = METERS[name]
    try:
        return source(kind.model_validate(_content(settings)))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise InputError(f"--settings: {'; '.join(faults)}") from error


def _content(settings: str) -> Any:
    text = settings
    if not settings.lstrip().startswith("{"):
        try:
            text = Path(settings).read_text()
        except OSError as error:
            raise InputError(f"--settings {settings}: {error.strerror}; write JSON or a JSON file's name") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"--settings: not JSON: {error}") from error


def record(
    line: Line, means: Sequence[PhaseMeans], channels: Sequence[str], meter: dict[str, Any], grade: str
) -> Calibration:
    """One calibration.

    Args:
        line: the fit.
        means: what was fitted.
        channels: those that were summed.
        meter: what its source says of itself, and its devices.
        grade: `metered`, or the meter's own grade where it is weaker.

    Raises:
        RunError: the meter's power does not rise with the node's own.
    """
    if line.gain <= 0:
        raise RunError(f"the meter does not follow the node's own power: a gain of {line.gain:.3g} is no gain")
    return Calibration.model_validate(
        {
            **asdict(line),
            "meter": meter,
            "channels": list(channels),
            "phases": [asdict(mean) for mean in means],
            "grade": grade,
            "date": datetime.fromtimestamp(clock_anchor()["unix_ns"] / 1e9, UTC).isoformat(timespec="seconds"),
            "toolkit_version": __version__,
        }
    )


def save(path: Path, name: str, calibration: Calibration) -> None:
    """Add one calibration to the file; calibrations of other names are kept.

    Raises:
        InputError: the file is there and holds something else.
    """
    present: dict[str, Calibration] = {}
    if path.exists():
        try:
            present = CalibrationFile.model_validate(read_json(path)).calibrations
        except ValidationError as error:
            raise InputError(f"--output {path}: holds something else; name a new file") from error
    content = CalibrationFile(version=VERSION, calibrations={**present, name: calibration})
    write_json(path, content.model_dump(mode="json"))


SETTLE_S = 5.0
END_S = 2.0
"""Left out at the end of a phase, so that a slow meter's last reading does not reach into the next phase."""

SHORTEST_PHASE_S = 15.0
HALF_S = 0.2
"""Half load switches this fast, so that every meter shows a mean."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The measurement: `device` names the only device that the meter covers; the load runs on GPU `gpu`."""

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
        with exclusive(gpus), ChannelReader([*own, *outside]) as follower:
            phases = [_cold_idle(plan, say)]
            _check_all_speak(follower)
            phases += _under_load(command, gpus[plan.gpu], plan, say)
    mine = _tracks(own, follower, counted=True)
    # The energy counters of meters move in coarse steps, and some only once a minute.
    means = phase_means(mine, _tracks(outside, follower, counted=False), phases)
    line = fit_line(*_columns(means))
    facts = {**meter.describe(), "devices": sorted({channel.device for channel in outside})}
    simulated = any(channel.grade == GRADE for channel in own)
    grade = GRADE if simulated else weakest(channel.grade for channel in outside)
    return plan.device or NODE, record(line, means, [track.name for track in mine], facts, grade)


def _cold_idle(plan: Plan, say: Say) -> Phase:
    say(f"cold idle, {plan.phase_s:.0f} s")
    begun_ns = time.monotonic_ns()
    time.sleep(plan.phase_s)
    return _phase("cold idle", begun_ns, time.monotonic_ns())


def _check_all_speak(follower: ChannelReader) -> None:
    """Check before the load, so that a meter that does not answer costs no more than the idle phase."""
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
        full_ns, half_ns, rest_ns = (edges[first + index][0] for index in (0, 1, 1 + len(pulses)))
        last = first + each
        after_ns = edges[last][0] if last < len(edges) else ended_ns
        phases.append(_phase(f"full load {repeat + 1}", full_ns, half_ns))
        phases.append(_phase(f"half load {repeat + 1}", half_ns, rest_ns))
        phases.append(_phase(f"rest {repeat + 1}", rest_ns, after_ns))
    return phases


def _phase(name: str, start_ns: int, end_ns: int) -> Phase:
    return Phase(name, start_ns + round(SETTLE_S * 1e9), end_ns - round(END_S * 1e9))


@contextmanager
def _open_own(device: str | None) -> Iterator[list[SensorChannel]]:
    """Open the node's own channels that add up without counting anything twice, or the channels of one device."""
    node = simulated_node()
    sources = [labelled(NvmlSource()), labelled(RaplSource(node / "powercap" if node else POWERCAP))]
    working = [source for source in sources if source.probe().available]
    with ExitStack() as stack:
        channels: list[SensorChannel] = []
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
            reasons = "; ".join(f"{source.name}: {source.probe().reason}" for source in sources)
            raise InputError(f"there is no power of {device or 'this node'} to compare with the meter ({reasons})")
        yield chosen


@contextmanager
def _open(source: PowerSource, option: str) -> Iterator[list[SensorChannel]]:
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


def _tracks(channels: Sequence[SensorChannel], follower: ChannelReader, *, counted: bool) -> list[Track]:
    """Return the energy of each (source, device, domain), with a GPU's counter and its power as one."""
    by_key: dict[tuple[str, str, str], list[SensorChannel]] = {}
    for channel in channels:
        by_key.setdefault((channel.source, channel.device, channel.domain), []).append(channel)
    tracks = []
    for key, group in by_key.items():
        readings = [reading for channel in group for reading in follower.readings[channel]]
        readings.sort(key=lambda reading: reading.timestamp_ns)
        try:
            tracks.append(track_of(channel_text(*key), readings, counted=counted))
        except RunError as error:
            last = next((follower.errors[channel] for channel in group if channel in follower.errors), None)
            raise RunError(f"{error}{f', at last with: {last}' if last else ''}") from error
    return tracks


def _columns(means: Sequence[PhaseMeans]) -> Any:
    return np.array([[mean.own_w, mean.u_own_w, mean.meter_w, mean.u_meter_w] for mean in means]).T
