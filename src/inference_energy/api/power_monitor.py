"""Energy of a block of Python code: power is sampled while the block runs.

The sampler process and the analysis are those of `inference-energy log-power` and `inference-energy analyze`.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import ValidationError

from inference_energy.acquire.power.power_log import SOURCE, read_stream, write_power_log
from inference_energy.acquire.power.sampler import stats_path
from inference_energy.acquire.power.sampler_handle import SamplerProcess, SamplerStats
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.server.guardian import process_stat
from inference_energy.analysis.log_energy import energy_between, whole_log
from inference_energy.analysis.power_series import PowerSeries, series_from_log, summed
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.config.validation import problems
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.io import ensure_writable
from inference_energy.errors import InputError, RunError

TAIL_S = 1.0
"""How long sampling goes on after the block: an average that is read later still tells of the block's last second."""

LONGEST_NAME_BYTES = 200
"""File systems take 255, and the running log has a longer name."""

_NOT_ENDED = " yet: its figures are there when the block has ended"

_ARGUMENTS = {"interval_s": "period_s", "server_pid": "pid", "modelled.tdp_w": "tdp_w", "modelled.idle_w": "idle_w"}
"""Arguments of `PowerMonitor` with another name than the key of the sampler's specification that they set."""

_OWN_ARGUMENTS = {
    "interval_s": "the argument period_s",
    "sources": "the argument sources",
    "gpus": "the argument gpus",
    "server_pid": "the argument pid",
    "duration_s": "the argument duration_s",
    "modelled": "the arguments tdp_w and idle_w",
}
"""Keys of the section `power` that are arguments of `PowerMonitor`, so that `settings` must not hold them."""


@dataclass(frozen=True)
class PowerRecording:
    """What one sampler process logged.

    Attributes:
        log: the columns of `power.parquet` with their metadata, sorted by time.
        stats: what the sampler counted.
    """

    log: pa.Table
    stats: SamplerStats

    def __repr__(self) -> str:
        """Return the number of readings and their columns in a line."""
        return f"PowerRecording({self.log.num_rows} readings of {', '.join(self.log.column_names)})"

    @cached_property
    def series(self) -> list[PowerSeries]:
        """The channels that add up to the machine's power without counting anything twice."""
        sources = json.loads((self.log.schema.metadata or {}).get(SOURCE.encode(), b"[]"))
        return summed(series_from_log(self.log.to_pandas(), sources, AnalysisConfig().power_reading))

    def whole(self) -> dict[str, Figure]:
        """Return `duration_s`, `energy_total_j` and `power_mean_w` of all the time that the readings cover."""
        return whole_log(self.series, AnalysisConfig())

    def energy(self, start_ns: int, end_ns: int, device: str | None = None) -> Figure:
        """Return the energy in J between two monotonic times, of all devices or of one."""
        series = [channel for channel in self.series if device in (None, channel.device)]
        return energy_between(series, start_ns, end_ns, AnalysisConfig())


