"""Raw files of a simulated session: the same files, columns and metadata that acquisition writes for a measured one.

JSON documents have acquisition's keys, with the reason for each null. The server's metrics are those that a poller
would have read, computed from the engine's log.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import to_config
from inference_energy.bench.offline.session import SimulatedSession
from inference_energy.bench.sensors.power_log import gpu_name, gpu_number, power_log, sources
from inference_energy.bench.truth.ledger import Floats, Integers, Segments
from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.documents.machine import (
    EnvironmentDocument,
    GpuFacts,
    ModelDocument,
    ServerEnvironmentDocument,
)
from inference_energy.contracts.documents.session import (
    ChannelCounts,
    ClockAnchor,
    IdleDocument,
    LaunchFacts,
    MetricsPolling,
    PowerLogRecord,
    SeenProcess,
    ServerFacts,
    SessionDocument,
    StopFacts,
    WindowPlan,
)
from inference_energy.contracts.io import write_table

_NOT_SIMULATED = {
    "cpu": "CPU",
    "memory": "memory",
    "os": "operating system",
    "python": "interpreter of its own",
    "cuda": "CUDA",
    "project": "package of its own",
}

VERSION = "simulated"


def environment(node: Node) -> EnvironmentDocument:
    """Return environment.json: the node's GPUs, and no machine around them."""
    device = node.device
    gpus = [
        GpuFacts(
            name=device.label,
            uuid=gpu_name(node, host, gpu),
            memory_bytes=int(device.memory_bytes),
            power_limit_enforced_w=device.power_limit_w,
            sm_clock_max_mhz=device.sm_clock_mhz,
        )
        for host in range(node.nodes)
        for gpu in range(node.tensor_parallel)
    ]
    return EnvironmentDocument(
        simulated=True,
        gpus=gpus,
        cpu=None,
        memory=None,
        os=None,
        python=None,
        cuda=None,
        project=None,
        missing={key: f"the node is simulated: it has no {part}" for key, part in _NOT_SIMULATED.items()},
    )


def server_environment() -> ServerEnvironmentDocument:
    """Return server_environment.json: nothing was installed."""
    keys = (
        "command",
        "python_version",
        "vllm_version",
        "vllm_commit",
        "torch_version",
        "torch_cuda_version",
        "packages",
    )
    return ServerEnvironmentDocument(
        kind="simulated",
        command=None,
        note=None,
        python_version=None,
        vllm_version=None,
        vllm_commit=None,
        torch_version=None,
        torch_cuda_version=None,
        packages=None,
        missing=dict.fromkeys(keys, "the server is simulated: there is no vLLM"),
    )


def model(node: Node, name: str) -> ModelDocument:
    """Return model.json: the model that the node serves, which has no files.

    Args:
        node: with the shape that is served.
        name: the model's key in the configuration.
    """
    keys = ("path", "revision", "license", "license_source", "weights", "files")
    reason = f"the model is simulated: {node.shape.name} is the numbers of a shape and has no files"
    return ModelDocument(
        name=name,
        source="simulated",
        path=None,
        revision=None,
        license=None,
        license_source=None,
        weights=None,
        vocabulary=node.shape.vocabulary,
        parameters=node.shape.parameters,
        architecture=to_config(node.shape),
        files=None,
        missing=dict.fromkeys(keys, reason),
    )


def scrapes(
    engines: Sequence[tuple[Segments, int]],
    start_ns: int,
    end_ns: int,
    interval_s: float,
    also_ns: Sequence[int] = (),
) -> pd.DataFrame:
    """Return server_metrics.parquet under vLLM's names, with one engine label for each node.

    Args:
        engines: each engine's log and its number of blocks.
        start_ns: the first scrape.
        end_ns: the last scrape.
        interval_s: time between scrapes.
        also_ns: further scrapes, as acquisition makes before each window and after its drain.
    """
    grid_ns = np.arange(start_ns, end_ns, round(interval_s * 1e9))
    times_ns = np.unique(np.concatenate((grid_ns, np.asarray(also_ns, dtype=np.int64), [end_ns])))
    frames = []
    for number, (log, blocks) in enumerate(engines):
        labels = json.dumps({"engine": str(number)}, sort_keys=True)
        for name, values in _series(log, blocks, times_ns).items():
            frames.append(pd.DataFrame({"timestamp_ns": times_ns, "name": name, "labels": labels, "value": values}))
    return pd.concat(frames).sort_values("timestamp_ns", kind="stable", ignore_index=True)


def _series(log: Segments, blocks: int, times_ns: Integers) -> dict[str, Floats]:
    ends_ns = log.integers("end_ns")
    done = np.searchsorted(ends_ns, times_ns, side="right")
    now = np.minimum(done, len(ends_ns) - 1)
    in_step = log.integers("sequences")[now] > 0

    def total(column: str) -> Floats:
        return np.concatenate(([0], np.cumsum(log.integers(column))))[done].astype(np.float64)

    def gauge(column: str) -> Floats:
        return np.where(in_step, log.integers(column)[now], 0).astype(np.float64)

    steps = np.concatenate(([0], np.cumsum(log.integers("sequences") > 0)))[done].astype(np.float64)
    return {
        "vllm:num_requests_running": gauge("running"),
        "vllm:num_requests_waiting": gauge("waiting"),
        "vllm:kv_cache_usage_perc": gauge("blocks") / blocks,
        "vllm:generation_tokens_total": total("samples"),
        "vllm:prompt_tokens_total": total("prompts"),
        "vllm:prompt_tokens_cached_total": total("cached"),
        "vllm:num_preemptions_total": total("preemptions"),
        "vllm:iteration_tokens_total_count": steps,
        "vllm:iteration_tokens_total_sum": total("samples") + total("prefill"),
    }


