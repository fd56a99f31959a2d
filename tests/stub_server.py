"""A server that speaks like vLLM and computes nothing, for tests of everything around a server.

    python tests/stub_server.py --model M --served-model-name N --host H --port P [any further flags of vLLM]

A batching engine in miniature: each step (1 / STUB_TOKENS_PER_S) gives one token to every running request, up to
--max-num-seqs of them; the rest waits. Environment variables make it misbehave:

STUB_TOKENS_PER_S          engine steps a second, so also tokens a second of one request (default 50)
STUB_START_DELAY_S         time until it listens
STUB_DIE_AFTER_S           exit code 3 so long after its start, ready or not
STUB_CRASH_AFTER_S         SIGKILL to itself so long after it listens
STUB_CRASH_AFTER_REQUESTS  SIGKILL to itself in the middle of that request
STUB_HANG_AFTER_S          answers nothing any more, SIGTERM included, so long after it listens
STUB_STALL_AFTER_S         the engine hangs so long after it listens, while all pages still answer
STUB_IGNORE_SIGTERM        1: SIGTERM does nothing
STUB_ERROR_EVERY           every n-th request fails in mid-stream, under HTTP 200, as with vLLM
STUB_EOS_AFTER_TOKENS      requests without ignore_eos end there with finish_reason "stop"
STUB_PIDS_FILE             have children that try to outlive the server, and append its pid and theirs to this file
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

FAMILY_LIFETIME_S = 180  # a failing test leaves nothing for longer


def option(name: str, default: float = 0.0) -> float:
    return float(os.environ.get(f"STUB_{name}", default))


def note_pid(path: Path) -> None:
    with path.open("a") as pids:
        pids.write(f"{os.getpid()}\n")


def start_family(path: Path) -> None:
    """Three children: an ordinary one, one in its own session, and a daemon (double fork) that ignores SIGTERM."""
    note_pid(path)
    for kind in ("child", "session", "daemon"):
        if os.fork() == 0:
            if kind != "child":
                os.setsid()
            if kind == "daemon":
                if os.fork() != 0:
                    os._exit(0)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            note_pid(path)
            time.sleep(FAMILY_LIFETIME_S)
            os._exit(0)
    while len(path.read_text().split()) < 4:
        time.sleep(0.01)


if __name__ == "__main__" and "STUB_PIDS_FILE" in os.environ:  # before any thread or socket exists
    start_family(Path(os.environ["STUB_PIDS_FILE"]))

from aiohttp import web  # noqa: E402
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest  # noqa: E402


class Metrics:
    """The metrics of vLLM that the pipeline reads, under their names."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        labels = {"engine": "0", "model_name": model}

        def make(kind, name, *more, **options):
            metric = kind(f"vllm:{name}", name, [*labels, *more], registry=self.registry, **options)
            return metric if more else metric.labels(**labels)

        self.running = make(Gauge, "num_requests_running")
        self.waiting = make(Gauge, "num_requests_waiting")
        self.kv_cache = make(Gauge, "kv_cache_usage_perc")
        self.prompt_tokens = make(Counter, "prompt_tokens")
        self.cached_tokens = make(Counter, "prompt_tokens_cached")
        self.generation_tokens = make(Counter, "generation_tokens")
        self.preemptions = make(Counter, "num_preemptions")
        self.step_tokens = make(Histogram, "iteration_tokens_total", buckets=(1, 8, 64, 512))
        self.latency_s = make(Histogram, "e2e_request_latency_seconds", buckets=(0.3, 1, 10))
        self._success = make(Counter, "request_success", "finished_reason")
        self._labels = labels

    def finished(self, reason: str) -> None:
        self._success.labels(**self._labels, finished_reason=reason).inc()


class Request:
    def __init__(self, prompt_tokens: int, max_tokens: int, finish_reason: str) -> None:
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.finish_reason = finish_reason
        self.generated = 0
        self.arrived = time.monotonic()
        self.tokens: asyncio.Queue[int] = asyncio.Queue()

    def usage(self) -> dict:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.generated,
            "completion_tokens": self.generated,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


class Engine:
    def __init__(self, metrics: Metrics, max_running: int) -> None:
        self.metrics = metrics
        self.max_running = max_running
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.work = asyncio.Event()

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.work.set()

    def abort(self, request: Request) -> None:
        if request in self.waiting:
            self.waiting.remove(request)
        if request in self.running:
            self.running.remove(request)
            self.metrics.finished("abort")

    async def run(self) -> None:
        step_s = 1.0 / option("TOKENS_PER_S", 50.0)
        due = time.monotonic()
        while True:
            if not self.running and not self.waiting:
                self.work.clear()
                self.show()
                await self.work.wait()
                due = time.monotonic()
            due += step_s
            prefilled = self.admit()
            self.show()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.step(prefilled)

    def admit(self) -> int:
        prefilled = 0
        while self.waiting and len(self.running) < self.max_running:
            request = self.waiting.popleft()
            prefilled += request.prompt_tokens
            self.running.append(request)
        return prefilled

    def step(self, prefilled: int) -> None:
        self.metrics.prompt_tokens.inc(prefilled)
        self.metrics.generation_tokens.inc(len(self.running))
        self.metrics.step_tokens.observe(prefilled + len(self.running))
        for request in list(self.running):
            request.generated += 1
            request.tokens.put_nowait(request.generated)
            if request.generated >= request.max_tokens:
                self.running.remove(request)
                self.metrics.finished(request.finish_reason)
                self.metrics.latency_s.observe(time.monotonic() - request.arrived)

    def show(self) -> None:
        self.metrics.running.set(len(self.running))
        self.metrics.waiting.set(len(self.waiting))
        self.metrics.kv_cache.set(min(1.0, sum(r.prompt_tokens + r.generated for r in self.running) / 100_000))