class PowerMonitor:
    """Measures the energy of a `with` block.

    The block begins once every sensor has given a reading. After it, sampling goes on for `TAIL_S` or two readings of
    the slowest meter, so leaving the block takes that long. If the block raises an error, the energy up to there is
    measured likewise, and the error goes on.

    This example runs on a machine without a GPU or a counter, because it takes the modelled source, which estimates CPU
    power from CPU time and two powers from the data sheet. Leave out `sources`, `tdp_w` and `idle_w` to measure.

    >>> import time
    >>> from inference_energy import PowerMonitor
    >>> with PowerMonitor(sources=["modelled"], tdp_w=65, idle_w=10) as monitor:
    ...     time.sleep(0.5)
    >>> monitor.energy.unit, monitor.energy.grade
    ('J', 'modelled')
    >>> 5 < monitor.energy_j < 65
    True
    >>> list(monitor.by_device), monitor.reasons
    (['cpu'], ())

    `energy` is a figure: it has `value`, `unit`, `interval_95`, `reasons`, `grade` and `boundary`. A value that cannot
    be trusted is withheld: then `energy_j` is None and `reasons` say why.

    Args:
        sources: power sources by name, as `inference-energy sources` lists them; `auto` takes every one that measures.
        period_s: time between readings [s].
        log: file for the readings, .parquet or .csv, with a row per reading; None keeps none. Each
            running monitor needs a file of its own.
        gpus: GPUs by UUID or index; None takes all.
        tdp_w: CPU power at full load [W], for the modelled source.
        idle_w: CPU power at idle [W], for the modelled source.
        pid: running process whose tree the modelled source counts; None counts the whole machine.
        duration_s: longest time to sample [s]; None samples until the end of the block.
        settings: further keys of the configuration's section `power`, such as `redfish`.

    Raises:
        InputError: an argument cannot be used.
    """

    def __init__(
        self,
        sources: Literal["auto"] | Sequence[str] = "auto",
        period_s: float = 0.1,
        *,
        log: str | Path | None = None,
        gpus: Sequence[str | int] | None = None,
        tdp_w: float | None = None,
        idle_w: float = 0.0,
        pid: int | None = None,
        duration_s: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if sources != "auto":
            sources = _list_of("sources", sources)
        if gpus is not None:
            gpus = _list_of("gpus", gpus)
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(f"{settings!r:.80}: write keys of the section power, such as a dict", key="settings")
        for key in _OWN_ARGUMENTS.keys() & set(settings or ()):
            raise InputError(f"{key} is set by {_OWN_ARGUMENTS[key]}; leave it out here", key="settings")
        if log is not None and not isinstance(log, str | Path):
            raise InputError(f"{log!r}: write the name of a file", key="log")
        if log is not None and ("\0" in str(log) or len(os.fsencode(Path(log).name)) > LONGEST_NAME_BYTES):
            raise InputError(f"{str(log)!r:.80}: cannot be the name of a file; write a shorter one", key="log")
        # Absolute, because the block may change the working directory.
        self._log_path = None if log is None else Path(log).absolute()
        if self._log_path is not None and self._log_path.suffix not in (".csv", ".parquet"):
            raise InputError(f"{log}: the name must end in .csv or .parquet", key="log")
        self._spec = _specification(
            {
                "modelled": {"tdp_w": tdp_w, "idle_w": idle_w},
                **(settings or {}),
                "interval_s": period_s,
                "sources": sources,
                "gpus": gpus,
                "server_pid": pid,
                "duration_s": duration_s,
            }
        )
        self._sampler: SamplerProcess | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stream = Path()
        self._recording: PowerRecording | None = None
        self._why_none = _NOT_ENDED
        self._lock: _LogLock | None = None
        self._start_ns = self._end_ns = 0

    def start(self) -> None:
        """Start sampling, and return once every sensor has given a reading.

        Raises:
            InputError: a source does not work on this machine, the log cannot be written or is being written by
                another monitor, or there is no process `pid`; the message says why.
            RunError: a sensor gave no reading in time.
        """
        if self._sampler is not None:
            raise RunError("this power monitor is running")
        self._recording, self._why_none = None, _NOT_ENDED
        if (pid := self._spec.server_pid) is not None:
            state = process_stat(pid)
            if state is None or state.state in "ZX":
                text = f"there is no process {pid} on this machine; name a running one, or none for the whole machine"
                raise InputError(text, key="pid")
        if self._log_path is None:
            self._folder = tempfile.TemporaryDirectory(prefix="power-monitor-")
            self._stream = Path(self._folder.name) / "power.arrows"
        else:
            ensure_writable(self._log_path)
            self._lock = _LogLock(self._log_path)
            self._stream = self._log_path.with_name(f".{self._log_path.name}.{os.getpid()}.arrows")
        self._sampler = SamplerProcess(self._spec, self._stream)
        try:
            self._sampler.start()
        except BaseException:
            self._clean_up()
            raise
        self._start_ns = time.monotonic_ns()

    def stop(self, tail_s: float | None = None) -> PowerRecording:
        """End the measured time, stop sampling after a while, and write the log.

        Args:
            tail_s: how long to go on sampling; None for as long as the sensors need.

        Raises:
            RunError: it was not started, nothing was logged, or the log cannot be written.
        """
        if self._sampler is None:
            raise RunError("this power monitor is not running")
        self._end_ns = time.monotonic_ns()
        try:
            until_s = time.monotonic() + (self._tail_s() if tail_s is None else tail_s)
            try:
                while self._sampler.alive() and (left_s := until_s - time.monotonic()) > 0:
                    time.sleep(min(left_s, 0.1))
            except KeyboardInterrupt:  # must not cost the readings
                self._finish(self._sampler)
                raise
            return self._finish(self._sampler)
        except (RunError, OSError) as error:
            self._why_none = f": {error}"
            raise
        finally:
            self._clean_up()

    def _finish(self, sampler: SamplerProcess) -> PowerRecording:
        """Stop the sampler, take up its readings, and write the log."""
        stats = sampler.stop()
        table, _ = read_stream(self._stream)
        self._recording = PowerRecording(table, stats)
        if self._log_path is not None:
            try:
                write_power_log(table, self._log_path)
            except OSError as error:
                raise RunError(f"{self._log_path}: the power log cannot be written: {error.strerror}") from error
        return self._recording

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        try:
            self.stop()
        except (RunError, InputError, OSError) as problem:  # must not hide the block's own error
            error.add_note(f"The power of the block was not measured to its end: {problem}")

    def alive(self) -> bool:
        """Whether power is being sampled."""
        return self._sampler is not None and self._sampler.alive()

    def latest_w(self) -> dict[str, float]:
        """Return the newest power of each domain in W, about a second old, while sampling."""
        return {} if self._sampler is None else self._sampler.latest()

    @property
    def recording(self) -> PowerRecording:
        """The readings and the sampler's statistics.

        Raises:
            RunError: the measurement has not ended.
        """
        if self._recording is None:
            raise RunError(f"this power monitor has no readings{self._why_none}")
        return self._recording

    @property
    def duration_s(self) -> float:
        """Length of the block in s."""
        return (self._end_ns - self._start_ns) / 1e9

    @property
    def energy(self) -> Figure:
        """Energy of the block in J, over all devices."""
        return self.recording.energy(self._start_ns, self._end_ns)

    @property
    def energy_j(self) -> float | None:
        """Energy of the block in J; None where the figure is withheld, see `reasons`."""
        return self.energy.value

    @property
    def mean_power(self) -> Figure:
        """Mean power of the block in W."""
        from inference_energy.analysis.figures import scaled

        return scaled(self.energy, 1 / self.duration_s, "W")

    @property
    def by_device(self) -> dict[str, Figure]:
        """Energy of each device in J; the devices add up to `energy`."""
        devices = dict.fromkeys(channel.device for channel in self.recording.series)
        return {device: self.recording.energy(self._start_ns, self._end_ns, device) for device in devices}

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the energy is withheld, or notes on it."""
        return self.energy.reasons

    def _tail_s(self) -> float:
        spec = self._spec
        meters = [meter for meter in (spec.redfish, spec.ipmi, spec.smart_plug, spec.pdu, spec.dcgm) if meter]
        return max(TAIL_S, *(2 * period_s for period_s in (spec.interval_s, *(meter.period_s for meter in meters))))

    def _clean_up(self) -> None:
        self._sampler = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._stream.unlink(missing_ok=True)
        stats_path(self._stream).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class _LogLock:
    """A lock on the name of a power log, for one monitor of all processes; the system frees it if the process dies.

    Raises:
        InputError: another monitor has it.
    """

    def __init__(self, log: Path) -> None:
        self._path = log.with_name(f".{log.name}.lock")
        while True:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                text = f"{self._path}: cannot be opened: {error.strerror}; name another file"
                raise InputError(text, key="log") from error
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._descriptor)
                text = f"{log}: another power monitor is writing this file; name another file"
                raise InputError(text, key="log") from error
            except OSError:  # a file system without locks: nothing guards the file there
                return
            # The holder before may have removed the file that was just locked.
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._descriptor).st_ino:
                    return
            os.close(self._descriptor)

    def release(self) -> None:
        """Remove the file and free the lock, also where a forked child has the file open."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def _specification(content: dict[str, Any]) -> SamplerSpec:
    """Return the sampler's specification.

    Raises:
        InputError: a value cannot be used; the message names the argument that sets it.
    """
    try:
        return SamplerSpec.model_validate(content)
    except ValidationError as error:
        first, *others = problems(error, content, "docs/reference/configuration.md")
        text = "; ".join([first.text, *(f"{_argument(other.key)}: {other.text}" for other in others)])
        raise InputError(text, key=_argument(first.key)) from error


def _list_of(key: str, value: Any) -> list[Any]:
    """Return a list of names; one text is no list of its letters.

    Raises:
        InputError: it is a text or no sequence.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise InputError(f"{value!r} is no list; write a list, such as [{value!r}]", key=key)
    return list(value)


def _argument(key: str) -> str:
    """Return the argument that sets a key of the sampler's specification."""
    return _ARGUMENTS.get(key, key)
