"""What all tests share: settings, and a stub server on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell that starts the tests in the background has SIGINT ignored, and every child would inherit that: then no Ctrl-C
# could be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

STUB = Path(__file__).parent / "stub_server.py"


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
