"""How late the bench's live server is with its tokens, on one core.

    python benchmarks/live_server.py [--streams 100] [--inter-token-ms 10] [--seconds 10]

A server on one core streams to a light client on another; the lateness of a token is the time at which the server wrote
it to the connection less the end of the engine step that made it, from the server's own record. The aim: p99 below 3 ms
with 100 streams at 10 ms. Prints a line and a JSON object; nothing here fails for being slow.
"""

import argparse
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from inference_energy.bench.config import Node
from inference_energy.bench.live.truth_files import EVENTS, SERVER, STEPS, read_truth
from inference_energy.bench.truth.step import StepPhysics

MODEL = "llama-3.1-8b"
PROMPT_TOKENS = 16
WARM_UP_SHARE = 0.05


def main() -> None:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(description="How late the bench's live server is with its tokens, on one core.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--inter-token-ms", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    tokens = round(given.seconds * 1000 / given.inter_token_ms)
    with tempfile.TemporaryDirectory(prefix="live-server-") as name:
        folder = Path(name)
        (folder / "node.json").write_text(
            node_with(given.streams, tokens, given.inter_token_ms / 1000).model_dump_json()
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "inference_energy.bench.live.server", "--model", MODEL, "--port", str(port)]
        command += ["--node", str(folder / "node.json"), "--truth", str(folder / "truth")]
        os.sched_setaffinity(0, {cores[0]})  # the server inherits its core
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stderr=log)
        os.sched_setaffinity(0, {cores[-1]})
        try:
            wait_until_it_listens(server, port)
            began, cpu_before_s, busy_before_s = time.monotonic(), cpu_s(server.pid), core_busy_s(cores[0])
            received = stream_all(port, given.streams, tokens)
            wall_s, used_s = time.monotonic() - began, cpu_s(server.pid) - cpu_before_s
            busy_s = core_busy_s(cores[0]) - busy_before_s
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        result = lateness(folder / "truth", given.streams) | {
            "streams": given.streams,
            "cores_shared": len(cores) == 1,
            "received_mb": received / 1e6,
            "server_cpu_share": used_s / wall_s,
            "others_cpu_share": max(0.0, busy_s - used_s) / wall_s,
        }
    print(json.dumps(result, indent=1))
    print(
        f"token lateness with {given.streams} streams at {result['inter_token_ms']:.2f} ms: "
        f"p50 {result['p50_ms']:.2f}, p99 {result['p99_ms']:.2f}, max {result['max_ms']:.2f} ms; "
        f"p99 is {result['p99_per_inter_token']:.3f} of the inter-token latency; "
        f"the server took {result['server_cpu_share']:.0%} of its core, others {result['others_cpu_share']:.0%}"
    )


def node_with(streams: int, tokens: int, step_s: float) -> Node:
    """A node whose steps take so long with all streams in half of their way."""
    plain = Node.parse({"engine": {"step_host_s": 0.0, "max_num_seqs": max(256, streams)}})
    physics = StepPhysics(plain.device, plain.shape, plain.engine)
    context = streams * (PROMPT_TOKENS + tokens // 2)
    own_s, _, _ = physics.cost(streams, context, 0, 0.0, streams, streams, 0.0)
    if own_s > step_s:
        raise SystemExit(f"{MODEL} takes {own_s * 1000:.1f} ms a step with so many streams: ask for at least that")
    return Node.parse({"engine": {"step_host_s": step_s - own_s, "max_num_seqs": max(256, streams)}})


def wait_until_it_listens(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait for the server's port."""
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server ended before it listened")


def stream_all(port: int, streams: int, tokens: int) -> int:
    """Ask for all streams at once and read them to their ends; returns the bytes that came."""
    selector = selectors.DefaultSelector()
    for number in range(streams):
        prompt = [1000 + number] * PROMPT_TOKENS
        body = json.dumps({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}).encode()
        connection = socket.create_connection(("127.0.0.1", port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    received = 0
    while selector.get_map():
        for key, _ in selector.select():
            data = key.fileobj.recv(2**16)  # type: ignore[union-attr]
            received += len(data)
            if not data or data.endswith(b"0\r\n\r\n"):
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    return received


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def core_busy_s(core: int) -> float:
    """Time in which a core was not idle; what is not the server's there disturbs the measurement."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def lateness(truth: Path, streams: int) -> dict[str, float]:
    """The figures, from the server's own record of the time in which all streams ran."""
    events, steps = read_truth(truth, EVENTS).to_pandas(), read_truth(truth, STEPS).to_pandas()
    full = steps[steps["decoding"] == streams]
    began_ns = full["start_ns"].iloc[0] + WARM_UP_SHARE * (full["end_ns"].iloc[-1] - full["start_ns"].iloc[0])
    late_ms = (events["sent_ns"] - events["due_ns"])[events["due_ns"] >= began_ns].to_numpy() / 1e6
    inter_token_ms = float((full["end_ns"] - full["start_ns"]).mean() / 1e6)
    p50, p90, p99, p999 = (float(value) for value in np.percentile(late_ms, [50, 90, 99, 99.9]))
    return {
        "tokens": len(late_ms),
        "inter_token_ms": inter_token_ms,
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": float(late_ms.max()),
        "p99_per_inter_token": p99 / inter_token_ms,
        "slips": json.loads((truth / SERVER).read_text())["slips"],
    }


if __name__ == "__main__":
    main()
