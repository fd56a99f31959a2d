"""The golden trial: our client against the bench's live server, which knows when it wrote each token."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from inference_energy.bench.config import Node
from inference_energy.bench.live.truth_files import EVENTS, REQUESTS, read_truth
from load.compare import Result
from load.plans import FIRST_KEY
from load.watch import environment, placed

MODEL = "llama-3.1-8b"
LENGTHS = 400
"""Prompts of so many lengths in turn: two of one length come seconds apart, so by it the server's note is found."""
SHORTEST = 16
MARKS_MS = {"p50": 0.5, "p99": 2.0}
READY_WITHIN_S = 60.0


class BenchServer:
    """The bench's server on a core, listening; its truth lies in `folder` once it was stopped."""

    def __init__(self, folder: Path, core: int, *, realtime: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        node = Node.parse({"engine": {"max_num_seqs": 256}})
        (folder / "node.json").write_text(node.model_dump_json())
        self.truth = folder / "server-truth"
        command = [sys.executable, "-m", "inference_energy.bench.live.server", "--model", MODEL, "--port"]
        command += [str(self.port), "--served-model-name", "m"]
        command += ["--node", str(folder / "node.json"), "--truth", str(self.truth)]
        with (folder / "server.log").open("wb") as log, placed(core, realtime=realtime):
            self.process = subprocess.Popen(command, stderr=log, env=environment(), start_new_session=True)
        until_s = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise SystemExit(f"the bench's server did not come up:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Have it write its truth, and end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def prompt_tokens(number: int) -> int:
    """Length of a request's prompt."""
    return SHORTEST + number % LENGTHS


def write_truth(truth: Path, target: Path) -> None:
    """The bench's truth as `server.py` writes its own: for `compare.fidelity`."""
    requests = read_truth(truth, REQUESTS).to_pandas().sort_values("arrival_ns")
    events = read_truth(truth, EVENTS).to_pandas().sort_values(["request_id", "token"])
    sent = {number: group.tolist() for number, group in events.groupby("request_id")["sent_ns"]}
    seen: dict[int, int] = {}
    noted = []
    for row in requests.itertuples():
        length = int(row.prompt_tokens)
        number = length - SHORTEST + LENGTHS * seen.get(length, 0)
        seen[length] = seen.get(length, 0) + 1
        noted.append((int(row.request_id), FIRST_KEY + number, int(row.arrival_ns), sent[row.request_id]))
    target.write_text(json.dumps(noted))


def first_token_ms(result: Result, truth: Path) -> list[float]:
    """The client's time of each first token less the server's of writing it; both have one clock.

    The server's note of when a request was there is left out: its own delay in reading requests is no error of ours.
    """
    written_ns = {key: sent_ns[0] for _, key, _, sent_ns in json.loads(truth.read_text())}
    return [one.sent_ns / 1e6 + one.ttft_s * 1e3 - written_ns[one.name[1]] / 1e6 for one in result.seen]


def within(figures: dict[str, Any]) -> dict[str, bool]:
    """Whether TTFT and ITL agree with the server's within the marks."""
    return {
        f"{name} {at}": abs(figures[name][at]) <= mark
        for name in ("ttft_error_ms", "itl_error_ms")
        for at, mark in MARKS_MS.items()
    }
