"""Running a command on a node: what it sees, its exit code, and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_energy.bench.config import Node
from inference_energy.bench.live.cli_wrapper import SHIMS, bench_environment, run_on_bench
from inference_energy.bench.live.node import VARIABLE, NodeFolder, open_node
from inference_energy.errors import InputError, RunError

Make = Callable[..., NodeFolder]

SHOW = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
RUN = """
import sys
from pathlib import Path
from inference_energy.bench.live.cli_wrapper import run_on_bench
from inference_energy.bench.config import Node
sys.exit(run_on_bench(Node(), Path(sys.argv[1]), sys.argv[2:]))
"""
WAIT = """
import signal, sys, time
def end(number, _):
    print(number, flush=True)
    sys.exit(7)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""


def test_the_command_sees_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("INFERENCE_ENERGY_VLLM_PYTHON", "/a/real/vllm")
    monkeypatch.delenv("INFERENCE_ENERGY_MACHINE", raising=False)
    seen = tmp_path / "seen.json"
    node = Node(seed=3)
    assert run_on_bench(node, tmp_path / "node", [sys.executable, "-c", SHOW, str(seen)]) == 0
    environment = json.loads(seen.read_text())
    assert open_node(Path(environment[VARIABLE])).node == node
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(SHIMS), "/mine"]
    assert environment["INFERENCE_ENERGY_MACHINE"] == "bench"
    assert environment["INFERENCE_ENERGY_VLLM_PYTHON"] == sys.executable
    assert Path(environment["INFERENCE_ENERGY_LOCK_DIRECTORY"]).is_dir()
    assert (SHIMS / "pynvml.py").is_file() and (SHIMS / "vllm" / "__init__.py").is_file()


def test_names_that_the_user_gave_stay(make: Make) -> None:
    base = {"INFERENCE_ENERGY_MACHINE": "bench-2", "INFERENCE_ENERGY_LOCK_DIRECTORY": "/locks"}
    environment = bench_environment(make(), base)
    assert environment | base == environment
    assert environment["PYTHONPATH"] == str(SHIMS)


@pytest.mark.parametrize("machine", ["mine", "h100", ""])
def test_simulated_results_never_lie_among_those_of_a_real_machine(make: Make, machine: str) -> None:
    assert bench_environment(make(), {"INFERENCE_ENERGY_MACHINE": machine})["INFERENCE_ENERGY_MACHINE"] == "bench"


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_its_exit_code_is_ours(tmp_path: Path, code: str, expected: int) -> None:
    assert run_on_bench(Node(), tmp_path / "node", [sys.executable, "-c", code]) == expected


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write the command"):
        run_on_bench(Node(), tmp_path / "a", [])
    with pytest.raises(InputError, match="no command 'no-such-command'"):
        run_on_bench(Node(), tmp_path / "b", ["no-such-command"])
    with pytest.raises(RunError, match="cannot be run"):
        run_on_bench(Node(), tmp_path / "c", [str(tmp_path)])
    with pytest.raises(InputError, match="not empty"):
        run_on_bench(Node(), tmp_path, [sys.executable])


def test_a_rapl_tree_is_there_at_once_and_moves_until_the_end(tmp_path: Path) -> None:
    look = (
        "import os, time; from pathlib import Path\n"
        f"file = Path(os.environ[{VARIABLE!r}]) / 'powercap' / 'intel-rapl:0' / 'energy_uj'\n"
        "first = file.read_text(); deadline = time.monotonic() + 20\n"
        "while file.read_text() == first:\n"
        "    assert time.monotonic() < deadline\n"
        "    time.sleep(0.01)\n"
    )
    node = Node.parse({"sensors": {"rapl": {"present": True}}})
    assert run_on_bench(node, tmp_path / "node", [sys.executable, "-c", look]) == 0
    file = tmp_path / "node" / "powercap" / "intel-rapl:0" / "energy_uj"
    last = file.read_text()
    time.sleep(0.2)
    assert file.read_text() == last, "the thread goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_the_command_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path / "node"), sys.executable, "-c", WAIT]
    # A session of its own has no terminal, so that SIGINT is not taken for a key that the child got as well.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{int(number)}\n"
        assert process.wait(20) == 7
    finally:
        process.kill()
        process.communicate()


def test_our_own_handlers_are_back_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_on_bench(Node(), tmp_path / "node", [sys.executable, "-c", ""])
    assert signal.getsignal(signal.SIGTERM) == before
