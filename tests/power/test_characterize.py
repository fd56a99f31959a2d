"""`characterize` on the virtual H100, whose sensors are known: 100 ms updates, a 1 s average, a counter of 3.2 ms."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inference_energy.acquire.power.characterize.profile import profiles_of
from inference_energy.acquire.server.locks import acquire_locks
from inference_energy.cli.main import app
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

COMMAND = [str(Path(sys.executable).parent / "inference-energy")]


def characterize(folder: Path, *options: str, node: dict[str, Any] | None = None, code: int = 0) -> str:
    on_node = []
    if node is not None:
        (folder / "node.json").write_text(json.dumps(node))
        on_node = ["--node", str(folder / "node.json")]
    output = ["--output", str(folder / "characterisation")]
    done = subprocess.run(
        [*COMMAND, "bench", "run", *on_node, "--", *COMMAND, "characterize", *output, *options],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "INFERENCE_ENERGY_LOCK_DIRECTORY"},
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """The folder, what was said, and the profile of the virtual H100 after 20 s."""
    folder = tmp_path_factory.mktemp("virtual")
    said = characterize(folder, "--duration", "20")
    (path,) = (folder / "characterisation").glob("*.json")
    return folder, said, json.loads(path.read_text())


def test_updates_come_every_100_ms(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    profile = virtual[2]
    for found in (profile["readings"]["average"], profile["readings"]["instant"], profile["counter"]):
        period = found["update_period"]
        assert period["value"] == pytest.approx(0.1, rel=0.05)
        assert 0.05 < period["p5"] <= period["value"] <= period["p95"] < 0.25
    assert profile["readings"]["average"]["driver_timestamp_period"]["value"] == pytest.approx(0.1, rel=0.05)


def test_the_average_is_one_of_a_second(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    window = virtual[2]["readings"]["average"]["window"]
    assert window["value"] == pytest.approx(1.0, rel=0.1)
    low, high = window["interval_95"]
    assert low < window["value"] < high < 1.5


def test_a_window_that_cannot_be_resolved_has_no_number(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    instant = virtual[2]["readings"]["instant"]
    # In 20 s only a few edges fall into its 25 ms; where they do, the width must be right.
    if instant["window"]["value"] is None:
        assert "not resolvable" in instant["window"]["why"]
    else:
        assert instant["window"]["value"] == pytest.approx(0.025, abs=0.02)
    assert instant["step"]["value"] == pytest.approx(580, rel=0.05)


def test_the_counter_costs_what_the_bench_draws(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    costs = virtual[2]["calls"]
    counter = costs.pop("nvmlDeviceGetTotalEnergyConsumption")
    assert 0.0025 < counter["median"]["value"] < 0.006
    assert 0.008 < counter["p99"]["value"] < 0.1
    assert len(costs) == 3
    assert all(cost["median"]["value"] < 0.002 for cost in costs.values())


def test_idle_resolution_and_ratio(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    profile = virtual[2]
    for reading in profile["readings"].values():
        assert reading["resolution"]["value"] == 0.001
        assert reading["idle_mean"]["value"] == pytest.approx(71, abs=2)
        assert reading["idle_noise"]["value"] == pytest.approx(0.5, abs=0.3)
    assert profile["readings"]["average"]["ratio_to_counter"]["value"] == pytest.approx(1.0, abs=0.03)
    assert profile["readings"]["instant"]["ratio_to_counter"]["value"] == pytest.approx(1.0, abs=0.15)


def test_everything_is_labelled_and_later_runs_can_cite_it(virtual: tuple[Path, str, dict[str, Any]]) -> None:
    folder, said, profile = virtual
    uuid = profile["gpu"]["uuid"]
    assert profile["grade"] == "simulated"
    assert "(simulated)" in said and "averaging window" in said
    page = (folder / "characterisation" / f"{uuid}.html").read_text()
    assert "The GPU is simulated" in page and "figure-step" in page
    assert list(profiles_of([uuid], folder / "characterisation")) == [uuid]


def test_a_gpu_in_use_is_refused(tmp_path: Path) -> None:
    tenant = {"device": 0, "start_s": 0.0, "end_s": 1e6, "power_w": 100.0}
    said = characterize(tmp_path, "--duration", "15", node={"faults": {"tenants": [tenant]}}, code=2)
    assert "--gpu: in use by others" in said
    assert not (tmp_path / "characterisation").exists()


def test_a_gpu_that_is_being_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_nvml import FakeGpu, FakeNvml

    from inference_energy.acquire.power.characterize.measure import measure

    monkeypatch.setenv("INFERENCE_ENERGY_LOCK_DIRECTORY", str(tmp_path))
    with acquire_locks(["GPU-1"]), pytest.raises(InputError, match="--gpu: GPU GPU-1 is being measured by"):
        measure("0", duration_s=20, with_load=False, nvml=FakeNvml([FakeGpu("GPU-1")]))


def test_what_cannot_be_done_is_said_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERENCE_ENERGY_STEP_LOAD", raising=False)

    def refused(*options: str) -> str:
        result = CliRunner().invoke(app, ["characterize", *options])
        assert isinstance(result.exception, InputError)
        return str(result.exception)

    assert "--duration 5" in refused("--duration", "5")
    assert "--load-python" in refused("--load-python", "/no/python")
