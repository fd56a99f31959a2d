"""The HTTP client: one connection pool, one coroutine a request."""

import asyncio
import time
from types import TracebackType
from typing import Any, Self

import aiohttp

from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.load.stream import StreamError, read_stream

KEEP_ALIVE_S = 4.0
"""Uvicorn closes idle connections after 5 s; one reused later would fail with `Server disconnected`."""

READ_BUFFER_BYTES = 2**20


class LoadClient:
    """Sends requests to one endpoint's `/v1/completions`, streaming.

    Attributes:
        records: one a request, in the order sent.
        in_flight: requests now under way.
        events: events with content so far, for progress only.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        timeout_s: float,
        *,
        ignore_eos: bool = False,
        prefix_reuse: bool = False,
        sent_before: set[int] | None = None,
    ) -> None:
        """A client for `model`.

        Args:
            endpoint: base URL without /v1.
            model: name of the model there.
            timeout_s: a request that takes longer has failed.
            ignore_eos: generate exactly as many tokens as asked for.
            prefix_reuse: False sends a cache salt with a prompt that was sent before, so that it is computed anew.
            sent_before: hashes of the prompts sent by earlier clients; this one adds its own.
        """
        self.endpoint = endpoint.rstrip("/")
        self.model = model
        self.ignore_eos = ignore_eos
        self.prefix_reuse = prefix_reuse
        self._sent_before: set[int] = set() if sent_before is None else sent_before
        self.records: list[RequestRecord] = []
        self.in_flight = 0
        self.events = 0
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, read_bufsize=READ_BUFFER_BYTES
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def send(self, request: PlannedRequest, cell: str, scheduled_ns: int) -> RequestRecord:
        """Send one request and record what happens; failures are recorded, only cancellation is passed on.

        Args:
            request: what to send.
            cell: the phase it belongs to.
            scheduled_ns: when it was due, monotonic.
        """
        record = RequestRecord(request.request_id, cell, request.prompt_id, self.endpoint, scheduled_ns)
        self.records.append(record)
        self.in_flight += 1
        try:
            await self._exchange(self._body(request), record)
            record.status = "ok"
        except TimeoutError:
            record.status, record.error = "failed", f"no end within {self._timeout.total:g} s"
        except (aiohttp.ClientError, StreamError, OSError) as error:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            record.error = "cut off at the end of the drain"
            raise
        finally:
            record.end_ns = time.monotonic_ns()
            self.in_flight -= 1
        return record

    async def _exchange(self, body: dict[str, Any], record: RequestRecord) -> None:
        if self._session is None:
            raise RuntimeError("use the client as a context manager")
        record.sent_ns = time.monotonic_ns()
        async with self._session.post(f"{self.endpoint}/v1/completions", json=body) as response:
            if response.status != 200:
                text = (await response.text())[:500]
                raise StreamError(f"status {response.status}: {text}")
            await read_stream(response.content.iter_any(), record, self._count_event)

    def _count_event(self) -> None:
        self.events += 1

    def _body(self, request: PlannedRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Extensions of vLLM are sent only where they are needed: other servers may refuse them.
        if self.ignore_eos:
            body["ignore_eos"] = True
        content = hash(request.prompt if isinstance(request.prompt, str) else tuple(request.prompt))
        if content in self._sent_before and not self.prefix_reuse:
            body["cache_salt"] = f"request-{request.request_id}"
        self._sent_before.add(content)
        return body
