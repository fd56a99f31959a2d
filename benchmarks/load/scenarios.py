"""What is tried: each scenario with each client."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.acquire.model_files import write_dummy
from load.compare import Result, fidelity, of_aiohttp_loop, of_ours, of_vllm, read, spread
from load.golden import BenchServer, first_token_ms, prompt_tokens, within, write_truth
from load.plans import FIRST_KEY, PROMPT_TOKENS, poisson_ns, request, write_plan
from load.watch import Server, Taken, environment, module, placed, run_client

PLAIN, GENERAL, VLLM, BARE = "ours, plain", "ours, aiohttp", "vllm bench serve", "aiohttp loop"
TRANSPORTS = {PLAIN: "plain", GENERAL: "aiohttp"}

USERS, BURST_TOKENS = 8, 128
RATE_QPS, TOKENS = 200.0, 64
GOLDEN_TOKENS = 32
VLLM_TOKENS_PER_S = 60_000
"""About what it streams: its closed loop ends after a number of requests."""
TOKENIZER = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512}

HELD, HELD_RATE_QPS = 10_000, 1000.0
LONG_PROMPT_TOKENS, LONG_ANSWER_TOKENS = 50_000, 5500
LONG_RATE_QPS = 5.0


@dataclass(frozen=True)
class Setting:
    """How all is run.

    Attributes:
        seconds: of each measurement.
        client_core, server_core: where.
        realtime: with real-time priority.
        vllm_python: a Python that has vLLM, if there is one.
        certificate: for https://; key and certificate in one file.
    """

    seconds: float
    client_core: int
    server_core: int
    realtime: bool
    vllm_python: Path | None
    certificate: Path | None = None

    @property
    def cores(self) -> tuple[int, int]:
        """The client's and the server's."""
        return self.client_core, self.server_core


def throughput(client: str, setting: Setting, tokens: int = BURST_TOKENS) -> dict[str, Any]:
    """A closed loop of 8 users on a server that answers at once: tokens per CPU second of the client's processes."""
    with _folder() as folder:
        rows = [request(number, tokens, user=number % USERS) for number in range(64 * USERS)]
        result, taken = _run(client, setting, folder, ("burst", "--tokens", str(tokens)), rows, tokens, [])
        figures = taken.figures(result.from_ns, result.until_ns)
        return {
            "tokens_per_cpu_s": result.tokens / figures["client_cpu_s"],
            "tokens_per_s": result.tokens / figures["seconds"],
            "requests": result.completed,
            "failed": result.failed,
            **figures,
        }


def arrivals(client: str, setting: Setting) -> dict[str, Any]:
    """200 requests/s, Poisson, 64 tokens 10 ms apart, the first after 50 ms: the client's times beside the server's."""
    with _folder() as folder:
        arrivals_ns = poisson_ns(RATE_QPS, setting.seconds)
        rows = [request(number, TOKENS, arrival_ns=at_ns) for number, at_ns in enumerate(arrivals_ns)]
        truth = folder / "truth.json"
        service = ("timed", "--truth", str(truth))
        result, taken = _run(client, setting, folder, service, rows, TOKENS, arrivals_ns)
        return _timed_figures(result, taken, truth)


def golden(client: str, setting: Setting) -> dict[str, Any]:
    """200 requests/s, Poisson, 32 tokens, on the bench's live server: our times beside its own."""
    with _folder() as folder:
        arrivals_ns = poisson_ns(RATE_QPS, setting.seconds)
        write_plan(
            folder,
            [
                request(number, GOLDEN_TOKENS, arrival_ns=at_ns, prompt_tokens=prompt_tokens(number))
                for number, at_ns in enumerate(arrivals_ns)
            ],
        )
        server = BenchServer(folder, setting.server_core, realtime=setting.realtime)
        try:
            job = {
                "folder": str(folder),
                "endpoint": f"http://127.0.0.1:{server.port}",
                "seconds": arrivals_ns[-1] / 1e9 + 0.01,
                "transport": TRANSPORTS[client],
                "chunk_times": True,
            }
            (folder / "job.json").write_text(json.dumps(job))
            taken = run_client(
                module("ours", str(folder / "job.json")),
                server,
                setting.cores,
                realtime=setting.realtime,
                log=folder / "client.log",
                timeout_s=120 + 5 * setting.seconds,
            )
        finally:
            server.stop()
        write_truth(server.truth, folder / "truth.json")
        result = of_ours(folder)
        figures = _timed_figures(result, taken, folder / "truth.json")
        figures["ttft_error_ms"] = spread(first_token_ms(result, folder / "truth.json"))
        return {**figures, "within_marks": within(figures)}


def beside_long_ones(setting: Setting, kind: str) -> dict[str, Any]:
    """The same arrivals with 5 requests/s of another kind beside: `prompts` of 50,000 tokens or `answers` of 1 MB.

    Without the times of chunks, which is the default.
    """
    with _folder() as folder:
        arrivals_ns = poisson_ns(RATE_QPS, setting.seconds)
        rows = [request(number, TOKENS, arrival_ns=at_ns) for number, at_ns in enumerate(arrivals_ns)]
        for number, at_ns in enumerate(poisson_ns(LONG_RATE_QPS, setting.seconds, seed=6), start=len(rows)):
            long = {"prompt_tokens": LONG_PROMPT_TOKENS} if kind == "prompts" else {}
            tokens = TOKENS if kind == "prompts" else LONG_ANSWER_TOKENS
            rows.append(request(number, tokens, arrival_ns=at_ns, **long))
        rows.sort(key=lambda row: row["arrival_ns"])
        truth = folder / "truth.json"
        service = ("timed", "--truth", str(truth))
        result, taken = _run(PLAIN, setting, folder, service, rows, TOKENS, arrivals_ns, chunk_times=False)
        ordinary = range(FIRST_KEY, FIRST_KEY + len(arrivals_ns))
        others = [one for one in result.seen if one.name[1] not in ordinary]
        result.seen = [one for one in result.seen if one.name[1] in ordinary]
        return {**_timed_figures(result, taken, truth), "long_requests": len(others)}


