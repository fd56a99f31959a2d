"""The load client: sends one request and fills in one record, whatever happens."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from inference_energy.acquire.load.http.request import PATHS, BodyMaker, PlannedRequest, RequestObserver
from inference_energy.acquire.load.http.sse import ERROR_CHARACTERS, ExchangeError, SseAnswer
from inference_energy.acquire.load.http.transport import Transport
from inference_energy.contracts.load_client import ClientSettings, WorkloadSettings
from inference_energy.contracts.requests import RequestRecord
from inference_energy.errors import InputError

CUT_OFF = "cut off before its end"


@dataclass(frozen=True, slots=True)
class RequestResult:
    """A request that has ended; `text` is the answer's, where it was to be kept."""

    record: RequestRecord
    text: str | None


class LoadClient:
    """A client of one or more endpoints, which it uses in turn; an async context manager.

    A conversation stays at one endpoint, where its beginning may be cached.

    Args:
        endpoints: base URLs without /v1.
        model: name of the model there.
        settings: how requests are sent.
        observer: follows each request.

    Raises:
        InputError: an endpoint is no HTTP URL or holds a login.
    """

    def __init__(
        self, endpoints: Sequence[str], model: str, settings: ClientSettings, *, observer: RequestObserver
    ) -> None:
        self._endpoints = [_check_endpoint(endpoint) for endpoint in endpoints]
        if not self._endpoints:
            raise InputError("endpoints: there is none; write one, such as http://localhost:8000")
        self._settings = settings
        self._observer = observer
        self._bodies = BodyMaker(model)
        self._targets = itertools.cycle(self._endpoints)
        self._transport: Transport | None = None
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
        """Open the transports.

        Raises:
            InputError: the settings cannot be used.
        """
        self._transport = _open_transport(self._settings, self._endpoints)
        if self._settings.connections is not None:
            self._slots = {endpoint: asyncio.Semaphore(self._settings.connections) for endpoint in self._endpoints}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            await self._transport.close()

    async def send(
        self,
        request: PlannedRequest,
        workload: WorkloadSettings,
        scheduled_ns: int,
        worker: int,
        history: bytes = b"",
    ) -> RequestResult:
        """Send one request and record its course.

        Failures are recorded, never raised. When cancelled, the connection is closed, so that the server stops too,
        and the record says `aborted`; then the cancellation goes on.

        Args:
            request: its plan.
            workload: the settings it shares with others; the same object for all of them.
            scheduled_ns: when it was due, monotonic.
            worker: which worker sends it.
            history: with chat, the messages before it: JSON without the outer brackets.

        Raises:
            InputError: the workload's `parameters` hold a field that the client sets itself.
        """
        body = self._bodies.body(request, workload, history)
        endpoint = self._endpoint_for(request)
        record = RequestRecord(
            request.request_id,
            request.cell,
            worker,
            endpoint,
            request.prompt_id,
            request.turn,
            scheduled_ns,
            conversation=request.conversation,
            user=request.user,
        )
        keep_text = workload.keep_answers or (workload.history == "actual" and request.conversation is not None)
        answer = SseAnswer(
            record,
            self._observer,
            stream=workload.stream,
            chunk_times=workload.chunk_times,
            keep_text=keep_text,
        )
        try:
            slot = self._slots.get(endpoint)
            if slot is None:
                await self._exchange(endpoint, PATHS[workload.api], body, answer, record)
            else:
                async with slot:
                    await self._exchange(endpoint, PATHS[workload.api], body, answer, record)
            record.status = "ok"
        except asyncio.CancelledError:
            record.error = CUT_OFF
            raise
        except TimeoutError:
            self._fail(record, f"no end within {self._settings.request_timeout_s:g} s")
        except ExchangeError as error:
            self._fail(record, str(error))
        except Exception as error:  # any answer of a server may fail one request, not the measurement
            self._fail(record, f"{type(error).__name__}: {error}")
        finally:
            if record.end_ns is None:
                record.end_ns = time.monotonic_ns()
            text = answer.text
            self._observer.ended(record, text)
        return RequestResult(record, text)

    def _endpoint_for(self, request: PlannedRequest) -> str:
        number = request.conversation
        return next(self._targets) if number is None else self._endpoints[number % len(self._endpoints)]

    async def _exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, record: RequestRecord) -> None:
        transport = self._transport
        if transport is None:
            raise RuntimeError("the load client was not entered")
        async with asyncio.timeout(self._settings.request_timeout_s):
            record.attempts = 1
            record.sent_ns = time.monotonic_ns()
            self._observer.sent(record)
            try:
                await transport.exchange(endpoint, path, body, answer, fresh=False)
            except ExchangeError as error:
                if not error.stale:
                    raise
                record.attempts = 2
                record.sent_ns = time.monotonic_ns()
                await transport.exchange(endpoint, path, body, answer, fresh=True)

    def _fail(self, record: RequestRecord, error: str) -> None:
        record.status = "failed"
        if self._settings.api_key:
            error = error.replace(self._settings.api_key, "[API key]")  # servers repeat a wrong key
        record.error = error[: ERROR_CHARACTERS + 100]


def _check_endpoint(endpoint: str) -> str:
    try:
        url = urlsplit(endpoint)
        is_http = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_http = False
    if not is_http:
        raise InputError(f"endpoints: {endpoint!r} is no URL such as http://localhost:8000")
    if url.username is not None or url.password is not None:
        raise InputError("endpoints: a URL must hold no login; give the API key in its environment variable")
    if url.query or url.fragment:
        raise InputError(f"endpoints: {endpoint} must end with its path")
    return endpoint.rstrip("/")


def _open_transport(settings: ClientSettings, endpoints: Sequence[str]) -> Transport:
    # aiohttp takes 11 MB: a worker that does not use it does not load it.
    if settings.transport == "aiohttp":
        from inference_energy.acquire.load.http.transport_aiohttp import GeneralTransport

        return GeneralTransport(settings, endpoints)
    from inference_energy.acquire.load.http.transport_httptools import PlainTransport

    return PlainTransport(settings, endpoints)
