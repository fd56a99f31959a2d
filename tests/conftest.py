"""What all tests share: settings, and a stub server on a free port."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell that starts the tests in the background has SIGINT ignored, and every child would inherit that: then no Ctrl-C
# could be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

REALTIME = (
    *("bench/live_server", "bench/node", "vllm"),
    *("api/test_power_monitor.py", "load/test_benchmark_of_clients.py", "load/test_cells.py"),
    *(
        "pipeline/test_attached.py",
        "pipeline/test_on_the_bench.py",
        "power/test_calibrate_run.py",
        "power/test_characterize.py",
    ),
    *("power/test_characterize_load.py", "power/test_poller.py", "power/test_power_cli.py", "power/test_reopen.py"),
    "power/test_sampler.py",
)
"""Folders and files whose tests sample power or want tokens on time, or need most of the memory: they run alone.

Tests that start processes and wait for what comes of it run beside others.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    paths = [Path(__file__).parent / path for path in REALTIME]
    for item in items:
        if any(item.path.is_relative_to(path) for path in paths):
            item.add_marker(pytest.mark.realtime)
        if item.path.is_relative_to(Path(__file__).parent / "fuzz"):
            item.add_marker(pytest.mark.fuzz)


STUB = Path(__file__).parent / "stub_server.py"


FIRST_PORT = 20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
"""A thousand for each worker, below those that the kernel gives to connections."""

PORTS = (FIRST_PORT + (os.getpid() + number) % 1_000 for number in itertools.count())


def unused_port() -> int:
    """A port that nobody listens on, and that no other test gets."""
    for port in itertools.islice(PORTS, 1_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is left")


@pytest.fixture
def stub_endpoint() -> Iterator[Callable[..., str]]:
    """Starts stub servers (keywords are STUB_ variables) and ends them."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**options: object) -> str:
        port = unused_port()
        command = [sys.executable, str(STUB), "--model", "m", "--served-model-name", "stub"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        variables = {f"STUB_{name.upper()}": str(value) for name, value in options.items()}
        processes.append(subprocess.Popen(command, env={**os.environ, **variables}))
        endpoint = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{endpoint}/health", timeout=2):
                    return endpoint
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the stub server did not come up")

    yield start
    for process in processes:
        process.kill()
        process.wait()
