"""A small invented experiment in the shape of the contracts: one session, its raw files and its summary."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from summary_sample import COLD_W, LOADED_W, RATES, SECOND, WATTS, make_summary

from inference_energy.contracts import phases, power, receipts, requests
from inference_energy.contracts.documents.document import document_from_dict, write_document
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryWindow
from inference_energy.contracts.documents.machine import (
    CpuFacts,
    EnvironmentDocument,
    GpuFacts,
    MemoryFacts,
    ModelDocument,
    ProjectFacts,
    ServerEnvironmentDocument,
)
from inference_energy.contracts.documents.session import (
    ChannelCounts,
    ClockAnchor,
    LaunchFacts,
    PowerLogRecord,
    ServerFacts,
    SessionDocument,
)
from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.contracts.grades import Grade
from inference_energy.contracts.io import write_json, write_table
from inference_energy.present.report_inputs import SessionFiles

SESSION = SessionDocument(
    session="sweep",
    machine="h100-box",
    mode="launch",
    model="Llama-3.1-8B-Instruct",
    power=PowerLogRecord(
        interval_s=0.1,
        rows=4000,
        channels=[ChannelCounts(source="nvml", device="GPU-1", domain="gpu", late=3)],
    ),
    windows={},
    warmup=None,
    metrics=None,
    launch=LaunchFacts(ready_after_s=60.0, command=["vllm", "serve", "--model", "meta-llama/Llama-3.1-8B"]),
    stop=None,
    missing={},
    clock_anchor=ClockAnchor(monotonic_ns=0, unix_ns=0),
    server=ServerFacts(name="llama"),
    client=None,
)
SERVER = ServerEnvironmentDocument(
    kind="cuda",
    command=["/opt/vllm/bin/python"],
    note=None,
    python_version="3.12.8",
    vllm_version="0.25.1",
    vllm_commit=None,
    torch_version="2.9.1",
    torch_cuda_version="12.8",
    packages=["torch==2.9.1", "vllm==0.25.1"],
    missing={"vllm_commit": "this vLLM build does not state its commit"},
)
MODEL = ModelDocument(
    name="Llama-3.1-8B-Instruct",
    source="hub",
    path=None,
    revision="0e9e39f249a16976918f6564b8830bc894c89659",
    license="llama3.1",
    license_source="the hub",
    weights="real",
    vocabulary=128_256,
    parameters=8_030_261_248,
    architecture=None,
    files={"config.json": "ab" * 32, "model.safetensors": "cd" * 32},
    missing={},
)
ENVIRONMENT = EnvironmentDocument(
    simulated=False,
    gpus=[GpuFacts(name="NVIDIA H100 80GB HBM3", uuid="GPU-1", power_limit_enforced_w=700.0, vbios=None)],
    cpu=CpuFacts(
        model="Intel Xeon Platinum 8480C",
        sockets=1,
        cores=56,
        logical=112,
        base_clock_mhz=2000.0,
        max_clock_mhz=3800.0,
        turbo=True,
        governor="performance",
        frequency_driver="intel_pstate",
        tdp_w=None,
    ),
    memory=MemoryFacts(total_bytes=540_000_000_000, swap_bytes=0, limit_bytes=None),
    os=None,
    python=None,
    cuda=None,
    project=ProjectFacts(version="0.1.0", git_commit="e2b463c", git_dirty=False),
    missing={"cpu.tdp_w": "no interface here tells it", "gpus.0.vbios": "not supported"},
)


@dataclass
class Sample:
    """Paths of an experiment; `summary` may be changed and written again."""

    folder: Path
    summary: dict[str, Any]
    session: SessionFiles
    environment: Path

    @property
    def summary_path(self) -> Path:
        return write_summary(self.folder, self.summary)

    @property
    def document(self) -> SummaryDocument:
        return document_of(self.summary)


def document_of(summary: dict[str, Any]) -> SummaryDocument:
    """The summary as the report reads it."""
    return document_from_dict(summary, SummaryDocument, "summary.json")


def windows_of(cells: list[dict[str, Any]]) -> list[SummaryWindow]:
    """The summary's cells as the report reads them."""
    return msgspec.convert(json.loads(json.dumps(cells)), list[SummaryWindow])


def figure_of(content: dict[str, Any]) -> Figure:
    """A figure of the summary as the report reads it."""
    return msgspec.convert(content, Figure)


def write_summary(folder: Path, summary: dict[str, Any]) -> Path:
    path = folder / "summary.json"
    write_json(path, summary)
    return path


