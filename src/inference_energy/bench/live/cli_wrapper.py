"""Runs a command on a virtual node: the command sees the node's GPU, counters and vLLM in place of real ones."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from inference_energy.bench.config import Node
from inference_energy.bench.live.node import VARIABLE, NodeFolder, make_node
from inference_energy.bench.live.power_trace_file import SHOWN_AFTER_S, TraceReader
from inference_energy.bench.sensors.rapl import PowercapTree, RaplView
from inference_energy.errors import InputError, RunError

PERIOD_S = 0.05

SHIMS = Path(__file__).parents[1] / "shims"
MACHINE = "bench"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


class PowercapUpdater:
    """Thread that refreshes the node's powercap folder 20 times a second, inside a `with` block.

    It does nothing for a node without RAPL.

    Args:
        node_folder: the node.
    """

    def __init__(self, node_folder: NodeFolder) -> None:
        self._present = node_folder.node.sensors.rapl.present
        self._reader = TraceReader(node_folder.traces, node_folder.node, node_folder.origin_ns)
        node = node_folder.node
        view = RaplView(
            node.sensors.rapl, self._reader.host, node.engine, origin_ns=node_folder.origin_ns, seed=node.seed
        )
        self._tree = PowercapTree(node_folder.powercap, view)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="powercap", daemon=True)

    def __enter__(self) -> Self:
        if self._present:
            self._reader.refresh()
            self._tree.make(_shown_ns())  # before the command looks for it
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self._reader.refresh()
            self._tree.refresh(_shown_ns())


def _shown_ns() -> int:
    return time.monotonic_ns() - round(SHOWN_AFTER_S * 1e9)


def bench_environment(node_folder: NodeFolder, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a process sees the node; `base` is the environment outside.

    Results belong to the machine `bench`, or one whose name begins with it: never to a real machine. Locks of GPUs are
    in the node's folder unless `base` names another.
    """
    path = [str(SHIMS), *(part for part in [base.get("PYTHONPATH")] if part)]
    locks = node_folder.folder / "locks"
    locks.mkdir(exist_ok=True)
    machine = base.get("INFERENCE_ENERGY_MACHINE", "")
    return {
        "INFERENCE_ENERGY_LOCK_DIRECTORY": str(locks),
        **base,
        # As in an activated environment: Snakemake's rules call inference-energy by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(path),
        "INFERENCE_ENERGY_MACHINE": machine if machine.startswith(MACHINE) else MACHINE,
        VARIABLE: str(node_folder.folder),
        "INFERENCE_ENERGY_VLLM_PYTHON": sys.executable,
        "INFERENCE_ENERGY_STEP_LOAD": shlex.join([sys.executable, "-m", "inference_energy.bench.live.step_load"]),
    }


def run_on_bench(node: Node, folder: Path, command: Sequence[str]) -> int:
    """Make a node and run a command on it.

    Args:
        node: the node; it begins now.
        folder: its folder, new or empty; it is kept.
        command: words of the command.

    Returns:
        The command's exit code; as in a shell, 128 plus the signal's number if a signal ended it.

    Raises:
        InputError: the folder is in use, the node is not known, or there is no such command.
        RunError: the command cannot be run.
    """
    if not command:
        raise InputError("bench: write the command to run, such as: snakemake --configfile config.yaml")
    node_folder = make_node(folder, node)
    with PowercapUpdater(node_folder):
        try:
            child = subprocess.Popen(list(command), env=bench_environment(node_folder, os.environ))
        except FileNotFoundError as error:
            raise InputError(f"bench: there is no command {command[0]!r}: {error.strerror}") from error
        except OSError as error:
            raise RunError(f"bench: {command[0]} cannot be run: {error.strerror}") from error
        with _signals_passed_on(child):
            code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_passed_on(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass signals on to the child, whose end then ends this process. Only a main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _: FrameType | None) -> None:
        if number in FROM_THE_KEYBOARD and _in_foreground():
            return  # the terminal sent it to the child too
        with suppress(ProcessLookupError):
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Return whether a key at the terminal, such as Ctrl-C, reaches this whole process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
