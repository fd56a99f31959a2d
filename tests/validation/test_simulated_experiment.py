"""A user's experiment on the bench: the server, model and loads that the configuration names."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from inference_energy.acquire.machine_environment import capture
from inference_energy.acquire.model_files import prepare_model as attached_model
from inference_energy.bench.config import Node
from inference_energy.config.loader import read_merged
from inference_energy.config.root import Config
from inference_energy.contracts import power, requests, server_metrics
from inference_energy.contracts.io import read_json, read_table
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError
from inference_energy.provenance.archive_members import IDLE_FILES, SERVER_FILES, SESSION_FILES
from inference_energy.stages.chain import recompute_summary
from inference_energy.stages.params import StageParams
from inference_energy.validation.experiment import MACHINE, simulate_experiment

pytestmark = pytest.mark.slow

KNOWN = Node.parse({"model": "llama-3.1-8b"})
ROOT = Path(__file__).parents[2]
SHAPE_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
}


def merged(folder: Path, changes: dict[str, Any] | None = None, *further: str) -> Config:
    """The default experiment with further files and changes on top."""
    own = folder / "changes.yaml"
    own.write_text(yaml.safe_dump(changes or {}))
    return read_merged([ROOT / "config.yaml", *(ROOT / name for name in further), own])


def short(**changes: Any) -> dict[str, Any]:
    """One window of the default experiment, and any changes."""
    sessions = {"main": {"windows": ["decode"], "warmup": None, **changes.pop("session", {})}}
    windows = {"decode": {"duration_s": 8, "arrival": {"concurrency": 12}, **changes.pop("window", {})}}
    return {"sessions": sessions, "windows": windows, **changes}


def run(config: Config, folder: Path, node: Node | None = None) -> Path:
    """Simulate, with a model that the bench knows in place of the packaged one; the folder of the one session."""
    list(simulate_experiment(config, node or KNOWN, folder))
    return folder / MACHINE / "sessions" / config.run[0]


def facts(session: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(session / "session.json")["simulated"]
    return found


def served(*, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return short(servers={"vllm": {"arguments": arguments, **more}})


def test_the_example_experiments_run_and_their_files_go_through_the_pipeline(tmp_path: Path) -> None:
    config = merged(tmp_path, None, "config/llama-8b-shape.yaml")
    (line,) = simulate_experiment(config, Node.parse({"sensors": {"nvml": {"gain": 1.0}}}), tmp_path)
    assert "llama-8b-shape" in line
    assert "simulated" in line
    settings = StageParams(config, MACHINE, lambda: True, lambda: True).experiment()
    found = recompute_summary(tmp_path, settings.model_copy(update={"estimate": None, "metrics": None}))
    windows = {cell["window"]["name"]: cell for cell in found["cells"]}
    assert list(windows) == config.sessions["llama-8b-shape"].windows
    for name, cell in windows.items():
        total = cell["figures"]["energy_total_j"]
        assert total["valid"], (name, total["reasons"])
        assert total["grade"] == "simulated"
        assert cell["figures"]["output_tokens"]["valid"]
    # A step reads all weights whatever its batch, so many users share what one would pay alone.
    per_token = {name: cell["figures"]["energy_total_per_output_token_j"]["value"] for name, cell in windows.items()}
    assert per_token["shape-decode-many"] < 0.4 * per_token["shape-decode"]


def test_every_file_that_report_and_archive_take_from_a_measurement_is_there(tmp_path: Path) -> None:
    session = run(merged(tmp_path, short()), tmp_path)
    machine = session.parents[1]
    server, idle = machine / "servers" / "vllm", machine / "idle" / "vllm"
    needed = [
        machine / "environment.json",
        session / "environment.json",
        *(session / name for name in SESSION_FILES),
        *(server / name for name in SERVER_FILES),
        *(idle / name for name in IDLE_FILES),
    ]
    assert [path for path in needed if not path.is_file()] == []
    environment, model = read_json(session / "environment.json"), read_json(server / "model.json")
    assert list(environment) == list(capture())
    assert environment["simulated"]
    assert environment["gpus"][0]["uuid"] in set(read_table(session / "power.parquet", power.SCHEMA)["device"])
    assert model["name"] == "smollm2-135m"
    assert model.keys() == attached_model({"source": "attached", "name": "x"}, []).keys()
    for facts_file in (environment, model, read_json(server / "server_environment.json")):
        assert {key for key, value in facts_file.items() if value is None and key != "note"} == set(
            facts_file["missing"]
        )
    schedule, sent = (
        read_table(session / "schedule.parquet", SCHEDULE),
        read_table(session / "requests.parquet", requests.SCHEMA),
    )
    assert set(schedule["prompt_id"]) == set(read_table(session / "prompts.parquet", PROMPTS)["prompt_id"])
    assert set(sent["prompt_id"]) <= set(schedule["prompt_id"])


def test_the_default_experiment_runs_on_the_nodes_own_model(tmp_path: Path) -> None:
    session = run(merged(tmp_path), tmp_path, Node.parse({"model": "qwen3-14b", "gpu": "a100"}))
    assert facts(session)["model"] == "qwen3-14b"  # stated, for the bench does not know the packaged one
    assert facts(session)["engine"]["max_model_len"] == 2048
    assert facts(session)["engine"]["max_num_seqs"] == 64
    found = read_table(session / "requests.parquet", requests.SCHEMA)
    assert set(found["cell"]) == {"warmup", "low", "high", "prefill", "decode", "decode-one"}


def test_the_servers_engine_arguments_are_kept(tmp_path: Path) -> None:
    arguments = {"max-num-seqs": 4, "max_num_batched_tokens": 512, "gpu-memory-utilization": 0.8, "block-size": 32}
    session = run(merged(tmp_path, served(arguments=arguments)), tmp_path)
    engine = facts(session)["engine"]
    assert {key.replace("-", "_"): value for key, value in arguments.items()}.items() <= engine.items()
    metrics = read_table(session / "server_metrics.parquet", server_metrics.SCHEMA)
    series = {str(name): rows["value"] for name, rows in metrics.groupby("name")}
    assert series["vllm:num_requests_running"].max() == 4
    assert series["vllm:num_requests_waiting"].max() == 8


def test_arguments_for_gpus_only_count_and_those_for_cpus_do_not(tmp_path: Path) -> None:
    more = {"arguments_on_gpu": {"max-num-seqs": 6}, "arguments_on_cpu": {"max-num-seqs": 3}}
    session = run(merged(tmp_path, served(arguments={"max-num-seqs": 9}, **more)), tmp_path)
    assert facts(session)["engine"]["max_num_seqs"] == 6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max-num-seqs": None}, {"max_num_seqs": 256}),
        ({"no-enable-prefix-caching": True}, {"enable_prefix_caching": False}),
        ({"enable-prefix-caching": False}, {"enable_prefix_caching": False}),
        ({"num-gpu-blocks-override": 700}, {"num_gpu_blocks": 700}),
        ({"enforce-eager": True}, {}),
    ],
)
def test_arguments_mean_what_they_mean_to_the_live_server(
    arguments: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    session = run(merged(tmp_path, served(arguments=arguments)), tmp_path)
    assert expected.items() <= facts(session)["engine"].items()


def test_a_tensor_parallel_server_gets_as_many_gpus(tmp_path: Path) -> None:
    session = run(merged(tmp_path, served(arguments={"tensor-parallel-size": 2})), tmp_path)
    assert facts(session)["tensor_parallel"] == 2


def test_a_dummy_models_shape_and_longest_context_are_taken(tmp_path: Path) -> None:
    architecture = {**SHAPE_70B, "num_hidden_layers": 10, "max_position_embeddings": 1500}
    models = {"mine": {"source": "dummy", "architecture": architecture}}
    changes = short(models=models, servers={"vllm": {"model": "mine", "arguments": {"max-model-len": None}}})
    session = run(merged(tmp_path, changes), tmp_path)
    model = facts(session)["model"]
    assert (model["name"], model["layers"], model["hidden"]) == ("mine", 10, 8192)
    assert facts(session)["engine"]["max_model_len"] == 1500


def test_a_known_shape_is_served_by_its_name(tmp_path: Path) -> None:
    models = {"qwen3-14b": {"source": "local", "path": "x"}}
    session = run(merged(tmp_path, short(models=models, servers={"vllm": {"model": "qwen3-14b"}})), tmp_path)
    assert facts(session)["model"] == "qwen3-14b"


def test_prompts_may_be_words(tmp_path: Path) -> None:
    prompts = {"form": "words", "length": {"tokens": 20}}
    changes = short(workloads={"decode_only": {"prompts": prompts, "ignore_eos": False}})
    found = read_table(run(merged(tmp_path, changes), tmp_path) / "requests.parquet", requests.SCHEMA)
    assert set(found["prompt_tokens"]) == {20}
    lengths = found["completion_tokens"].to_numpy(dtype=np.int64)
    assert 1 < len(set(lengths)) <= 64
    assert lengths.max() == 64


def test_every_session_that_is_run_is_simulated_and_no_other(tmp_path: Path) -> None:
    changes = short(run=["main", "other"])
    changes["sessions"] |= {name: {"server": "vllm", "windows": ["decode"]} for name in ("other", "unused")}
    config = merged(tmp_path, changes)
    lines = list(simulate_experiment(config, KNOWN, tmp_path))
    assert [line.split(":")[0] for line in lines] == ["session main", "session other"]
    assert sorted(path.name for path in (tmp_path / MACHINE / "sessions").iterdir()) == ["main", "other"]


def test_an_attached_server_is_refused_with_its_key(tmp_path: Path) -> None:
    words = {"prompts": {"form": "words"}}
    changes = short(
        servers={"running": {"mode": "attach", "endpoint": "http://127.0.0.1:9"}},
        session={"server": "running"},
        workloads={"decode_only": words},
    )
    config = merged(tmp_path, changes)
    with pytest.raises(InputError, match=r"sessions\.main\.server: .*mode: launch"):
        list(simulate_experiment(config, KNOWN, tmp_path))
    assert not (tmp_path / MACHINE).exists()


def test_a_model_that_the_bench_does_not_know_is_never_replaced_silently(tmp_path: Path) -> None:
    hub = {"mine": {"source": "hub", "id": "mistralai/Mistral-7B-v0.1"}}
    for config in (merged(tmp_path), merged(tmp_path, short(models=hub, servers={"vllm": {"model": "mine"}}))):
        for node in (Node(), Node.parse({"gpu": "a100"})):
            with pytest.raises(InputError, match=r"models\..*: the bench does not know its shape.*llama-3.1-8b"):
                list(simulate_experiment(config, node, tmp_path))


def test_dates_are_those_of_the_run(tmp_path: Path) -> None:
    before_ns = time.time_ns()
    session = run(merged(tmp_path, short()), tmp_path)
    anchor = read_json(session / "session.json")["clock_anchor"]
    assert before_ns - 10**6 <= anchor["unix_ns"] <= time.time_ns()


def test_a_model_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    models = {"too-large": {"source": "dummy", "architecture": SHAPE_70B}}
    config = merged(tmp_path, short(models=models, servers={"vllm": {"model": "too-large"}}))
    with pytest.raises(InputError, match=r"too-large on 1 x NVIDIA H100.*do not fit; take a larger tensor_parallel"):
        list(simulate_experiment(config, KNOWN, tmp_path))
    parallel = merged(
        tmp_path,
        short(models=models, servers={"vllm": {"model": "too-large", "arguments": {"tensor-parallel-size": 4}}}),
    )
    assert facts(run(parallel, tmp_path))["tensor_parallel"] == 4


def test_an_argument_of_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    config = merged(tmp_path, served(arguments={"max-num-seqs": "many"}))
    with pytest.raises(InputError, match="max_num_seqs"):
        list(simulate_experiment(config, KNOWN, tmp_path))
