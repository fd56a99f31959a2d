"""Writes a simulated session as acquisition writes a measured one: the same files, columns and metadata."""

from pathlib import Path
from typing import Any

from inference_energy.bench.offline.facts import environment, model, server_environment
from inference_energy.bench.offline.scrape import scrapes
from inference_energy.bench.offline.session import SimulatedSession
from inference_energy.bench.sensors.node import gpu_name, gpu_number
from inference_energy.bench.sensors.power_log import power_log, sources
from inference_energy.contracts import phases, power, requests, server_metrics
from inference_energy.contracts.tables import write_json, write_table

UNIX_NS = 1_780_000_000_000_000_000
VERSION = "simulated"


def write_session(session: SimulatedSession, raw_root: Path) -> None:
    """Write what a session leaves below {machine}/ in a folder of raw results, without prompts and schedule.

    These are sessions/{session}/, idle/{server}/, servers/{server}/ and environment.json.
    """
    plan, root = session.plan, raw_root / session.plan.machine
    here, idle, server = (
        root / "sessions" / plan.session,
        root / "idle" / plan.server,
        root / "servers" / plan.server,
    )
    anchor = {"monotonic_ns": session.origin_ns, "unix_ns": UNIX_NS}
    stamps: dict[str, Any] = {"clock_anchor": anchor, "source": sources(session.node)}
    for path, times_ns in ((here, session.log_ns), (idle, session.cold_log_ns)):
        log = power_log(
            session.traces,
            session.node,
            origin_ns=session.origin_ns,
            start_ns=times_ns[0],
            end_ns=times_ns[1],
            interval_s=plan.interval_s,
            wall_ns=UNIX_NS - session.origin_ns,
        )
        write_table(path / "power.parquet", log, power.SCHEMA, **stamps)
    write_table(here / "requests.parquet", session.requests, requests.SCHEMA, clock_anchor=anchor)
    begun_ns = next(row["end_ns"] for row in session.phases if row["phase"] == "launch")
    stopped_ns = next(row["start_ns"] for row in session.phases if row["phase"] == "stop")
    metrics = scrapes(
        [(engine.segments, engine.blocks.total) for engine in session.engines],
        int(str(begun_ns)),
        int(str(stopped_ns)),
        plan.metrics_interval_s,
        [int(str(row["end_ns" if row["phase"] == "drain" else "start_ns"])) for row in session.phases if row["cell"]],
    )
    write_table(here / "server_metrics.parquet", metrics, server_metrics.SCHEMA, clock_anchor=anchor)
    write_table(here / "phases.parquet", session.phases, phases.SCHEMA, clock_anchor=anchor)
    write_json(here / "session.json", _facts(session, anchor))
    for folder in (root, here):
        write_json(folder / "environment.json", environment(session.node))
    write_json(server / "server_environment.json", server_environment())
    write_json(server / "model.json", model(session.node, plan.model))
    start_ns, end_ns = session.cold_ns
    times = {"start_ns": start_ns, "end_ns": end_ns, "duration_s": (end_ns - start_ns) / 1e9}
    write_json(idle / "idle.json", {"missing": None, **times, "power": _power(session, session.cold_log_ns)})


def _facts(session: SimulatedSession, anchor: dict[str, int]) -> dict[str, Any]:
    plan, node = session.plan, session.node
    cells = {
        cell.name: {
            "kind": cell.kind,
            "workload": cell.workload,
            "arrival": dict(cell.arrival),
            "duration_s": cell.duration_s,
        }
        for cell in plan.cells
    }
    warmup = cells.pop("warmup", None)
    return {
        "session": plan.session,
        "machine": plan.machine,
        "mode": "launch",
        "model": f"{node.shape.name} (simulated)",
        "server": {"name": plan.server, "version": VERSION, "endpoint": "http://127.0.0.1:8000"},
        "clock_anchor": anchor,
        "power": _power(session, session.log_ns),
        "launch": {"ready_after_s": plan.launch_s, "command": ["simulated"]},
        "stop": {"state": "stopped", "return_code": 0, "leftover_pids": [], "stop_duration_s": 1.0},
        "windows": cells,
        "warmup": warmup,
        "client": None,
        "metrics": {"errors": 0, "last_error": None},
        "missing": {},
        "simulated": node.model_dump(),
    }


def _power(session: SimulatedSession, log_ns: tuple[int, int]) -> dict[str, Any]:
    """What the sampler counts: for each GPU the tenants that it saw in its list of processes."""
    node = session.node
    channels = []
    for host in range(node.nodes):
        for gpu in range(node.tensor_parallel):
            seen = [
                {"pid": tenant.pid, "name": None, "first_seen_ns": first_ns, "last_seen_ns": last_ns}
                for tenant in node.faults.tenants
                if tenant.device == gpu_number(node, host, gpu)
                and (first_ns := max(log_ns[0], session.origin_ns + round(tenant.start_s * 1e9)))
                < (last_ns := min(log_ns[1], session.origin_ns + round(tenant.end_s * 1e9)))
            ]
            name = gpu_name(node, host, gpu)
            channels.append({"source": "nvml", "device": name, "domain": "gpu", "foreign_processes": seen})
    return {"interval_s": session.plan.interval_s, "sources": sources(node), "channels": channels}