def write_session(session: SimulatedSession, raw_root: Path) -> None:
    """Write a session's raw files below the machine's folder, except prompts and schedule.

    The files are those in sessions/{session}/, idle/{server}/ and servers/{server}/, and environment.json.
    """
    plan, root = session.plan, raw_root / session.plan.machine
    folder = root / "sessions" / plan.session
    idle, server = root / "idle" / plan.server, root / "servers" / plan.server
    anchor = {"monotonic_ns": session.origin_ns, "unix_ns": session.unix_ns}
    stamps: dict[str, Any] = {"clock_anchor": anchor, "source": sources(session.node)}
    for path, times_ns in ((folder, session.log_ns), (idle, session.cold_log_ns)):
        log = power_log(
            session.traces,
            session.node,
            origin_ns=session.origin_ns,
            start_ns=times_ns[0],
            end_ns=times_ns[1],
            interval_s=plan.interval_s,
            wall_ns=session.unix_ns - session.origin_ns,
        )
        write_table(path / "power.parquet", log, power.SCHEMA, **stamps)
    write_table(folder / "requests.parquet", session.requests, requests.SCHEMA, clock_anchor=anchor)
    begun_ns = next(row["end_ns"] for row in session.phases if row["phase"] == "launch")
    stopped_ns = next(row["start_ns"] for row in session.phases if row["phase"] == "stop")
    metrics = scrapes(
        [(engine.segments, engine.blocks.total) for engine in session.engines],
        begun_ns,
        stopped_ns,
        plan.metrics_interval_s,
        [row["end_ns" if row["phase"] == "drain" else "start_ns"] for row in session.phases if row["cell"]],
    )
    write_table(folder / "server_metrics.parquet", metrics, server_metrics.SCHEMA, clock_anchor=anchor)
    write_table(folder / "phases.parquet", session.phases, phases.SCHEMA, clock_anchor=anchor)
    write_document(folder / SessionDocument.FILE, _session_document(session, anchor))
    for parent in (root, folder):
        write_document(parent / EnvironmentDocument.FILE, environment(session.node))
    write_document(server / ServerEnvironmentDocument.FILE, server_environment())
    write_document(server / ModelDocument.FILE, model(session.node, plan.model))
    start_ns, end_ns = session.cold_ns
    cold_idle = IdleDocument(
        missing=None,
        start_ns=start_ns,
        end_ns=end_ns,
        duration_s=(end_ns - start_ns) / 1e9,
        power=_power_record(session, session.cold_log_ns),
    )
    write_document(idle / IdleDocument.FILE, cold_idle)


def _session_document(session: SimulatedSession, anchor: dict[str, int]) -> SessionDocument:
    plan, node = session.plan, session.node
    loads = {
        cell.name: WindowPlan(
            kind=cell.kind, workload=cell.workload, arrival=dict(cell.arrival), duration_s=cell.duration_s
        )
        for cell in plan.cells
    }
    warmup = loads.pop("warmup", None)
    return SessionDocument(
        session=plan.session,
        machine=plan.machine,
        mode="launch",
        model=f"{node.shape.name} (simulated)",
        power=_power_record(session, session.log_ns),
        windows=loads,
        warmup=warmup,
        metrics=MetricsPolling(errors=0, last_error=None),
        launch=LaunchFacts(ready_after_s=plan.launch_s, command=["simulated"]),
        stop=StopFacts(state="stopped", return_code=0, leftover_pids=[], stop_duration_s=1.0),
        missing={},
        clock_anchor=ClockAnchor(**anchor),
        server=ServerFacts(name=plan.server, version=VERSION, endpoint="http://127.0.0.1:8000"),
        client=None,
        simulated=node.model_dump(),
    )


def _power_record(session: SimulatedSession, log_ns: tuple[int, int]) -> PowerLogRecord:
    """Return what the sampler counts: for each GPU the tenants that it saw in its list of processes."""
    node = session.node
    channels = []
    for host in range(node.nodes):
        for gpu in range(node.tensor_parallel):
            tenants = [
                SeenProcess(pid=tenant.pid, name=None, first_seen_ns=first_ns, last_seen_ns=last_ns)
                for tenant in node.faults.tenants
                if tenant.device == gpu_number(node, host, gpu)
                and (first_ns := max(log_ns[0], session.origin_ns + round(tenant.start_s * 1e9)))
                < (last_ns := min(log_ns[1], session.origin_ns + round(tenant.end_s * 1e9)))
            ]
            name = gpu_name(node, host, gpu)
            channels.append(ChannelCounts(source="nvml", device=name, domain="gpu", foreign_processes=tenants))
    return PowerLogRecord(interval_s=session.plan.interval_s, sources=sources(node), channels=channels)