class Stub:
    def __init__(self, model: str, max_running: int) -> None:
        self.model = model
        self.metrics = Metrics(model)
        self.engine = Engine(self.metrics, max_running)
        self.requests = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/metrics", self.metrics_page)
        app.router.add_post("/reset_prefix_cache", self.health)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat_completions)
        app.on_startup.append(self.on_startup)
        return app

    async def on_startup(self, app: web.Application) -> None:
        app["engine"] = asyncio.create_task(self.engine.run())
        loop = asyncio.get_running_loop()
        if option("CRASH_AFTER_S"):
            loop.call_later(option("CRASH_AFTER_S"), os.kill, os.getpid(), signal.SIGKILL)
        if option("STALL_AFTER_S"):
            loop.call_later(option("STALL_AFTER_S"), app["engine"].cancel)
        if option("HANG_AFTER_S"):
            loop.call_later(option("HANG_AFTER_S"), time.sleep, FAMILY_LIFETIME_S)
        say("Application startup complete.")

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.0.0+stub"})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model", "created": 1}]})

    async def metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain")

    async def completions(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        prompt = body.get("prompt", "")
        tokens = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
        return await self.generate(http, body, tokens, "text_completion", "cmpl")

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        tokens = sum(4 + len(str(message["content"]).split()) for message in body["messages"])
        kind = "chat.completion.chunk" if body.get("stream") else "chat.completion"
        return await self.generate(http, body, tokens, kind, "chatcmpl")

    async def generate(self, http, body: dict, prompt_tokens: int, kind: str, prefix: str) -> web.StreamResponse:
        if body.get("model") != self.model:
            return refusal(404, f"The model `{body.get('model')}` does not exist.")
        max_tokens = body.get("max_completion_tokens") or body.get("max_tokens", 16)
        if max_tokens < 1:
            return refusal(400, "max_tokens must be at least 1")
        self.requests += 1
        number, reason = self.requests, "length"
        eos = int(option("EOS_AFTER_TOKENS"))
        if eos and not body.get("ignore_eos") and eos < max_tokens:
            max_tokens, reason = eos, "stop"
        request = Request(max(1, prompt_tokens), max_tokens, reason)
        head = {"id": f"{prefix}-{number}", "object": kind, "created": 1, "model": self.model}
        self.engine.add(request)
        try:
            if body.get("stream"):
                return await self.stream(http, body, request, head, number)
            while request.generated < request.max_tokens:
                await request.tokens.get()
            choice = choice_of(kind, " x" * request.generated, reason)
            return web.json_response({**head, "choices": [choice], "usage": request.usage()})
        finally:
            self.engine.abort(request)

    async def stream(self, http, body: dict, request: Request, head: dict, number: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)

        async def event(content) -> None:
            text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
            await response.write(f"data: {text}\n\n".encode())

        try:
            for index in range(1, request.max_tokens + 1):
                await request.tokens.get()
                last = index == request.max_tokens
                choice = choice_of(head["object"], " x", request.finish_reason if last else None)
                await event({**head, "choices": [choice]})
                if number == option("CRASH_AFTER_REQUESTS"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if option("ERROR_EVERY") and number % option("ERROR_EVERY") == 0:
                    await event({"error": {"message": "stub error", "type": "InternalServerError", "code": 500}})
                    break
            else:
                if (body.get("stream_options") or {}).get("include_usage"):
                    await event({**head, "choices": [], "usage": request.usage()})
            await event("[DONE]")
        except ConnectionResetError:
            pass  # the client went away
        return response


def choice_of(kind: str, text: str, finish_reason: str | None) -> dict:
    content = {
        "text_completion": {"text": text},
        "chat.completion": {"message": {"role": "assistant", "content": text}},
        "chat.completion.chunk": {"delta": {"content": text}},
    }[kind]
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "BadRequestError", "code": status}}, status=status)


def say(text: str) -> None:
    print(f"stub: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A server that speaks like vLLM and computes nothing.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    arguments, further = parser.parse_known_args()
    say(f"pid {os.getpid()}, further flags: {' '.join(further)}")
    if option("DIE_AFTER_S"):
        threading.Timer(option("DIE_AFTER_S"), lambda: (say("dying early"), os._exit(3))).start()
    say(f"loading {arguments.model}")
    time.sleep(option("START_DELAY_S"))
    ignore_sigterm = bool(option("IGNORE_SIGTERM"))
    if ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stub = Stub(arguments.served_model_name or arguments.model, arguments.max_num_seqs)
    web.run_app(
        stub.application(),
        host=arguments.host,
        port=arguments.port,
        handle_signals=not ignore_sigterm,
        shutdown_timeout=0.5,
        print=None,
    )


if __name__ == "__main__":
    main()