def in_flight_client(setting: Setting, count: int) -> dict[str, Any]:
    """So many requests in flight at once, 1000 more each second: memory of each, and lateness."""
    with _folder() as folder:
        # The first after a second, so that the memory before it is seen.
        rows = [request(n, 2, arrival_ns=round((1 + n / HELD_RATE_QPS) * 1e9)) for n in range(count)]
        truth = folder / "truth.json"
        service = ("held", "--count", str(count), "--truth", str(truth))
        result, taken = _run(PLAIN, setting, folder, service, rows, 2, list(range(count)))
        figures = taken.figures(result.from_ns, result.until_ns)
        # What the client takes before its first request, with the whole plan in memory, against when all are in flight.
        before = [rss for time_ns, rss, _ in taken.memory if time_ns < result.from_ns][-1]
        within = max(rss for time_ns, rss, _ in taken.memory if result.from_ns < time_ns < result.until_ns)
        found = fidelity(result, truth) if result.seen else {}
        return {
            "in_flight": count,
            "completed": result.completed,
            "failed": result.failed,
            "bytes_each": (within - before) / count,
            "send_lag_ms": found.get("send_lag_ms"),
            **figures,
        }


def command_line(setting: Setting) -> dict[str, Any]:
    """`inference-energy load-test` with 200 requests/s: what all its processes take, while it sends and at most."""
    with _folder() as folder:
        server = Server("timed", [], setting.server_core, realtime=setting.realtime)
        requests = folder / "requests.parquet"
        command = [str(Path(sys.executable).with_name("inference-energy")), "load-test", "--model", "m"]
        command += ["--endpoint", f"http://127.0.0.1:{server.port}", "--output", str(requests), "--arrival", "poisson"]
        command += ["--qps", str(RATE_QPS), "--duration", str(setting.seconds), "--max-tokens", str(TOKENS)]
        command += ["--prompt-length", f"fixed:{PROMPT_TOKENS}"]
        try:
            taken = run_client(
                command, server, setting.cores, realtime=setting.realtime, log=folder / "log", timeout_s=120
            )
        finally:
            server.stop()
        result = read(requests, None)
        figures = taken.figures(result.from_ns, result.until_ns)
        each_ms = figures["client_cpu_s"] * 1e3 / max(1, result.completed)
        return {"requests": result.completed, "failed": result.failed, "cpu_ms_per_request": each_ms, **figures}


def pacers(setting: Setting) -> dict[str, Any]:
    """Lateness of wakings alone on the client's core."""
    with placed(setting.client_core, realtime=setting.realtime):
        command = module("pacers", str(setting.seconds))
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _timed_figures(result: Result, taken: Taken, truth: Path) -> dict[str, Any]:
    figures = taken.figures(result.from_ns, result.until_ns)
    each_ms = figures["client_cpu_s"] * 1e3 / max(1, result.completed)
    return {**fidelity(result, truth), "cpu_ms_per_request": each_ms, **figures}


def _run(
    client: str,
    setting: Setting,
    folder: Path,
    service: tuple[str, ...],
    rows: list[dict[str, Any]],
    tokens: int,
    arrivals_ns: list[int],
    *,
    chunk_times: bool = True,
) -> tuple[Result, Taken]:
    """Run a client against a server; with arrivals an open loop, else a closed one."""
    seconds = setting.seconds if not arrivals_ns else max(row["arrival_ns"] for row in rows) / 1e9 + 0.01
    requests = len(arrivals_ns) or round(setting.seconds * VLLM_TOKENS_PER_S / tokens)
    tls = ("--certificate", str(setting.certificate)) if setting.certificate else ()
    server = Server(service[0], [*service[1:], *tls], setting.server_core, realtime=setting.realtime)
    try:
        job = {
            "folder": str(folder),
            "endpoint": f"http{'s' if tls else ''}://127.0.0.1:{server.port}",
            "seconds": seconds,
            "tokens": tokens,
            "users": USERS,
            "requests": requests,
            "rate_qps": RATE_QPS,
            "arrivals": [(FIRST_KEY + number, at_ns) for number, at_ns in enumerate(arrivals_ns)],
            "transport": TRANSPORTS.get(client),
            "chunk_times": bool(arrivals_ns) and chunk_times,
        }
        (folder / "job.json").write_text(
            json.dumps(job | ({"tokenizer": str(write_dummy(TOKENIZER, folder))} if client == VLLM else {}))
        )
        if client in TRANSPORTS:
            write_plan(folder, rows)
        command = {
            VLLM: [str(setting.vllm_python), str(Path(__file__).with_name("vllm_serve.py"))],
            BARE: module("aiohttp_loop"),
        }.get(client, module("ours"))
        taken = run_client(
            [*command, str(folder / "job.json")],
            server,
            setting.cores,
            realtime=setting.realtime,
            log=folder / "client.log",
            timeout_s=120 + 5 * seconds,
        )
    finally:
        server.stop()
    if client == VLLM:
        return of_vllm(folder, arrivals_ns), taken
    return (of_aiohttp_loop if client == BARE else of_ours)(folder), taken


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="load-clients-") as name:
        yield Path(name)
