"""session.json and idle.json: what happened in a session and in the cold idle before it, beside their Parquet files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from inference_energy.contracts.documents.document import Document, Part
from inference_energy.contracts.figure import Number
from inference_energy.contracts.io import file_sha256


class SeenProcess(Part, frozen=True, kw_only=True):
    """A process on a GPU that is not of the server.

    Attributes:
        pid: its number.
        name: its name; null where it could not be read.
        first_seen_ns: when it was first seen.
        last_seen_ns: when it was last seen.
    """

    pid: int
    name: str | None
    first_seen_ns: int
    last_seen_ns: int


class ChannelCounts(Part, frozen=True, kw_only=True):
    """What the sampler counted of one power channel.

    Attributes:
        source: name of the power source.
        device: the GPU's UUID, `package-0`, `cpu`, ...
        domain: power domain, as in power.parquet.
        grade: grade of its readings.
        period_s: period of its polls.
        reads: polls that were read.
        rows: readings in the log; a poll gives several or none.
        errors: polls that failed.
        last_error: message of the last failed poll.
        late: polls that began later than a tenth of the period.
        missed: polls that were skipped because the one before took too long.
        reopened: how often its source was opened again after an error.
        late_ms: how late polls were: `p50`, `p99` and `max` in ms; empty where nothing was polled.
        faults: sentences about readings that cannot be right.
        notes: what else the channel found out.
        driver_latency_us: how long the driver says that a read took: `mean` and `max`.
        foreign_processes: processes on the GPU that are not of the server.
        unidentified_processes: processes on the GPU that could not be told from the server.
        unlisted_instances: MIG instances whose processes could not be listed, by UUID.
    """

    source: str
    device: str
    domain: str
    grade: str | UnsetType = UNSET
    period_s: float | UnsetType = UNSET
    reads: int | UnsetType = UNSET
    rows: int | UnsetType = UNSET
    errors: int | UnsetType = UNSET
    last_error: str | UnsetType | None = UNSET
    late: int | UnsetType = UNSET
    missed: int | UnsetType = UNSET
    reopened: int | UnsetType = UNSET
    late_ms: dict[str, Number] | UnsetType = UNSET
    faults: list[str] | UnsetType = UNSET
    notes: dict[str, Any] | UnsetType = UNSET
    driver_latency_us: dict[str, Number] | UnsetType = UNSET
    foreign_processes: list[SeenProcess] | None = None
    unidentified_processes: list[SeenProcess] | None = None
    unlisted_instances: list[str] | None = None


class PowerLogRecord(Part, frozen=True, kw_only=True):
    """The sampler and its log.

    Attributes:
        interval_s: sampling period that was asked for; a cold idle of acquisition does not hold it.
        sources: name and grade of each power source, and what else it says of itself, as in the metadata of
            power.parquet.
        rows: rows of power.parquet.
        truncated: whether the log ends within a batch, because the sampler was killed.
        ended_by: what ended the sampler: `request`, `duration` or `owner`.
        elapsed_s: how long the sampler ran.
        channels: counts of each channel.
        faults: sentences about readings that cannot be right, of all channels.
    """

    interval_s: float | None = None
    sources: list[dict[str, Any]] | None = None
    rows: int | None = None
    truncated: bool | None = None
    ended_by: str | None = None
    elapsed_s: float | None = None
    channels: list[ChannelCounts] | None = None
    faults: list[str] | None = None


class WindowPlan(Part, frozen=True, kw_only=True):
    """The load that a window or the warm-up asked for.

    Attributes:
        kind: `steady`, `prefill`, `decode` or `warmup`.
        workload: its workload in the configuration.
        arrival: its `arrival` in the configuration: `process` and the parameters of that process.
        duration_s: how long requests were to be sent.
    """

    kind: str
    workload: str
    arrival: dict[str, Any]
    duration_s: float | None = None


class MetricsPolling(Part, frozen=True, kw_only=True):
    """The polling of the server's /metrics.

    Attributes:
        scrapes: scrapes that worked; absent for a simulated session.
        errors: scrapes that failed.
        last_error: message of the last failed scrape.
    """

    scrapes: int | None = None
    errors: int
    last_error: str | None


class LaunchFacts(Part, frozen=True, kw_only=True):
    """The launch of the server; a simulated session holds `ready_after_s` and `command` only.

    Attributes:
        ready_after_s: time until the server answered.
        pid: process of the server.
        command: its command line.
        environment: its environment variables, without secrets.
        gpus: UUIDs of its GPUs or MIG instances.
    """

    ready_after_s: float | None
    pid: int | None = None
    command: list[str] | None
    environment: dict[str, str] | None = None
    gpus: list[str] | None = None


class StopFacts(Part, frozen=True, kw_only=True):
    """The last status of the guardian, after the server was stopped.

    Attributes:
        state: `stopped`, ...
        reason: why the server was stopped.
        guardian_pid: process of the guardian.
        server_pid: process of the server.
        return_code: exit status of the server; null where a signal's effect is not known.
        stop_duration_s: how long the stop took.
        killed_pids: processes that had to be killed.
        leftover_pids: processes that could not be ended.
    """

    state: str
    reason: str | UnsetType | None = UNSET
    guardian_pid: int | UnsetType = UNSET
    server_pid: int | UnsetType | None = UNSET
    return_code: int | UnsetType | None = UNSET
    stop_duration_s: float | UnsetType | None = UNSET
    killed_pids: list[int] | UnsetType = UNSET
    leftover_pids: list[int] | UnsetType = UNSET


class CpuUse(Part, frozen=True, kw_only=True):
    """How busy the machine's CPUs were over a window and its drain.

    Attributes:
        busy_s: busy CPU time, all CPUs together.
        wall_s: elapsed time.
    """

    busy_s: float
    wall_s: float


class ProcessUse(Part, frozen=True, kw_only=True):
    """What a process took.

    Attributes:
        cpu_s: its CPU time.
        wall_s: elapsed time.
    """

    cpu_s: float
    wall_s: float


class ClockAnchor(Part, frozen=True, kw_only=True):
    """One pair of monotonic and wall-clock time, taken together.

    Attributes:
        monotonic_ns: monotonic clock.
        unix_ns: Unix time.
    """

    monotonic_ns: int
    unix_ns: int


class ServerFacts(Part, frozen=True, kw_only=True):
    """The server that was measured.

    Attributes:
        name: its name in the configuration.
        version: version that the server states.
        endpoint: base URL.
    """

    name: str
    version: str | None = None
    endpoint: str | None = None


class SendLag(Part, frozen=True, kw_only=True):
    """How late a load process sent its requests.

    Attributes:
        p50_s: median.
        p99_s: 99th percentile.
        max_s: largest.
    """

    p50_s: float
    p99_s: float
    max_s: float


class LoadWorker(Part, frozen=True, kw_only=True):
    """What one load process took.

    Attributes:
        cpu_s: its CPU time.
        wall_s: elapsed time.
        peak_rss_bytes: largest resident memory.
        lateness: how late it sent its requests; null where it sent none.
        startup_cpu_s: the part of `cpu_s` before it was ready.
        worker: its number, as in requests.parquet.
    """

    cpu_s: float | None = None
    wall_s: float | None = None
    peak_rss_bytes: int | UnsetType | None = UNSET
    lateness: SendLag | UnsetType | None = UNSET
    startup_cpu_s: float | UnsetType | None = UNSET
    worker: int | None = None


class LoadCell(Part, frozen=True, kw_only=True):
    """What the load processes took for one window.

    Attributes:
        cpu_s: CPU time of all of them.
        lateness: how late each sent its requests; null for one that sent none.
        requests: rows of requests.parquet by the processes' own count; a session whose log has others is refused.
    """

    cpu_s: float
    lateness: list[SendLag | None] | None = None
    requests: int | None = None


class LoadClient(Part, frozen=True, kw_only=True):
    """What the load client took.

    Attributes:
        workers: each load process.
        cells: each window and the warm-up, by name.
        cpu_s: CPU time of all load processes.
        wall_s: elapsed time.
    """

    workers: list[LoadWorker] | None = None
    cells: dict[str, LoadCell]
    cpu_s: float | None = None
    wall_s: float | None = None

    @property
    def logged_requests(self) -> dict[str, int]:
        """Return how many rows the log must have, by cell."""
        return {name: cell.requests for name, cell in self.cells.items() if cell.requests is not None}


class ProfileFile(Part, frozen=True, kw_only=True):
    """A GPU's profile by `inference-energy characterize`.

    Attributes:
        file: its path below the results folder.
        sha256: digest of its content.
    """

    file: str
    sha256: str


class SessionDocument(Document, frozen=True, kw_only=True):
    """What happened in a session.

    Attributes:
        session: name of the session.
        machine: name of the machine.
        mode: `launch` or `attach`.
        model: name of the served model.
        power: the sampler and its log.
        windows: load of each window, by name.
        warmup: load of the warm-up; null without one.
        characterisation: profile of each GPU that was characterized, by UUID.
        metrics: the polling of the server's /metrics; null where nothing was polled.
        launch: the launch; null for an attached server.
        stop: the stop; null for an attached server.
        missing: why a phase is missing, by its name.
        machine_cpu: how busy the machine's CPUs were in each window, by name.
        clock_anchor: monotonic and wall-clock time at the session's start.
        server: the server that was measured.
        client: what the load client took; null for a simulated session.
        session_process: what the process that ran the session took.
        simulated: settings of the simulated node; absent for a measured session.
        files: SHA-256 of each raw file that the session read or wrote, and of the cold idle before it, by its path
            below the machine's folder; absent in sessions of earlier toolkits.
    """

    FILE: ClassVar[str] = "session.json"

    session: str
    machine: str
    mode: str
    model: str | None
    power: PowerLogRecord
    windows: dict[str, WindowPlan]
    warmup: WindowPlan | None
    characterisation: dict[str, ProfileFile] | UnsetType = UNSET
    metrics: MetricsPolling | None
    launch: LaunchFacts | None
    stop: StopFacts | None
    missing: dict[str, str]
    machine_cpu: dict[str, CpuUse] | None = None
    clock_anchor: ClockAnchor
    server: ServerFacts
    client: LoadClient | None
    session_process: ProcessUse | None = None
    simulated: dict[str, Any] | None = None
    files: dict[str, str] | None = None


def raw_digests(server: str, session: str, paths: Mapping[str, Iterable[Path]]) -> dict[str, str]:
    """Return the content of `files` in session.json.

    Args:
        server: name of the server.
        session: name of the session.
        paths: files by the folder that holds them in raw results: `servers`, `idle` or `sessions`. Hidden ones and
            session.json itself are left out.
    """
    owners = {"servers": server, "idle": server, "sessions": session}
    named = {
        f"{folder}/{owners[folder]}/{path.name}": path
        for folder, files in paths.items()
        for path in files
        if path.is_file() and not path.name.startswith(".") and path.name != SessionDocument.FILE
    }
    return {name: file_sha256(named[name]) for name in sorted(named)}


class IdleDocument(Document, frozen=True, kw_only=True):
    """The cold idle of a server: the machine before it started.

    Attributes:
        missing: why there is none, as with an attached server; null where there is one.
        start_ns: start of the idle phase.
        end_ns: its end.
        duration_s: its length.
        power: the sampler and its log; absent where there is no cold idle.
    """

    FILE: ClassVar[str] = "idle.json"

    missing: str | None
    start_ns: int | None
    end_ns: int | None
    duration_s: float | None
    power: PowerLogRecord | None = None
