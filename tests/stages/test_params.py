"""What each rule is told depends on what it should depend on, and on nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import validate
from inference_energy.config.servers import LaunchSettings
from inference_energy.stages.params import StageParams
from inference_energy.stages.registry import STAGES

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


def specs(change: dict[str, Any] | None = None, *, gpu: bool = False, vllm: bool = False) -> StageParams:
    content = copy.deepcopy(RAW)
    for path, value in (change or {}).items():
        node = content
        *parents, last = path.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return StageParams(validate(content), "here", lambda: gpu, lambda: vllm)


NAMES = {"session": "main", "server": "vllm"}


def texts(which: StageParams) -> dict[str, str]:
    """What every stage that reads something of the configuration is told, but the record of all of it."""
    named = [stage.name for stage in STAGES.values() if stage.config is not None and stage.name != "experiment"]
    return {name: which.for_stage(name, NAMES) for name in named}


PLAN = {"prompts", "schedule"}
MEASURED = {"idle_baseline", "session"}


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"impact.carbon.zone": "FR"}, {"carbon"}),
        ({"analysis.trim_start_s": 7}, {"steady_load"}),
        ({"analysis.max_gap_periods": 3}, {"steady_load", "integrate"}),
        ({"analysis.power_reading": "instant"}, {"steady_load", "integrate"}),
        ({"analysis.slo": {"ttft_s": 1}}, {"steady_load"}),
        ({"analysis.steadiness": {"significance": 0.01}}, {"steady_load"}),
        ({"analysis.counter_tolerance": 0.1}, {"integrate"}),
        ({"analysis.uncertainty": {"gain": 0.1}}, {"integrate", "fit", "metrics"}),
        ({"analysis.attribution": "total_tokens"}, {"attribute"}),
        ({"estimate.gpu": "H100 SXM"}, {"estimate"}),
        ({"idle.cold_s": 25}, {"idle_baseline"}),
        ({"idle.loaded_s": 25}, {"session"}),
        ({"servers.vllm.arguments.max-num-seqs": 32}, {"session"}),
        ({"servers.vllm.grace_s": 5}, {"session"}),
        ({"servers.vllm.port": 9000}, MEASURED),
        ({"windows.low.duration_s": 61}, {*PLAN, "session"}),
        ({"seed": 5}, PLAN),
        ({"client.drain_s": 1}, {"session"}),
        ({"client.workers": 4}, {"session"}),
        ({"workloads.chat.parameters": {"top_p": 0.9}}, {*PLAN, "session"}),
        ({"windows.low.arrival.rate_qps": 0.6}, {*PLAN, "session"}),
        ({"power.modelled.tdp_w": 70}, MEASURED),
        ({"metrics.quality.floor": 0.5}, {"metrics"}),
        ({"metrics.pareto": []}, {"metrics"}),
        ({"experiment": "other"}, {"metrics", "summary"}),
        ({"machines": ["a", "b"]}, {"summary"}),
        ({"sessions.second": {"server": "vllm", "windows": ["low"]}}, set()),
        ({"servers.other": {"mode": "attach", "endpoint": "http://localhost:1"}}, set()),
    ],
)
def test_a_change_touches_only_its_rules(change: dict[str, Any], touched: set[str]) -> None:
    before, after = texts(specs()), texts(specs(change))
    assert {name for name in before if before[name] != after[name]} == touched


@pytest.mark.parametrize(
    ("gpu", "vllm", "environment", "back_end"),
    [
        (False, False, "cpu", "cpu"),
        (False, True, "cpu", "cpu"),
        (True, False, "cpu", "cpu"),
        (True, True, "installed", "gpu"),
    ],
)
def test_auto_takes_a_gpu_with_its_vllm_else_the_cpu_build(
    gpu: bool, vllm: bool, environment: str, back_end: str
) -> None:
    which = specs(gpu=gpu, vllm=vllm)
    assert which.server_environment("vllm").environment == environment
    settings = which.session("main").server_settings
    assert isinstance(settings, LaunchSettings)
    assert settings.back_end == back_end
    assert ("enforce-eager" in settings.arguments) == (back_end == "cpu")


def test_the_client_gets_its_whole_section_and_no_key() -> None:
    client = specs({"client.api_key_env": "MY_KEY"}).session("main").client
    assert client.api_key_env == "MY_KEY"
    assert set(client.model_dump()) == {
        *(
            "request_timeout_s",
            "drain_s",
            "workers",
            "transport",
            "api_key_env",
            "ca_file",
            "verify",
            "connections",
            "max_answer_mib",
            "max_page_mib",
            "page_timeout_s",
            "max_series",
        )
    }


def test_files_of_the_plan_are_inputs() -> None:
    trace = {"process": "trace", "format": "azure", "path": "traces/t.csv", "lengths": False}
    which = specs({"windows.low.arrival": trace, "workloads.chat.prompts": {"source": "file", "path": "p.txt"}})
    assert which.plan_files("main") == ["p.txt", "traces/t.csv"]
    assert specs().plan_files("main") == []


def test_the_content_of_a_days_traffic_counts_and_not_its_place(tmp_path: Path) -> None:
    def text(name: str, most: int) -> str:
        path = tmp_path / name
        path.write_text("hour,requests\n" + "".join(f"{hour},{most * hour}\n" for hour in range(24)))
        return specs({"metrics.traffic": {"profile": str(path), "replicas": 2}}).for_stage("metrics")

    first = text("a.csv", 10)
    assert text("b.csv", 10) == first
    assert str(tmp_path) not in first
    assert text("a.csv", 11) != first


def test_shipped_questions_are_no_input_file() -> None:
    which = specs({"workloads.chat": {"prompts": {"source": "questions"}, "keep_answers": True}})
    assert which.plan_files("main") == []


def test_named_gpus_are_never_traded_for_the_cpu() -> None:
    which = specs({"servers.vllm.gpus": [0]})
    assert which.server_environment("vllm").environment == "installed"
    settings = which.session("main").server_settings
    assert isinstance(settings, LaunchSettings)
    assert settings.back_end == "gpu"


def test_other_machines_are_named_without_being_measured() -> None:
    which = specs({"machines": ["a", "b"]})
    assert [(names.machine, names.session) for names in which.experiment().sessions] == [("a", "main"), ("b", "main")]
