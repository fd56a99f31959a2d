"""A small invented experiment in the shape of the contracts: one session, its raw files and its summary."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.contracts import phases, power, receipts, requests
from inference_energy.contracts.figure import Figure, Grade, Reason, missing
from inference_energy.contracts.tables import write_json, write_table
from inference_energy.present.inputs import SessionFiles

SECOND = 1_000_000_000
RATES = {"q04": 4, "q16": 16, "q48": 48}
WATTS = {"q04": 455.0, "q16": 556.0, "q48": 658.0}
COLD_W, LOADED_W = 71.0, 124.0


FACTORS = {
    "carbon": {
        "zone": "DEU",
        "intensity_g_per_kwh": 381,
        "basis": "lifecycle",
        "source": "Ember yearly electricity data, 2024",
    },
    "pue": 1.0,
    "pue_source": "none: IT energy alone",
    "water": {"wue_site_l_per_kwh": None, "ewif_grid_l_per_kwh": None, "source": None},
}


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
    write_json(
        folder / "session.json",
        {
            "version": 1,
            "session": "sweep",
            "machine": "h100-box",
            "server": {"name": "llama", "command": ["vllm", "serve", "--model", "meta-llama/Llama-3.1-8B"]},
            "sampler": {"interval_s": 0.1, "rows": 4000, "channels": [{"device": "GPU-1", "late": 3}]},
        },
    )
    write_json(
        folder / "server.json",
        {
            "kind": "launch",
            "command": ["/opt/vllm/bin/python"],
            "python_version": "3.12.8",
            "vllm_version": "0.25.1",
            "vllm_commit": None,
            "torch_version": "2.9.1",
            "packages": ["torch==2.9.1", "vllm==0.25.1"],
            "missing": {"vllm_commit": "this vLLM build does not state its commit"},
        },
    )
    write_json(
        folder / "model.json",
        {
            "name": "Llama-3.1-8B-Instruct",
            "source": "hub",
            "revision": "0e9e39f249a16976918f6564b8830bc894c89659",
            "license": "llama3.1",
            "license_source": "the hub",
            "weights": "real",
            "parameters": 8_030_261_248,
            "files": {"config.json": "ab" * 32, "model.safetensors": "cd" * 32},
            "missing": {},
        },
    )
    write_json(
        folder / "environment.json",
        {
            "gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1", "power_limit_w": 700.0, "vbios": None}],
            "cpu": {"model": "Intel Xeon Platinum 8480C", "cores": 56, "tdp_w": None},
            "memory": {"total_bytes": 540_000_000_000},
            "os": {"distribution": "Debian GNU/Linux 12", "kernel": "6.1.0"},
            "project": {"version": "0.1.0", "git_commit": "e2b463c", "git_dirty": False},
            "missing": {"cpu.tdp_w": "no interface here tells it", "gpus.0.vbios": "not supported"},
        },
    )
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
    return Sample(folder, _summary(timeline, grade, boundary), files, folder / "environment.json")


def invalidate(summary: dict[str, Any], cell: int, names: str, reason: Reason) -> None:
    """Take the figures whose name starts with `names` from a cell, for this reason."""
    figures = summary["cells"][cell]["figures"]
    for name, figure in figures.items():
        if name.startswith(names):
            basis, boundary, grade = figure["basis"], figure["boundary"], figure["grade"]
            figures[name] = missing(figure["unit"], basis, boundary, grade, reason).as_dict()


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


def _summary(timeline: list[Any], grade: Grade, boundary: str) -> dict[str, Any]:
    cells = [_cell(cell, start, end, grade, boundary) for phase, cell, start, end in timeline if phase == "window"]

    def idle(value: float) -> dict[str, Any]:
        return Figure(value, "W", "none", boundary, grade).as_dict()

    return {
        "version": 1,
        "experiment": "llama-sweep",
        "machines": ["h100-box"],
        "toolkit": {"version": "0.1.0"},
        "cells": cells,
        "idle": [
            {
                "machine": "h100-box",
                "session": "sweep",
                "server": "llama",
                "cold_power_w": idle(COLD_W),
                "loaded_power_w": idle(LOADED_W),
                "post_power_w": idle(83.2),
            }
        ],
        "factors": FACTORS,
        "fits": [_fit(cells, grade, boundary)],
        "notes": [],
    }


def _cell(cell: str, start: int, end: int, grade: Grade, boundary: str) -> dict[str, Any]:
    rate, watts, duration = RATES.get(cell, 8), WATTS.get(cell, 600.0), end - start - 5
    tokens, prompts, count = rate * duration * 256, rate * duration * 256, rate * duration
    figures: dict[str, Figure] = {}

    def measured(name: str, value: float, unit: str, basis: Any = "none", kind: Grade = grade) -> None:
        figures[name] = Figure(value, unit, basis, boundary if kind == grade else "client", kind)

    measured("duration_s", duration, "s", kind="counted")
    measured("power_mean_w", watts, "W")
    for basis, idle in (("total", 0.0), ("active", COLD_W), ("marginal", LOADED_W)):
        energy = (watts - idle) * duration
        measured(f"energy_{basis}_j", energy, "J", basis)
        measured(f"energy_{basis}_kwh", energy / 3.6e6, "kWh", basis)
        for per, amount in (("output_token", tokens), ("prompt_token", prompts), ("request", count)):
            measured(f"energy_{basis}_per_{per}_j", energy / amount, f"J/{per.split('_')[-1]}", basis)
    for name, value, unit in (
        ("output_tokens", tokens, "token"),
        ("prompt_tokens", prompts, "token"),
        ("cached_tokens", 0, "token"),
        ("requests", count, "request"),
        ("output_tokens_per_s", tokens / duration, "token/s"),
        ("requests_per_s", count / duration, "1/s"),
    ):
        measured(name, value, unit, kind="counted")
    for name, middle in (("ttft", 0.08), ("ttft_from_schedule", 0.082), ("tpot", 0.012), ("e2e", 3.1)):
        for rank, factor in ((50, 1.0), (90, 1.6), (99, 2.4)):
            measured(f"{name}_p{rank}_s", middle * factor, "s/token" if name == "tpot" else "s", kind="counted")
    grams = watts * duration / 3.6e6 * 381
    measured("carbon_total_g", grams, "gCO2e", "total")
    measured("carbon_per_1k_output_tokens_g", grams / tokens * 1000, "gCO2e/1k tokens", "total")
    for basis, idle in (("active", COLD_W), ("marginal", LOADED_W)):
        value = (watts - idle) / watts * grams / tokens * 1000
        measured(f"carbon_{basis}_per_1k_output_tokens_g", value, "gCO2e/1k tokens", basis)
    measured("carbon_per_request_g", grams / count, "gCO2e/request", "total")
    for name in ("water_site_l", "water_source_l"):
        figures[name] = missing("L", "total", boundary, grade, Reason("no_factor", "No water factor is configured."))
    trends = {
        name: {"change_share": 0.012, "p_value": 0.4, "limit": 0.1, "exceeded": False}
        for name in ("power_w", "output_tokens_per_s", "running_requests")
    }
    count_row = {"client": tokens, "server": tokens, "difference": 0, "share": 0.0, "allowance": 0.0, "agrees": True}
    kind = cell if cell in ("prefill", "decode") else "steady"
    return {
        "cell": f"sweep.{cell}",
        "machine": "h100-box",
        "session": "sweep",
        "server": "llama",
        "model": "Llama-3.1-8B-Instruct",
        "kind": kind,
        "load": {
            "workload": "chat",
            "arrival": {"process": "poisson", "rate_qps": rate},
            "text": f"Poisson {rate} req/s, chat",
        },
        "window": {"start_ns": (start + 5) * SECOND, "end_ns": end * SECOND},
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
        "devices": [
            {
                "device": "GPU-4f1c9a02-77aa",
                "domain": "gpu",
                "source": "nvml",
                "grade": grade,
                "summed": True,
                "energy_j": watts * duration,
                "counter_energy_j": watts * duration * 1.004,
                "ratio": 1 / 1.004,
            }
        ],
        "checks": {
            "steadiness": {"judged": True, "trends": trends, "required": kind == "steady"},
            "reconciliation": {"generated": count_row, "prompt": count_row, "cached": None},
            "client_lag_s": {"p50": 0.001, "p99": 0.006, "max": 0.011},
            "preemptions": 0,
        },
    }


def _fit(cells: list[dict[str, Any]], grade: Grade, boundary: str) -> dict[str, Any]:
    names = [cell["cell"] for cell in cells]
    energies = {cell["cell"]: cell["figures"]["energy_total_j"]["value"] for cell in cells}
    refusal = Reason("too_few_cells", "2 usable windows for 2 coefficients.")

    def model(name: str, terms: dict[str, tuple[float, str]], spread: float, refused: bool = False) -> dict[str, Any]:
        ratios = {cell: 1 + spread * (-1) ** index for index, cell in enumerate(names)}
        return {
            "name": name,
            "formula": "E_total = P0 * T + a * prompt + b * generated",
            "energy_basis": "total",
            "cells": names,
            "dof": 2,
            "condition_number": None if refused else 7.3,
            "r2": None if refused else 0.98,
            "residuals": []
            if refused
            else [
                {"cell": c, "measured_j": energies[c], "predicted_j": r * energies[c], "ratio": r}
                for c, r in ratios.items()
            ],
            "mean_abs_relative_error": None if refused else spread,
            "leave_one_out": None
            if refused
            else {
                "mean_abs_relative_error": 2 * spread,
                "worst_abs_relative_error": 3 * spread,
                "ratios": {cell: 1 + 2 * (ratio - 1) for cell, ratio in ratios.items()},
            },
            "refused": [{"code": refusal.code, "detail": refusal.detail}] if refused else [],
            "coefficients": {
                term: (
                    missing(unit, "total", boundary, grade, refusal)
                    if refused
                    else Figure(value, unit, "total", boundary, grade)
                ).as_dict()
                for term, (value, unit) in terms.items()
            },
        }

    two = {"prompt": (0.03, "J/token"), "generated": (0.09, "J/token")}
    three = {"power": (449.0, "W"), "prompt": (0.0058, "J/token"), "generated": (0.014, "J/token")}
    return {
        "machine": "h100-box",
        "server": "llama",
        "weighting": "relative",
        "models": {
            "two_term": model("two_term", two, 0.3, refused=True),
            "power_term": model("power_term", three, 0.02),
        },
        "cells": [],
        "excluded": [{"cell": "sweep.bad", "reasons": [{"code": "gap", "detail": "The power log has a hole."}]}],
        "missing_cells": ["a window of kind decode: short prompts, long outputs"],
    }


def page_text(path: Path) -> str:
    """The page without plotly.js, which is the largest script."""
    parts = path.read_text().split("<script>")
    return "<script>".join(part for part in parts if len(part) < 2_000_000)
