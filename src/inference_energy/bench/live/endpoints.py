"""HTTP endpoints of the live server."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from inference_energy.bench.live.engine_loop import EngineLoop
from inference_energy.bench.live.flags import ServerSettings
from inference_energy.bench.live.live_request import TruthSink
from inference_energy.bench.live.metrics import EngineMetrics
from inference_energy.bench.live.protocol import (
    MESSAGE,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    Generation,
    Prompt,
    RefusedError,
    RequestFaults,
    TokenizeBody,
    checked_length,
    error_content,
    parse,
)
from inference_energy.bench.live.responses import (
    CHAT,
    COMPLETION,
    AnswerChoice,
    BenchAnswer,
    StreamAnswer,
    StreamChoice,
    Style,
    common_part,
    model_list,
    whole_choice,
)
from inference_energy.bench.live.tokens import Tokenizer
from inference_energy.bench.truth.prefix_cache import block_hashes, output_length

VERSION = "0.25.1+simulated"
"""Version of vLLM whose behavior is copied."""

MOST_BODY_BYTES = 2**26
STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Simulated": "inference-energy"}


class Endpoints:
    """Answers requests out of one engine.

    Args:
        settings: settings of the server.
        engine_loop: computes the requests.
        metrics: gives the page /metrics.
        truth: records the tokens sent.
        tokenizer: tokenizer of the model.
        faults: faults that requests meet.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine_loop: EngineLoop,
        metrics: EngineMetrics,
        truth: TruthSink,
        tokenizer: Tokenizer,
        faults: RequestFaults,
    ) -> None:
        self._settings = settings
        self._engine_loop = engine_loop
        self._metrics = metrics
        self._truth = truth
        self._tokenizer = tokenizer
        self._faults = faults
        self._created = int(time.time())
        self._requests = 0
        self._open: set[BenchAnswer] = set()

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[errors_as_json])
        router = app.router
        router.add_get("/health", self.nothing)
        router.add_get("/ping", self.nothing)
        router.add_get("/version", self.version)
        router.add_get("/v1/models", self.models)
        router.add_get("/metrics", self.metrics)
        router.add_post("/tokenize", self.tokenize)
        router.add_post("/detokenize", self.detokenize)
        router.add_post("/reset_prefix_cache", self.reset_prefix_cache)
        router.add_post("/v1/completions", self.completions)
        router.add_post("/v1/chat/completions", self.chat_completions)
        return app

    def cut(self) -> None:
        """Abort every connection with an answer under way, and its requests."""
        for answer in list(self._open):
            answer.transport.abort()
            for choice in answer.choices:
                self._engine_loop.abort(choice)

    async def nothing(self, _: web.Request) -> web.Response:
        """GET /health, /ping."""
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        """GET /version."""
        return web.json_response({"version": VERSION})

    async def models(self, _: web.Request) -> web.Response:
        """GET /v1/models."""
        settings = self._settings
        longest = settings.node.engine.max_model_len
        return web.json_response(model_list(settings.served_names, settings.model, self._created, longest))

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.page(), headers=headers)

    async def reset_prefix_cache(self, _: web.Request) -> web.Response:
        """POST /reset_prefix_cache."""
        self._engine_loop.engine.blocks.clear()
        return web.Response()

    async def tokenize(self, http: web.Request) -> web.Response:
        """POST /tokenize."""
        body = parse(TokenizeBody, await http.read())
        self._check_model(body.model)
        tokens = self._tokenizer.encode(body.text)
        strings = [self._tokenizer.word(token) for token in tokens] if body.return_token_strs else None
        longest = self._settings.node.engine.max_model_len
        content = {"count": len(tokens), "max_model_len": longest, "tokens": tokens, "token_strs": strings}
        return web.json_response(content)

    async def detokenize(self, http: web.Request) -> web.Response:
        """POST /detokenize."""
        body = parse(DetokenizeBody, await http.read())
        self._check_model(body.model)
        return web.json_response({"prompt": self._tokenizer.decode(body.tokens)})

    async def completions(self, http: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        body = parse(CompletionBody, await http.read())
        return await self._generate(http, body, body.prompts, COMPLETION)

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        body = parse(ChatBody, await http.read())
        return await self._generate(http, body, [body.text], CHAT)

    async def _generate(
        self, http: web.Request, body: Generation, prompts: list[Prompt], style: Style
    ) -> web.StreamResponse:
        self._check_model(body.model)
        fault = self._faults.next()
        if fault == "error 500":
            raise RefusedError(500, MESSAGE)
        name = f"{style.prefix}-{http.headers.get('X-Request-Id') or uuid.uuid4().hex}"
        requests = [self._request(body, prompt, name) for prompt in prompts]
        transport = http.transport
        if transport is None:
            raise web.HTTPBadRequest(reason="the client is gone")
        stall_s = self._faults.settings.stall_s
        common = common_part(name, style.part if body.stream else style.whole, int(time.time()), self._metrics.model)
        response: web.StreamResponse | None = None
        if body.stream:
            response = web.StreamResponse(headers=STREAM_HEADERS)
            chunked = http.version >= (1, 1)
            if chunked:
                response.enable_chunked_encoding()
            await response.prepare(http)
            stream = StreamAnswer(
                transport,
                fault,
                stall_s,
                self._engine_loop.abort,
                chunked=chunked,
                common=common,
                body=body,
                details=self._settings.prompt_tokens_details,
                sent=self._truth.sent,
            )
            for index, request in enumerate(requests):
                stream.add(StreamChoice(stream, style, common, self._tokenizer, index=index, **request))
            await self._finish(stream)
            await response.write_eof()
            return response
        answer = BenchAnswer(transport, fault, stall_s, self._engine_loop.abort)
        for index, request in enumerate(requests):
            answer.add(AnswerChoice(answer, index=index, **request))
        await self._finish(answer)
        if fault == "stall":
            await asyncio.sleep(stall_s)
        counts = answer.counts(self._settings.prompt_tokens_details)
        choices = [whole_choice(style, choice.index, self._text(choice), choice.reason) for choice in answer.choices]
        return web.json_response({**common, "choices": choices, "usage": counts})

    async def _finish(self, answer: BenchAnswer) -> None:
        """Compute an answer's requests; if anything ends it early, none of them stays in the engine."""
        self._open.add(answer)
        try:
            for choice in answer.choices:
                self._engine_loop.submit(choice)
            await answer.done
        finally:
            self._open.discard(answer)
            for choice in answer.choices:
                self._engine_loop.abort(choice)

    def _request(self, body: Generation, prompt: Prompt, name: str) -> dict[str, Any]:
        """Return the arguments of `AnswerChoice` for one prompt."""
        settings, tokenizer = self._settings, self._tokenizer
        engine = settings.node.engine
        tokens = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        most = checked_length(len(tokens), body, engine.max_model_len)
        if max(tokens) >= tokenizer.vocabulary:
            raise RefusedError(400, f"Token id {max(tokens)} is out of vocabulary", "prompt")
        length, reason = output_length(
            prompt, settings.node.seed, most, ignore_eos=body.ignore_eos, min_tokens=body.min_tokens
        )
        hashes = block_hashes(tokens, engine.block_size, body.cache_salt) if engine.enable_prefix_caching else ()
        self._requests += 1
        return {
            "first": tokenizer.first_token(prompt),
            "request_id": self._requests,
            "name": name,
            "prompt_tokens": len(tokens),
            "output_tokens": length,
            "block_hashes": hashes,
            "most_tokens": most,
            "reason": reason,
        }

    def _text(self, choice: AnswerChoice) -> str:
        tokenizer = self._tokenizer
        return "".join(
            f" {tokenizer.word(tokenizer.nth(choice.first, index))}" for index in range(choice.output_tokens)
        )

    def _check_model(self, model: str | None) -> None:
        if model and model not in self._settings.served_names:
            raise RefusedError(404, f"The model `{model}` does not exist.", "model")


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn refusals and unknown paths into vLLM's error objects."""
    try:
        return await handler(request)
    except RefusedError as error:
        return web.json_response(error.content, status=error.status)
    except web.HTTPException as error:
        return web.json_response(error_content(error.status, error.reason), status=error.status)
