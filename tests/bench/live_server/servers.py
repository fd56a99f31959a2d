"""Live servers of the bench as tests start them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from inference_energy.bench.config import Node
from inference_energy.bench.live.node import VARIABLE, make_node
from tests.conftest import unused_port

LIMIT_S = 30.0
MODULE = "inference_energy.bench.live.server"


class LiveServer:
    """One server process, with a node folder of its own."""

    def __init__(self, folder: Path, node: dict[str, Any], model: str, flags: list[str]) -> None:
        self.node = make_node(folder / "node", Node.parse(node))
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / "server.log"
        command = [sys.executable, "-m", MODULE, "--model", model, "--served-model-name", "m"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), *flags]
        with self.log_path.open("wb") as log:
            environment = {**os.environ, VARIABLE: str(self.node.folder)}
            self.process = subprocess.Popen(command, env=environment, stderr=log)
        self.truth = self.node.truth / str(self.process.pid)

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + LIMIT_S
        while "Application startup complete." not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def request(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str, body: Any = None) -> Any:
        status, text = self.request(path, body)
        assert status == 200, text
        return json.loads(text)

    def complete(self, prompt: Any, max_tokens: int | None = 4, **options: Any) -> Any:
        return self.json("/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": max_tokens, **options})

    def stream(self, body: dict[str, Any], path: str = "/v1/completions") -> list[Any]:
        """The events of a stream; the last is `[DONE]`."""
        status, text = self.request(path, {"model": "m", "stream": True, **body})
        assert status == 200, text
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name and further labels."""
        samples = {}
        for line in self.request("/metrics")[1].splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                labels = name.partition("{")[2].rstrip("}").split(",")
                further = [label for label in labels if not label.startswith(("model_name", "engine"))]
                samples[",".join([name.partition("{")[0], *further])] = float(value)
        return samples

    def stop(self, limit_s: float = LIMIT_S) -> int:
        """End it in order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
