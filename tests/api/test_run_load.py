"""A load from Python: the same plan, files and summary as of `load-test`."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from inference_energy import LoadTest, plan_load, run_load
from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.api.load_test.run import Display
from inference_energy.api.load_test.subprocess_call import call_subprocess
from inference_energy.contracts.documents.by_hand import LoadTestDocument
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow


def load(endpoint: str, folder: Path, **settings: object) -> LoadTest:
    return LoadTest.model_validate(
        {
            "endpoints": [endpoint],
            "model": "stub",
            "output": folder / "requests.parquet",
            "duration_s": 2,
            "workload": {"prompts": {"source": "synthetic", "form": "words"}, "max_tokens": 5},
            "arrival": {"process": "constant", "rate_qps": 10},
            **settings,
        }
    )


def test_a_load_is_sent_and_summed_up(stub_endpoint: Callable[..., str], tmp_path: Path) -> None:
    summary = run_load(load(stub_endpoint(tokens_per_s=100), tmp_path))
    assert summary.requests.ok == len(pd.read_parquet(tmp_path / "requests.parquet")) == 20
    assert summary.figures["offered_requests_per_s"].value == 10


def test_a_load_is_sent_inside_a_running_event_loop(stub_endpoint: Callable[..., str], tmp_path: Path) -> None:
    async def notebook() -> LoadTestDocument:
        return run_load(load(stub_endpoint(tokens_per_s=100), tmp_path))

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert asyncio.run(notebook()).requests.ok == 20
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_load_in_another_thread_lets_the_event_loop_go_on(stub_endpoint: Callable[..., str], tmp_path: Path) -> None:
    async def notebook() -> tuple[LoadTestDocument, int]:
        sending = asyncio.create_task(asyncio.to_thread(run_load, load(stub_endpoint(tokens_per_s=100), tmp_path)))
        turns = 0
        while not sending.done():
            await asyncio.sleep(0.05)
            turns += 1
        return await sending, turns

    summary, turns = asyncio.run(notebook())
    assert summary.requests.ok == 20
    assert turns > 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_load_inside_a_running_event_loop_early(
    stub_endpoint: Callable[..., str], tmp_path: Path, number: signal.Signals
) -> None:
    class Interrupting(Display):
        sent = False

        def tick(self, cell: str, counts: LiveCounts) -> None:
            if counts.ok > 3 and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

    async def notebook() -> LoadTestDocument:
        return run_load(load(stub_endpoint(tokens_per_s=100), tmp_path, duration_s=60), Interrupting())

    summary = asyncio.run(notebook())
    assert summary.interrupted
    assert summary.requests.ok > 3
    assert summary.sent_s < 50


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"duration": 5}, "duration: unknown key; did you mean duration_s?"),
        ({"foo": 5}, "foo: unknown key; docs/reference/python-api.md lists the keys"),
        (
            {"arrival": {"process": "poisson", "rate_qps": 4, "concurrency": 4}},
            "arrival.concurrency: unknown key; docs/reference/python-api.md lists the keys",
        ),
        ({"zzzzqqqq": 5}, "zzzzqqqq: unknown key; docs/reference/python-api.md lists the keys"),
        ({"endpoints": "http://localhost:8000"}, "endpoints: input should be a valid list, got "),
        ({"duration_s": "60s"}, "duration_s: input should be a valid number, "),
        ({"output": "requests.txt"}, "output: requests.txt: the name must end in .csv or .parquet"),
        ({"output": "a\0b.csv"}, "output: 'a\\x00b.csv': this cannot be the name of a file"),
        ({"save_schedule": "plan.csv"}, "save_schedule: plan.csv: the name must end in .parquet"),
        ({"duration_s": 1e300}, "duration_s: input should be less than or equal to 31536000"),
        ({"duration_s": float("nan")}, "duration_s: input should be a finite number"),
        ({"vocabulary": 10**30}, "vocabulary: "),
        ({"limits": {"ttft": 1}}, "limits.ttft: unknown key; did you mean ttft_s?"),
        ({"limits": {"itl_s": 1}}, "limits.itl_s: times between tokens need the time of every chunk; write workload."),
        ({"power": {"tdp_w": 50, "idle_w": 100}}, "power.idle_w: 100 W must be below tdp_w, 50 W"),
        ({"power": {"tdp_w": -5}}, "power.tdp_w: input should be greater than 0"),
        ({"power": {"idle_w": float("nan")}}, "power.idle_w: input should be a finite number"),
        ({"workload": {"prompts": {"source": "hub"}}}, "workload.prompts.source: write one of "),
        (
            {"workload": {"prompts": {"source": "synthetic", "form": "words", "lengths": 3}}},
            "workload.prompts.lengths: ",
        ),
        ({"arrival": {"process": "poisson"}}, "arrival.rate_qps: this key is required; add it"),
        ({"arrival": {"process": "constant", "rate_qps": 1e9}}, "arrival: about 2e+09 requests in 2 s, which is more"),
        (
            {"arrival": {"process": "trace", "path": "t.csv", "format": "azure"}},
            "arrival.lengths: a model ends its answers where it likes; write workload.ignore_eos: true, or "
            "arrival.lengths: false",
        ),
        (
            {"workload": {"prompts": {"source": "synthetic", "form": "token_ids"}, "api": "chat"}},
            "workload.api: a chat takes no token ids; write workload.prompts.form: words, or workload.api: completions",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_write(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    given = load("http://127.0.0.1:9", tmp_path).model_dump(exclude_unset=True)
    for make in (LoadTest.model_validate, lambda content: LoadTest(**content)):
        with pytest.raises(InputError) as caught:
            make({**given, **settings})
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("longer", ["duration_s", "warmup_s"])
def test_more_requests_than_fit_are_refused(tmp_path: Path, longer: str) -> None:
    with pytest.raises(InputError, match="more than 50 million"):
        LoadTest(
            endpoints=["http://127.0.0.1:9"],
            model="m",
            output=tmp_path / "run.csv",
            workload={"prompts": {"source": "synthetic", "length": {"distribution": "fixed", "tokens": 8}}},
            arrival={"process": "poisson", "rate_qps": 4},
            **{"duration_s": 10.0, longer: 3e7},
        )


def test_several_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        LoadTest(model="m", seed=-1)
    assert all(f"\n  {key}: " in str(caught.value) for key in ("endpoints", "output", "workload", "arrival", "seed"))
    with pytest.raises(InputError, match="mapping"):
        LoadTest.model_validate([])


def test_a_key_that_is_not_in_the_environment_is_named(
    stub_endpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    test = load(stub_endpoint(tokens_per_s=100), tmp_path, client={"api_key_env": "MY_KEY"})
    with pytest.raises(InputError, match=r"^client\.api_key_env: the environment variable MY_KEY is not set"):
        run_load(test)


def test_an_error_names_the_key(tmp_path: Path) -> None:
    absent = {"prompts": {"source": "file", "path": "absent.txt"}}
    with pytest.raises(InputError, match=r"prompts\.path: absent\.txt cannot be read"):
        plan_load(load("http://127.0.0.1:9", tmp_path, workload=absent))


def test_a_plan_says_what_it_holds_and_sends_nothing(tmp_path: Path) -> None:
    test = load("http://127.0.0.1:9", tmp_path)
    plan = plan_load(test)
    assert len(pd.read_parquet(tmp_path / "schedule.parquet")) == plan.plan.requests == 20
    assert not test.output.exists()
    with pytest.raises(InputError, match=r"plan_only: .*plan_load"):
        run_load(load("http://127.0.0.1:9", tmp_path, plan_only=True))


def test_an_unexpected_error_of_a_process_of_the_load_test_is_told_by_its_type_and_text() -> None:
    with pytest.raises(RunError, match=r"sqrt of the load test failed, a fault .*: TypeError: must be real"):
        call_subprocess("math:sqrt", {})


def test_an_error_of_the_plan_names_the_key_of_the_load_test(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": 3}\n')
    test = load("http://127.0.0.1:9", tmp_path, workload={"prompts": {"source": "jsonl", "path": str(prompts)}})
    with pytest.raises(InputError) as caught:
        plan_load(test)
    assert str(caught.value).startswith(f"workload.prompts.path: {prompts}:1: ")


@pytest.mark.parametrize("call", [run_load, plan_load])
@pytest.mark.parametrize("value", [None, 5, {}, "requests.csv"])
def test_what_is_no_load_test_is_refused_by_its_type(call: Callable[[Any], object], value: object) -> None:
    with pytest.raises(TypeError, match=f"a LoadTest is expected, not {type(value).__name__}"):
        call(value)


def test_without_a_stream_only_the_whole_time_can_be_limited(tmp_path: Path) -> None:
    given = load("http://127.0.0.1:9", tmp_path).model_dump(exclude_unset=True)
    given["workload"] = {**given["workload"], "stream": False}
    assert LoadTest(**given, limits={"e2e_s": 1}).limits
    with pytest.raises(InputError, match=r"limits\.ttft_s: without a stream only e2e is known"):
        LoadTest(**given, limits={"ttft_s": 1})
