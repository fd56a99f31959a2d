"""What sentences say of a session: its loads, what its power leaves out, how its server stopped."""

import pytest
import synthetic
from synthetic import recompute

from inference_energy.acquire.server.guardian import GuardianStatus
from inference_energy.analysis.session_facts import describe_load
from inference_energy.analysis.warmup import launch
from inference_energy.contracts.documents.session import WindowPlan
from inference_energy.contracts.io import read_json, write_json


@pytest.mark.parametrize(
    ("arrival", "text"),
    [
        ({"process": "poisson", "rate_qps": 0.5}, "Poisson 0.5 req/s, chat"),
        ({"process": "constant", "rate_qps": 12}, "constant 12 req/s, chat"),
        ({"process": "closed", "concurrency": 1, "pool": 64}, "closed loop, 1 user, chat"),
        ({"process": "closed", "concurrency": 8, "rate_qps": None}, "closed loop, 8 users, chat"),
        ({"process": "bursts", "size": 16, "every_s": 2.5, "name": "x"}, "bursts, size 16, every_s 2.5, chat"),
        ({"process": "trace"}, "trace, chat"),
        ({"process": "gamma", "rate_qps": 3.0, "burstiness": 0.5}, "gamma 3 req/s, burstiness 0.5, chat"),
        ({"process": "ramp", "from_qps": 0.0, "to_qps": 8.0, "kind": "poisson"}, "ramp 0 to 8 req/s, chat"),
        ({"process": "piecewise", "steps": [{"rate_qps": 5.0}, {"rate_qps": 0.0}]}, "steps of 5, 0 req/s, chat"),
        ({"process": "day", "mean_qps": 4.0, "amplitude": 0.5}, "day of 4 req/s ± 50%, chat"),
        ({"process": "trace", "format": "azure", "time_scale": 0.5}, "azure trace, time × 0.5, chat"),
        ({"process": "trace", "format": "azure", "time_scale": 1.0}, "azure trace, chat"),
        ({"process": "schedule", "path": "s.parquet"}, "replayed schedule, chat"),
    ],
)
def test_a_load_in_words(arrival, text):
    assert describe_load(WindowPlan(kind="steady", workload="chat", arrival=arrival)) == text


@pytest.mark.parametrize(
    ("sources", "outside", "inside"),
    [
        (synthetic.GPU, ["host CPU", "DRAM", "mainboard"], ["any GPU"]),
        (synthetic.NODE, ["mainboard"], ["host CPU", "DRAM", "any GPU"]),
        (synthetic.MODELLED_CPU, ["any GPU", "DRAM", "mainboard"], ["host CPU"]),
    ],
    ids=["gpu", "gpu and rapl", "modelled"],
)
def test_what_power_leaves_out_is_noted_once(tmp_path, sources, outside, inside):
    truths = [synthetic.build_session(tmp_path, session=name, sources=sources) for name in ("a", "b")]
    found = recompute(tmp_path, synthetic.plan(truths))
    boundary = found["cells"][0]["figures"]["energy_total_j"]["boundary"]
    (note,) = [note for note in found["notes"] if note.startswith(f"Figures contain {boundary};")]
    assert all(part in note for part in outside)
    assert not any(part in note.split(";")[1] for part in inside)


def test_a_whole_node_leaves_nothing_to_say(tmp_path):
    meter = (synthetic.Source("meter", "metered", "wall", "node", 1.0, None),)
    found = recompute(tmp_path, synthetic.plan([synthetic.build_session(tmp_path, sources=meter)]))
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, []),
        ({"leftover_pids": [4711]}, ["1 process(es) of the server are still there: 4711."]),
        ({"killed_pids": [12, 13]}, ["2 process(es) of the server had to be killed: 12, 13."]),
    ],
)
def test_what_the_guardian_says_of_the_stop(tmp_path, values, words):
    folder = synthetic.build_session(tmp_path).folder
    session = read_json(folder / "session.json")
    assert set(session["stop"]) == set(GuardianStatus._fields)
    write_json(folder / "session.json", session | {"stop": synthetic.stop_status(**values)})
    found = launch(session=folder / "session.json", phases=folder / "phases.parquet")
    assert [why.detail for why in found.reasons] == words
    assert {why.code for why in found.reasons} <= {"leftover_processes"}
    assert found.ok
