"""A project's folder with the results of a synthetic experiment, its archive, and ways to tamper with that."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import synthetic

from inference_energy.contracts import receipts, schedule
from inference_energy.contracts.documents.machine import EnvironmentDocument, ModelDocument
from inference_energy.contracts.io import write_json, write_table
from inference_energy.provenance.archive import prepare_archive, write_archive
from inference_energy.stages.chain import recompute_summary

EXPERIMENT = "synthetic"
SUMMARY = f"results/{EXPERIMENT}/summary.json"
PLAN = f"results/{EXPERIMENT}/experiment.json"
POWER = "results/raw/bench/sessions/base/power.parquet"
Content = dict[str, bytes]

MODEL = {**dict.fromkeys(ModelDocument.__struct_fields__), "source": "hub", "missing": {}}
UNKNOWN = {**dict.fromkeys(EnvironmentDocument.__struct_fields__), "simulated": False, "missing": {}}
ENVIRONMENT = UNKNOWN | {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-0", "power_limit_enforced_w": 700.0}]}
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}


def build_project(project: Path) -> Path:
    """pyproject.toml, a lock file, and results of one session; another session is no part of the experiment."""
    (project / "requirements").mkdir(parents=True)
    (project / "pyproject.toml").write_text('[project]\nname = "inference-energy"\n')
    (project / "requirements" / "requirements.lock").write_text("numpy==2.0\n")
    results = project / "results"
    truth = synthetic.build_session(results / "raw")
    plan = synthetic.plan([truth]) | {"estimate": {"calibration": None, "gpu": None}}
    servers = results / "raw" / "bench" / "servers" / "small"
    write_json(servers / "server_environment.json", {})
    write_json(servers / "model.json", {**MODEL, "name": "small", "architecture": ARCHITECTURE})
    for session in ("base", "foreign"):
        write_json(results / "raw" / "bench" / "sessions" / session / "environment.json", ENVIRONMENT)
    experiment = results / EXPERIMENT
    write_json(experiment / "experiment.json", {"plan": plan, "config": {}, "project": {"version": "0.1.0"}})
    (experiment / "report.html").write_text("<p>report</p>\n")
    (experiment / "power_trace.html").write_text("<p>trace</p>\n")
    for session in ("base", "foreign"):
        folder = results / "raw" / "bench" / "sessions" / session
        write_table(folder / "prompts.parquet", [], schedule.PROMPTS)
        write_table(folder / "schedule.parquet", [], schedule.SCHEDULE)
        logs = results / "logs" / "bench" / "sessions" / session
        logs.mkdir(parents=True)
        (logs / "server.log").write_text("INFO: started\n" * 1000)
        (logs / "power.arrows").write_bytes(b"partial samples")
        derived = results / "derived" / "bench" / session
        for name in ("launch", "warmup", "steady_load", "energy", "carbon", "estimates"):
            write_json(derived / f"{name}.json", {"session": session})
        write_table(derived / "receipts.parquet", [], receipts.SCHEMA)
    write_json(results / "derived" / "bench" / "fits" / "small.json", {})
    write_json(results / "raw" / "bench" / "environment.json", {})
    (results / "logs" / "bench" / "environment.log").write_text("captured\n")
    write_json(experiment / "summary.json", recompute_summary(results / "raw", plan))
    return project


def pack(project: Path, output: Path) -> Path:
    write_archive(prepare_archive(project / "results" / EXPERIMENT, project), output)
    return output


def read_members(archive: Path) -> Content:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def tampered(archive: Path, copy: Path, change: Callable[[Content], None], fix_manifest: bool = False) -> Path:
    """A copy of an archive whose members were changed; with `fix_manifest` the forger did that too."""
    members = read_members(archive)
    change(members)
    if fix_manifest:
        manifest = json.loads(members["manifest.json"])
        for entry in manifest["members"]:
            content = members[entry["path"]]
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(copy, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return copy


def edit_json(name: str, edit: Callable[[dict], object]) -> Callable[[Content], None]:
    def change(members: Content) -> None:
        content = json.loads(members[name])
        edit(content)
        members[name] = json.dumps(content).encode()

    return change
