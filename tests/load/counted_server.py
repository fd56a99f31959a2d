"""A server in a thread that answers at once and counts under vLLM's or SGLang's names; if asked, with TLS and a key."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NAMES = {
    "vllm": ("prompt_tokens_total", "generation_tokens_total", "num_requests_running", "num_requests_waiting"),
    "sglang": ("prompt_tokens_total", "generation_tokens_total", "num_running_reqs", "num_queue_reqs"),
}
TOKENS, PROMPT_TOKENS = 2, 3
EVENTS = (
    b'data: {"choices": [{"index": 0, "text": " a", "finish_reason": null}]}\n\n',
    b'data: {"choices": [{"index": 0, "text": " b", "finish_reason": "length"}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": %d, "completion_tokens": %d}}\n\n' % (PROMPT_TOKENS, TOKENS),
    b"data: [DONE]\n\n",
)


class CountedServer:
    """One model, `m`. `asked` are the paths that were asked for, each with whether it brought the key."""

    def __init__(self, engine: str, key: str | None, uncounted: int = 0, *, echo: bool = False) -> None:
        self._engine = engine
        self._key = key
        self._answered = 0
        self._uncounted = uncounted
        self._echo = str(key) if echo else ""
        self.asked: set[tuple[str, bool]] = set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._allowed])
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._complete)
        return app

    @web.middleware
    async def _allowed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with_key = request.headers.get("Authorization") == f"Bearer {self._key}"
        self.asked.add((request.path, with_key))
        if self._key is not None and not with_key:
            raise web.HTTPUnauthorized
        return await handler(request)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}, *([{"id": self._echo}] if self._echo else [])]})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": f"1{self._echo}"})

    async def _metrics(self, request: web.Request) -> web.Response:
        prompt, generated, running, waiting = NAMES[self._engine]
        counted = max(0, self._answered - self._uncounted)
        values = {prompt: PROMPT_TOKENS * counted, generated: TOKENS * counted, running: 0, waiting: 0}
        lines = [f'{self._engine}:{name}{{model_name="m"}} {value}\n' for name, value in values.items()]
        if self._echo:
            lines = [line.replace("{model", f'{{key="{self._echo}",model') for line in lines]
        return web.Response(text="".join(lines))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        if self._echo and self._answered % 2:
            self._answered += 1
            return web.Response(status=500, text=f"no: {self._echo}")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._answered += 1
        await response.write(b"".join(EVENTS))
        await response.write_eof()
        return response


@contextmanager
def serving(
    engine: str = "vllm",
    *,
    key: str | None = None,
    certificate: Path | None = None,
    uncounted: int = 0,
    echo: bool = False,
) -> Iterator[tuple[str, CountedServer]]:
    """A running server and its address.

    Args:
        engine: whose names its metrics have.
        key: the API key it wants.
        certificate: with its key in one file, for https://.
        uncounted: so many answers are missing in its counters.
        echo: repeats the key on every page, and in every second answer as an error.
    """
    server, loop = CountedServer(engine, key, uncounted, echo=echo), asyncio.new_event_loop()
    address, over = [""], asyncio.Event()
    started = threading.Event()

    async def serve() -> None:
        runner = web.AppRunner(server.app())
        await runner.setup()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        await (site := web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)).start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]
        address[0] = f"http{'s' if context else ''}://127.0.0.1:{port}"
        started.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(20)
        yield address[0], server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
