"""Several nodes and GPUs, and what a seed decides."""

from pathlib import Path

import numpy as np
import pytest

from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.bench.truth.power_trace import device_power
from inference_energy.contracts import power, server_metrics
from inference_energy.contracts.io import read_table
from tests.bench.offline.plans import Load, node, phase, plan, written

FILES = ("session", "phases", "requests", "server_metrics", "power", "idle", "idle_power")


@pytest.fixture(scope="module")
def pair() -> SimulatedSession:
    loads = (Load(rate_qps=6.0), Load("users", users=8))
    return simulate(plan(*loads), node(nodes=2, tensor_parallel=2))


def test_each_node_gets_its_turn(pair: SimulatedSession) -> None:
    found = pair.requests
    open_loop = found[found["cell"] == "load"].sort_values("scheduled_ns")
    places = [int(endpoint[-1]) for endpoint in open_loop["endpoint"]]
    assert places == [place % 2 for place in range(len(places))]
    closed = found.loc[found["cell"] == "users", "endpoint"].value_counts()
    assert len(closed) == 2
    assert abs(closed.iloc[0] - closed.iloc[1]) < 0.1 * closed.sum()
    # Half of the users are each node's.
    for endpoint in closed.index:
        own = found[(found["cell"] == "users") & (found["endpoint"] == endpoint)]
        start_ns = phase(pair, "window", "users")[0] + 5 * 10**9
        assert ((own["sent_ns"] <= start_ns) & (own["end_ns"] > start_ns)).sum() == 4


def test_the_power_log_has_every_gpu_of_every_node(pair: SimulatedSession, tmp_path: Path) -> None:
    files = written(pair, tmp_path)
    for path in (files.power, files.idle_power):
        log = read_table(path, power.SCHEMA)
        names = sorted(set(log.loc[log["domain"] == "gpu", "device"]))
        assert [(name.split("/")[0], name[-1]) for name in names] == [
            ("node0", "0"),
            ("node0", "1"),
            ("node1", "0"),
            ("node1", "1"),
        ]
    metrics = read_table(files.server_metrics, server_metrics.SCHEMA)
    assert set(metrics["labels"]) == {'{"engine": "0"}', '{"engine": "1"}'}
    last = metrics[metrics["timestamp_ns"] == metrics["timestamp_ns"].max()]
    made = last.loc[last["name"] == "vllm:generation_tokens_total", "value"]
    assert made.sum() == pair.requests["completion_tokens"].sum()


def test_energies_of_nodes_and_gpus_add_up(pair: SimulatedSession) -> None:
    start_ns, end_ns = phase(pair, "window", "load")
    edges_ns = np.array([start_ns, end_ns], dtype=np.int64)
    own_j = [float(np.diff(device_power(trace).energy_j(edges_ns))[0]) for trace in pair.traces]
    assert len(own_j) == 2
    assert own_j[0] != own_j[1]
    assert pair.truth.gpu_energy_j(start_ns, end_ns) == pytest.approx(2 * sum(own_j), rel=1e-12)
    assert pair.truth.energy_j(start_ns, end_ns) == pair.truth.gpu_energy_j(start_ns, end_ns)
    assert pair.truth.power_w(*pair.cold_ns) == pytest.approx(4 * 71.0)


def test_the_host_is_inside_only_where_it_is_measured() -> None:
    bare, with_rapl = (
        simulate(plan(Load()), node(nodes=2, sensors={"rapl": {"present": present}})) for present in (False, True)
    )
    start_ns, end_ns = phase(bare, "window", "load")
    gpus_j = bare.truth.gpu_energy_j(start_ns, end_ns)
    assert bare.truth.energy_j(start_ns, end_ns) == gpus_j
    host_j = with_rapl.truth.energy_j(start_ns, end_ns) - gpus_j
    # Two hosts between rest and full use, with the memory beside.
    assert 2 * (95 + 18) * 10 < host_j < 2 * (150 + 18) * 10


def test_all_of_a_session_begins_and_ends_on_all_nodes_together(pair: SimulatedSession) -> None:
    ends = {int(engine.segments.end_ns[-1]) for engine in pair.engines}
    assert ends == {pair.log_ns[1]}
    for engine in pair.engines:
        starts, ends_ns = engine.segments.integers("start_ns"), engine.segments.integers("end_ns")
        assert (starts[1:] == ends_ns[:-1]).all()


def test_the_same_seed_gives_the_same_bytes_but_for_the_date(tmp_path: Path) -> None:
    contents = [list(range(1000, 1064)), list(range(1000, 1120))]
    made = plan(Load(prefix_reuse=True, ignore_eos=False), Load("users", users=4), contents=contents)
    settings = {"sensors": {"rapl": {"present": True}, "nvml": {"dropped_share": 0.05}}}
    content = []
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        session = simulate(made, node(seed=seed, **settings))
        session.unix_ns = 1_780_000_000_000_000_000
        files = written(session, tmp_path / name)
        content.append({name: getattr(files, name).read_bytes() for name in FILES})
    first, again, other = content
    assert first == again
    different = {name for name in FILES if first[name] != other[name]}
    assert {"session", "requests", "power", "idle_power"} <= different
