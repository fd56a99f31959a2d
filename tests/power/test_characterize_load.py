"""The step load: its protocol, the PyTorch script with a stand-in for torch, and every way in which it fails."""

import importlib.util
import itertools
import os
import sys
from pathlib import Path

import pytest

from inference_energy.acquire.power.characterize import square_wave
from inference_energy.acquire.power.characterize.square_wave import VARIABLE, StepLoad, load_command
from inference_energy.acquire.power.simulated import VARIABLE as SIMULATED
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

STEPS = [0.1, 0.2, 0.1, 0.1, 0.2]

FAKE_TORCH = """
import time
__version__ = "0.fake"
bfloat16 = float16 = "half"
def randn(*size, device, dtype): return object()
def empty_like(other): return object()
def matmul(one, other, out): time.sleep(0.0005)
class cuda:
    @staticmethod
    def is_available(): return {available}
    @staticmethod
    def synchronize(): pass
    class Event:
        def record(self): pass
        def synchronize(self): pass
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, SIMULATED, square_wave.PYTHON_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def with_torch(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    (folder / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return load_command(Path(sys.executable))


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_the_torch_load_switches_on_its_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = with_torch(tmp_path, monkeypatch, FAKE_TORCH.format(available=True))
    with StepLoad(command, "GPU-1", STEPS) as load:
        assert "half-precision products" in load.what and "0.fake" in load.what
        load.go()
        edges = load.edges()
    assert [busy for _, busy in edges] == [True, False, True, False]
    lengths_s = [(after - before) / 1e9 for (before, _), (after, _) in itertools.pairwise(edges)]
    assert lengths_s == pytest.approx(STEPS[1:4], abs=0.08)


def test_a_python_without_torch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = with_torch(tmp_path, monkeypatch, "raise ImportError('no libcudart')")
    with (
        pytest.raises(InputError, match=r"cannot import torch \(no libcudart\).*--load-python"),
        StepLoad(command, "GPU-1", STEPS),
    ):
        pass


def test_a_torch_that_sees_no_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = with_torch(tmp_path, monkeypatch, FAKE_TORCH.format(available=False))
    with pytest.raises(InputError, match="sees no GPU GPU-1"), StepLoad(command, "GPU-1", STEPS):
        pass


def test_where_no_python_has_torch_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(InputError, match=r"--load-python or INFERENCE_ENERGY_VLLM_PYTHON, or use --no-load"):
        load_command()
    monkeypatch.setenv(square_wave.PYTHON_VARIABLE, "/somewhere/python")
    assert load_command()[0] == "/somewhere/python"


def test_a_python_that_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--load-python: .*no executable"):
        load_command(tmp_path / "python")


def test_a_simulated_machine_never_gets_a_real_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIMULATED, "/node")
    with pytest.raises(InputError, match=VARIABLE):
        load_command(Path(sys.executable))
    monkeypatch.setenv(VARIABLE, "python -m 'a load'")
    assert load_command() == ["python", "-m", "a load"]


def test_the_load_sees_the_one_gpu() -> None:
    say = "import json, os; print(json.dumps({'event': 'ready', 'what': os.environ['CUDA_VISIBLE_DEVICES']}))"
    with StepLoad(script(say), "GPU-7", STEPS) as load:
        assert load.what == "GPU-7"


def test_a_load_that_dies_is_an_error_with_its_last_words() -> None:
    text = "import sys; print('{\"event\": \"ready\"}', flush=True); sys.exit('CUDA out of memory')"
    with StepLoad(script(text), "GPU-1", STEPS) as load, pytest.raises(RunError, match="CUDA out of memory"):
        load.edges()
    with pytest.raises(RunError, match="ended early"), StepLoad(script("print('nonsense')"), "GPU-1", STEPS):
        pass
    with pytest.raises(InputError, match="cannot be run"), StepLoad(["/no/such/command"], "GPU-1", STEPS):
        pass


def test_a_silent_load_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(square_wave, "START_LIMIT_S", 0.2)
    text = "import sys; sys.stdin.read()"
    with pytest.raises(RunError, match="said nothing"), StepLoad(script(text), "GPU-1", STEPS):
        pass


def test_the_load_ends_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = with_torch(tmp_path, monkeypatch, FAKE_TORCH.format(available=True))
    with StepLoad(command, "GPU-1", [0.1, 60.0, 0.1]) as load:
        load.go()
        assert load._child.pid is not None
        pid = load._child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
