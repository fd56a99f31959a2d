"""A project's folder with the results of a synthetic experiment, its archive, and ways to tamper with that."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import synthetic

from inference_energy.contracts import schedule
from inference_energy.contracts.documents.machine import (
    EnvironmentDocument,
    ModelDocument,
    ServerEnvironmentDocument,
)
from inference_energy.contracts.documents.session import raw_digests
from inference_energy.contracts.io import read_json, write_json, write_table
from inference_energy.plan.stage_configs import ExperimentSettings
from inference_energy.present.report import write_report
from inference_energy.present.report_inputs import SessionFiles
from inference_energy.provenance.archive import prepare_archive, write_archive
from inference_energy.stages import registry
from inference_energy.stages.chain import Chain
from inference_energy.stages.registry import STAGES

EXPERIMENT = "synthetic"
REPORT = f"results/{EXPERIMENT}/report.html"
SUMMARY = f"results/{EXPERIMENT}/summary.json"
PLAN = f"results/{EXPERIMENT}/experiment.json"
POWER = "results/raw/bench/sessions/base/power.parquet"
Content = dict[str, bytes]

MODEL = {**dict.fromkeys(ModelDocument.__struct_fields__), "source": "hub", "missing": {}}
SERVER_ENVIRONMENT = {
    **dict.fromkeys(ServerEnvironmentDocument.__struct_fields__),
    "kind": "cuda",
    "vllm_version": "0.6.3",
    "missing": {},
}
PROJECT = {"version": "0.1.0", "git_commit": None, "git_dirty": None, "missing": {}}
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
    plan = ExperimentSettings.model_validate(plan).model_dump(mode="json")
    machine = results / "raw" / "bench"
    servers = machine / "servers" / "small"
    write_json(servers / "server_environment.json", SERVER_ENVIRONMENT)
    write_json(servers / "model.json", {**MODEL, "name": "small", "architecture": ARCHITECTURE})
    for session in ("base", "foreign"):
        write_json(results / "raw" / "bench" / "sessions" / session / "environment.json", ENVIRONMENT)
    experiment = results / EXPERIMENT
    write_json(experiment / "experiment.json", {"plan": plan, "config": {}, "project": PROJECT})
    for session in ("base", "foreign"):
        folder = results / "raw" / "bench" / "sessions" / session
        write_table(folder / "prompts.parquet", [], schedule.PROMPTS)
        write_table(folder / "schedule.parquet", [], schedule.SCHEDULE)
        logs = results / "logs" / "bench" / "sessions" / session
        logs.mkdir(parents=True)
        (logs / "server.log").write_text("INFO: started\n" * 1000)
        (logs / "power.arrows").write_bytes(b"partial samples")
        derived = results / "derived" / "bench" / session
        derived.mkdir(parents=True)
        (derived / "power_trace.html").write_text("<p>trace</p>\n")
    write_json(machine / "environment.json", ENVIRONMENT)
    (results / "logs" / "bench" / "environment.log").write_text("captured\n")
    add_digests(machine)
    compute(results, plan)
    return project


def add_digests(machine: Path) -> None:
    """Put the digests of the raw files into session.json, as the session does that measures."""
    path = machine / "sessions" / "base" / "session.json"
    owners = {"servers": "small", "idle": "small", "sessions": "base"}
    paths = {folder: (machine / folder / name).glob("*") for folder, name in owners.items()}
    write_json(path, read_json(path) | {"files": raw_digests("small", "base", paths)})


def compute(results: Path, plan: dict, *calibrations: Path | None) -> None:
    """Write everything that the workflow computes: derived files, summary, report."""
    settings = ExperimentSettings.model_validate(plan)
    chain, names = Chain(results / "raw", settings, *calibrations), settings.sessions[0]
    for stage in STAGES.values():
        file = stage.output
        configured = file != registry.ESTIMATE or settings.estimate is not None
        if file is not None and file.computed and file != registry.EXPERIMENT and configured:
            path = results / file.path.format(**names.model_dump(), experiment=EXPERIMENT)
            file.write(path, chain.result(file, names))
    raw, own = results / "raw" / "bench", results / "raw" / "bench" / "sessions" / "base"
    files = SessionFiles(
        name="base",
        machine="bench",
        **{kind: own / f"{kind}.parquet" for kind in ("power", "phases", "requests")},
        receipts=results / "derived" / "bench" / "base" / "receipts.parquet",
        session=own / "session.json",
        idle=raw / "idle" / "small" / "power.parquet",
        server_environment=raw / "servers" / "small" / "server_environment.json",
        model=raw / "servers" / "small" / "model.json",
    )
    summary = results / EXPERIMENT / "summary.json"
    write_report(summary.with_name("report.html"), summary, [files], [own / "environment.json"])


def pack(project: Path, output: Path) -> Path:
    write_archive(prepare_archive(project / "results" / EXPERIMENT, project), output)
    return output


def read_members(archive: Path) -> Content:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def tampered(
    archive: Path,
    copy: Path,
    change: Callable[[Content], None],
    fix_manifest: bool = False,
    fix_report: bool = False,
) -> Path:
    """A copy of an archive whose members were changed, and with `fix_manifest` and `fix_report` these as well."""
    members = read_members(archive)
    before = {name: hashlib.sha256(content).hexdigest()[:16].encode() for name, content in members.items()}
    change(members)
    if fix_report:
        for name, digest in before.items():
            now = hashlib.sha256(members[name]).hexdigest()[:16].encode()
            members[REPORT] = members[REPORT].replace(digest, now)
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