def make_sample(folder: Path, grade: Grade = "counter", boundary: str = "gpu", seed: int = 7) -> Sample:
    """Write the raw files of one session with three steady windows and two for the fit, and its summary."""
    random = np.random.default_rng(seed)
    rows, timeline = [], _timeline()
    for phase, cell, start, end in timeline:
        rows.append({"phase": phase, "cell": cell, "start_ns": start * SECOND, "end_ns": end * SECOND})
    write_table(folder / "phases.parquet", rows, phases.SCHEMA)
    _power(folder, timeline, grade, random)
    _requests(folder, timeline, random)
    write_document(folder / "session.json", SESSION)
    write_document(folder / "server.json", SERVER)
    write_document(folder / "model.json", MODEL)
    write_document(folder / "environment.json", ENVIRONMENT)
    files = SessionFiles(
        name="sweep",
        machine="h100-box",
        power=folder / "power.parquet",
        phases=folder / "phases.parquet",
        requests=folder / "requests.parquet",
        receipts=folder / "receipts.parquet",
        session=folder / "session.json",
        server_environment=folder / "server.json",
        model=folder / "model.json",
    )
    return Sample(folder, make_summary(timeline, grade, boundary), files, folder / "environment.json")


def invalidate(summary: dict[str, Any], cell: int, names: str, reason: Reason) -> None:
    """Take the figures whose name starts with `names` from a cell, for this reason."""
    figures = summary["cells"][cell]["figures"]
    for name, figure in figures.items():
        if name.startswith(names):
            basis, boundary, grade = figure["basis"], figure["boundary"], figure["grade"]
            figures[name] = missing_figure(figure["unit"], basis, boundary, grade, reason).as_dict()


def _timeline() -> list[tuple[str, str | None, int, int]]:
    rows: list[tuple[str, str | None, int, int]] = [
        ("launch", None, 100, 160),
        ("loaded_idle", None, 163, 193),
        ("warmup", None, 193, 213),
    ]
    at = 213
    for cell in (*RATES, "prefill", "decode"):
        rows += [("window", cell, at, at + 60), ("drain", cell, at + 60, at + 66)]
        at += 66
    return [*rows, ("stop", None, at, at + 5), ("post_idle", None, at + 8, at + 38)]


def _power(folder: Path, timeline: list[Any], grade: Grade, random: np.random.Generator) -> None:
    time_s = np.arange(98, timeline[-1][3] + 1, 0.1)
    power_w = np.full(time_s.size, COLD_W)
    for phase, cell, start, end in timeline:
        level = {"launch": 140.0, "loaded_idle": LOADED_W, "warmup": 520.0, "drain": 300.0}.get(phase, COLD_W)
        if phase == "window":
            level = WATTS.get(cell, 600.0)
        inside = (time_s >= start) & (time_s < end)
        power_w[inside] = level + random.normal(0, 0.03 * level, inside.sum())
    records = [
        {
            "timestamp_ns": int(t * SECOND),
            "source": source,
            "device": device,
            "domain": domain,
            "power_average_w": float(w) * share,
        }
        for source, device, domain, share in (
            ("nvml", "GPU-4f1c9a02-77aa", "gpu", 1.0),
            ("nvml", "GPU-4f1c9a02-77aa", "gpu_memory", 0.25),
            ("rapl", "package-0", "cpu_package", 0.2),
        )
        for t, w in zip(time_s, power_w, strict=True)
    ]
    sources = [{"name": "nvml", "grade": grade}, {"name": "rapl", "grade": "counter"}]
    anchor = {"monotonic_ns": 98 * SECOND, "unix_ns": 1_782_000_000 * SECOND}
    write_table(folder / "power.parquet", records, power.SCHEMA, clock_anchor=anchor, source=sources)


def _requests(folder: Path, timeline: list[Any], random: np.random.Generator) -> None:
    rows, charged, number = [], [], 0
    for phase, cell, start, end in timeline:
        if phase != "window":
            continue
        count = RATES.get(cell, 8) * (end - start)
        for due in np.sort(random.uniform(start, end, count)):
            sent = int((due + random.exponential(0.002)) * SECOND)
            tokens = int(random.integers(128, 384))
            first = sent + int(random.gamma(4, 0.02) * SECOND)
            last = first + int(tokens * random.normal(0.012, 0.001) * SECOND)
            rows.append(
                {
                    "request_id": number,
                    "cell": cell,
                    "scheduled_ns": int(due * SECOND),
                    "sent_ns": sent,
                    "first_token_ns": first,
                    "last_token_ns": last,
                    "end_ns": last,
                    "prompt_tokens": 256,
                    "completion_tokens": tokens,
                    "status": "ok",
                }
            )
            energy = tokens * WATTS.get(cell, 600.0) / (count / (end - start) * 256)
            charged.append({"request_id": number, "cell": cell, "policy": "completion_tokens", "energy_j": energy})
            number += 1
    write_table(folder / "requests.parquet", rows, requests.SCHEMA)
    write_table(folder / "receipts.parquet", charged, receipts.SCHEMA)


def page_text(path: Path) -> str:
    """The page without plotly.js, which is the largest script."""
    parts = path.read_text().split("<script>")
    return "<script>".join(part for part in parts if len(part) < 2_000_000)
