"""Options of `load-test`: spellings, contradictions, and the configuration's models that are made of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from inference_energy.api.load_test.prepare import build_cells, prepare
from inference_energy.api.load_test.settings import LoadTest, prompts_beside
from inference_energy.cli.load.command import register
from inference_energy.cli.load.document import load_test
from inference_energy.cli.load.mini_syntax import LENGTHS, TIMES, distribution
from inference_energy.cli.load.options import OPTIONS, model_field, spell
from inference_energy.errors import InputError
from inference_energy.plan.cells import Cell

SYNTHETIC = {"prompt_length": "normal:256:64"}


def options(**typed: Any) -> dict[str, Any]:
    return {"endpoint": ["http://127.0.0.1:8000"], "model": "m", "output": Path("r.csv"), **typed}


def build(typed: dict[str, Any]) -> list[Cell]:
    """The cells, by the way that the options take: over a process that gets them as JSON."""
    return build_cells(LoadTest.model_validate(json.loads(json.dumps(load_test(typed).as_json()))))


def test_every_option_sets_a_described_key_and_stands_in_the_help() -> None:
    app = typer.Typer()
    register(app)
    names = {parameter.name for parameter in typer.main.get_command(app).params}
    assert names - {"json_file", "help", "install_completion", "show_completion"} == {one.name for one in OPTIONS}
    for option in OPTIONS:
        assert option.help or model_field(option.key).description


@pytest.mark.parametrize(
    ("given", "both", "write"),
    [
        ({"qps": "3", "arrival": "closed"}, ("--qps", "--arrival closed"), "--arrival poisson"),
        ({"qps": "3", "concurrency": 4}, ("--concurrency", "--qps"), "--arrival closed"),
        ({"qps": "3", "think": "1"}, ("--think", "--qps"), "--arrival closed"),
        ({"burstiness": 0.5}, ("--burstiness", "closed loop"), "--arrival gamma"),
        ({"burstiness": 0.5, "qps": "3"}, ("--burstiness", "--qps"), "--arrival gamma"),
        ({"arrival": "gamma", "qps": "3"}, ("--arrival gamma", "--burstiness"), "--burstiness B"),
        ({"arrival": "poisson"}, ("--arrival poisson", "--qps"), "--qps RATE"),
        ({"arrival": "trace"}, ("--arrival trace", "--trace"), "--trace FILE"),
        ({"trace": "t.csv", "schedule": "s.csv"}, ("--trace", "--schedule"), "leave"),
        ({"time_scale": 0.5, "qps": "1"}, ("--time-scale", "--qps"), "--trace FILE"),
        ({"prompts": "p.txt"}, ("--prompts", "--prompt-length"), "leave one"),
        ({"max_tokens": 3, "output_length": "4", "ignore_eos": True}, ("--max-tokens", "--output-length"), "leave one"),
        ({"output_length": "4"}, ("--output-length", "--ignore-eos"), "--ignore-eos"),
        ({"no_stream": True, "limits": "ttft=1"}, ("--limits", "--no-stream"), "e2e=10"),
        ({"limits": "itl=0.1"}, ("--limits itl", "--chunks"), "--chunks"),
        ({"turn_think": "1"}, ("--turn-think", "--turns"), "--turns N"),
        ({"tdp_w": 65.0}, ("--tdp-w", "--power"), "--power"),
        ({"arrival": "often"}, ("--arrival often", "poisson"), "closed"),
        ({"prompt_length": None}, ("--prompts", "--prompt-length"), "normal:256:64"),
        ({"output": "r.txt"}, ("--output", "r.txt"), ".csv or .parquet"),
    ],
)
def test_contradictions_name_both_and_say_what_to_write(
    given: dict[str, Any], both: tuple[str, str], write: str
) -> None:
    with pytest.raises(InputError) as refused:
        load_test(options(**{**SYNTHETIC, **given}))
    for part in (*both, write):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"qps": "abc"}, "--qps abc"),
        ({"qps": "-4"}, "--qps: "),
        ({"qps": "3", "arrival": "ramp"}, "FROM:TO"),
        ({"prompt_length": "uniform:9:3"}, "--prompt-length: minimum (9)"),
        ({"prompt_length": "gauss:3"}, "--prompt-length gauss:3"),
        ({"vocabulary": 32000, "api": "chat"}, "no --vocabulary"),
        ({"turns": "3"}, "--api chat"),
        ({"parameters": "{"}, "--parameters: not JSON"),
        ({"parameters": '{"user": ' + "[" * 3000}, "--parameters: nested more than 64 levels deep"),
        ({"parameters": '{"user": NaN}'}, "--parameters: NaN is no number of JSON"),
        ({"model": "m\udcff"}, "--model: holds half a character"),
        ({"parameters": '{"max_tokens": 3}'}, "--parameters: this field is set from other keys; use max_tokens"),
        ({"api": "images"}, "--api: "),
        ({"prompt_length": None, "prompts": "absent.txt"}, "--prompts: absent.txt cannot be read"),
        ({"prompt_length": None, "prompts": "p.parquet"}, "--schedule"),
        ({"prompt_length": None, "trace": "absent.csv"}, "--trace: absent.csv cannot be read"),
        ({"api_key_env": "sk 123"}, "--api-key-env: write the name"),
        ({"transport": "carrier"}, "--transport: "),
    ],
)
def test_values_that_cannot_be_used_are_refused_under_the_options_name(given: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError) as refused:
        test = load_test(options(**{**SYNTHETIC, **given}))
        prepare({"test": {**test.as_json(), "plan_only": True}, "folder": "."})
    message = refused.value.notice.spelled(spell("closed"))
    assert option in message
    assert "windows." not in message
    assert "workloads." not in message


@pytest.mark.parametrize(
    ("given", "process", "values"),
    [
        ({}, "closed", {"concurrency": 8, "pool": 256}),
        ({"concurrency": 3, "think": "exponential:2", "pool": 9}, "closed", {"concurrency": 3, "pool": 9}),
        ({"qps": "64"}, "poisson", {"rate_qps": 64.0}),
        ({"qps": "64", "arrival": "gamma", "burstiness": 0.5}, "gamma", {"burstiness": 0.5}),
        (
            {"qps": "1:64", "arrival": "ramp", "burstiness": 2.0},
            "ramp",
            {"from_qps": 1.0, "to_qps": 64.0, "kind": "gamma"},
        ),
        ({"qps": "4", "arrival": "day", "period": 60.0}, "day", {"mean_qps": 4.0, "period_s": 60.0, "kind": "poisson"}),
        ({"qps": "4:1,16:2", "arrival": "piecewise"}, "piecewise", {}),
    ],
)
def test_arrivals_become_the_configurations_models(given: dict[str, Any], process: str, values: dict[str, Any]) -> None:
    (cell,) = build(options(**SYNTHETIC, **given))
    assert cell.arrival.process == process
    assert {name: getattr(cell.arrival, name) for name in values} == values


def test_prompts_are_told_apart_by_name_and_content(tmp_path: Path) -> None:
    talk = ' [{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}]'
    contents = {
        "a.txt": ("one\n\ntwo\nthree\n", "file"),
        "b.jsonl": ('{"prompt": "x"}\n', "jsonl"),
        "c.json": (talk, "sharegpt"),
        "d.json": ('{"prompt": "x"}\n', "jsonl"),
        "e.jsonl": ('\ufeff{"id": "a", "conversations": [{"from": "human", "value": "x"}]}\n', "sharegpt"),
        "f.json": ('[{"prompt": "x"}]\n', "jsonl"),
    }
    for name, (text, source) in contents.items():
        (tmp_path / name).write_text(text)
        (cell,) = build(options(prompts=str(tmp_path / name)))
        assert cell.workload.prompts.source == source
    (cell,) = build(options(prompts=str(tmp_path / "a.txt")))
    assert cell.arrival.pool == 3, "all of a file, before one is sent again"


def test_traces_are_told_apart_by_their_head_line(tmp_path: Path) -> None:
    heads = {
        "a.csv": ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "azure"),
        "b.csv": ("Timestamp,Model,Request tokens\n", "burstgpt"),
        "c.jsonl": ("", "mooncake"),
        "d.jsonl": ('\ufeff{"timestamp": 0, "input_length": 1}\n', "mooncake"),
        "e.jsonl": ('{"parent_chat_id" : -1, "timestamp": 0.5}\n', "bailian"),
        "f.json": ('{"chat_id": 1, "timestamp": 0.5}\n', "bailian"),
    }
    for name, (text, known) in heads.items():
        (tmp_path / name).write_text(text)
        (cell,) = build(options(trace=str(tmp_path / name), ignore_eos=True))
        assert cell.arrival.format == known
    with pytest.raises(InputError, match="--ignore-eos, or --trace-arrivals-only"):
        build(options(trace=str(tmp_path / "a.csv")))


def test_a_replay_takes_the_measured_cell_and_the_prompts_beside(tmp_path: Path) -> None:
    schedule = tmp_path / "schedule.parquet"
    pd.DataFrame({"cell": ["warmup", "load-test"]}).to_parquet(schedule)
    (cell,) = build(options(schedule=str(schedule)))
    assert cell.arrival.cell == "load-test"
    assert cell.arrival.prompts is None
    prompts_beside(schedule).touch()
    (cell,) = build(options(schedule=str(schedule)))
    assert cell.arrival.prompts == str(tmp_path / "prompts.parquet")
    assert prompts_beside(Path("mine.parquet")) == Path("mine-prompts.parquet")


def test_spellings() -> None:
    assert distribution("--o", "512", LENGTHS) == {"distribution": "fixed", "tokens": "512"}
    assert distribution("--o", "normal:256:64:1", LENGTHS) == {
        "distribution": "normal",
        "mean": "256",
        "std": "64",
        "minimum": "1",
    }
    assert distribution("--o", "empirical:l.csv:n", LENGTHS) == {
        "distribution": "empirical",
        "path": "l.csv",
        "column": "n",
    }
    assert distribution("--o", "0.5", TIMES) == {"distribution": "fixed", "time_s": "0.5"}
    limits = load_test(options(**SYNTHETIC, limits="ttft=0.5, tpot=0.05")).limits
    assert limits is not None
    assert (limits.ttft_s, limits.tpot_s, limits.e2e_s) == (0.5, 0.05, None)
    with pytest.raises(InputError, match="at most once"):
        load_test(options(**SYNTHETIC, limits="ttft=1,ttft=2"))
    for value in ("nan", "inf", "0"):
        with pytest.raises(InputError, match="--limits"):
            load_test(options(**SYNTHETIC, limits=f"ttft={value}"))


def test_a_load_test_travels_as_json() -> None:
    typed = options(**SYNTHETIC, warmup=3.0, gpu=["0", "1"], power=True, seed=0)
    test = load_test(typed)
    assert LoadTest.model_validate(json.loads(json.dumps(test.as_json()))) == test
    assert test.cells == {"warmup": 3.0, "load-test": 600.0}
    assert test.power is not None
    assert (test.power.gpus, test.seed) == (["0", "1"], 0)


def test_the_process_that_stays_beside_the_load_takes_in_neither_arrow_nor_numpy() -> None:
    code = (
        "import sys; sys.argv = ['x', 'load-test', '--help']\n"
        "from inference_energy.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import inference_energy.cli.load.progress_view, inference_energy.cli.load.document, json\n"
        "print(json.dumps([n for n in ('numpy', 'pandas', 'pyarrow', 'aiohttp') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
