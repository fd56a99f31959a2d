"""Results of a sweep of three levels and a quiz, from raw files of known truth."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import synthetic
from made_cells import model_of

from inference_energy.contracts import requests, schedule
from inference_energy.contracts import requests as answers
from inference_energy.contracts.documents.document import write_document
from inference_energy.contracts.io import read_table, write_json, write_table
from inference_energy.plan.stage_configs import ExperimentSettings
from inference_energy.stages.chain import Chain, recompute_summary
from inference_energy.stages.registry import FIT

WINDOWS = (
    synthetic.WindowSpec("a", rate_qps=2.0),
    synthetic.WindowSpec("b", rate_qps=5.0),
    synthetic.WindowSpec("c", rate_qps=9.0),
    synthetic.WindowSpec("quiz", workload="quiz", process="closed", concurrency=2),
)
SETTINGS = {
    "embodied": {"total_kg": 1500, "lifetime_years": 4, "share": 0.25, "source": "invented"},
    "traffic": {"unit": "requests", "hourly": [3600.0] * 24, "replicas": 1},
    "quality": {"floor": 0.3},
}


def build_results(root: Path) -> Path:
    """A results folder with the derived files, the plan and the summary of a sweep and a quiz."""
    truth = synthetic.build_session(root / "raw", windows=WINDOWS, sources=synthetic.NODE)
    plan = synthetic.plan([truth])
    plan["analysis"]["slo"] = {"ttft_s": 0.5, "tpot_s": 0.05}
    plan["metrics"] = SETTINGS
    write_document(root / "raw/bench/servers/small/model.json", model_of(135_000_000))
    asked = read_table(truth.folder / "requests.parquet", requests.SCHEMA)
    quiz = asked[asked["cell"] == "quiz"]
    ids = sorted(set(asked["prompt_id"]))
    prompts = [{"prompt_id": i, "workload": "quiz", "text": f"question {i}", "answer": str(i)} for i in ids]
    write_table(truth.folder / "prompts.parquet", prompts, schedule.PROMPTS)
    # Three of four are right.
    said = [str(i) if i % 4 else "unknown" for i in quiz["prompt_id"]]
    kept = pd.DataFrame({"request_id": quiz["request_id"], "cell": "quiz", "text": said})
    write_table(truth.folder / "answers.parquet", kept, answers.ANSWERS_SCHEMA)
    settings = ExperimentSettings.model_validate(plan)
    chain = Chain(root / "raw", settings)
    parts, fit = chain.session_parts(settings.sessions[0]), chain.result(FIT, settings.sessions[0])
    folder = root / "derived/bench/base"
    for content in (parts.energy, parts.steady, parts.carbon):
        write_document(folder / content.FILE, content)
    write_document(root / "derived/bench/fits/small.json", fit)
    project = {"version": "0", "git_commit": None, "git_dirty": None, "missing": {}}
    write_json(root / "synthetic/experiment.json", {"plan": plan, "config": {}, "project": project})
    write_json(root / "synthetic/summary.json", recompute_summary(root / "raw", plan))
    return root
