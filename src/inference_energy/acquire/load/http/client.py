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
from inference_energy.acquire.load.http.transport import RedirectError, Transport
from inference_energy.contracts.endpoint_url import checked_endpoint, redirect_target, shown_location
from inference_energy.contracts.load_client import ClientSettings, WorkloadSettings
from inference_energy.contracts.outside import MIB, clean_text
from inference_energy.contracts.redaction import Redaction
from inference_energy.contracts.requests import RequestRecord
from inference_energy.errors import InputError

CUT_OFF = "cut off before its end"

KEPT_METHOD = (307, 308)
"""Redirects after which a POST stays one."""

MAX_REDIRECTS = 5

TEMPLATE_TOKENS = 2**20
"""A prompt has at most a token for each byte of the request, and these for the server's template and for pictures that
the request only names; with more, the server's count cannot be."""


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
        self._hide = Redaction([settings.api_key])
        self._paths: dict[tuple[str, str], str] = {}  # where requests are answered, by endpoint and usual path
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
            max_bytes=self._settings.max_answer_mib * MIB,
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
            if record.prompt_tokens is not None and record.prompt_tokens > len(body) + TEMPLATE_TOKENS:
                record.prompt_tokens = record.cached_tokens = None
            text = answer.text
            if record.finish_reason is not None:
                record.finish_reason = self._hide(record.finish_reason)
            if text is not None:
                text = self._hide(text)
            self._observer.ended(record, text)
        return RequestResult(record, text)

    def _endpoint_for(self, request: PlannedRequest) -> str:
        number = request.conversation
        return next(self._targets) if number is None else self._endpoints[number % len(self._endpoints)]

    async def _exchange(self, endpoint: str, path: str, body: bytes, answer: SseAnswer, record: RequestRecord) -> None:
        transport = self._transport
        if transport is None:
            raise RuntimeError("the load client was not entered")
        usual = urlsplit(endpoint).path + path
        target = self._paths.get((endpoint, path), usual)
        visited = [target]
        fresh = False
        async with asyncio.timeout(self._settings.request_timeout_s):
            while True:
                record.attempts += 1
                record.sent_ns = time.monotonic_ns()
                if record.attempts == 1:
                    self._observer.sent(record)
                try:
                    await transport.exchange(endpoint, target, body, answer, fresh=fresh)
                    break
                except RedirectError as redirect:
                    answer.begun = False
                    record.status_code = redirect.status_code
                    target = self._redirected(endpoint, redirect, visited)
                    fresh = False
                except ExchangeError as error:
                    if not error.stale or fresh:
                        raise
                    fresh = True
        if target != usual:
            self._paths[endpoint, path] = target  # later requests go there at once, so that no hop is in their times

    def _redirected(self, endpoint: str, redirect: RedirectError, visited: list[str]) -> str:
        """Return the path to which a redirect leads; note it in `visited`.

        Raises:
            ExchangeError: it must not be followed.
        """
        status = f"status {redirect.status_code}"
        url = urlsplit(endpoint)._replace(path=visited[-1], query="").geturl()
        try:
            target = urlsplit(redirect_target(url, redirect.location, self._hide))
        except ValueError as error:
            raise ExchangeError(f"{status}: {error}") from None
        shown = shown_location(redirect.location, self._hide)
        if redirect.status_code not in KEPT_METHOD:
            raise ExchangeError(f"{status}: redirected to {shown}, where a POST would become a GET")
        path = target._replace(scheme="", netloc="").geturl() or "/"
        if path in visited or len(visited) > MAX_REDIRECTS:
            raise ExchangeError(f"{status}: redirected to {shown}, in a circle or more than {MAX_REDIRECTS} times")
        visited.append(path)
        return path

    def _fail(self, record: RequestRecord, error: str) -> None:
        record.status = "failed"
        # Servers repeat a wrong key, and a header may hold bytes that are no text.
        record.error = clean_text(self._hide(error))[: ERROR_CHARACTERS + 100]


def _check_endpoint(endpoint: str) -> str:
    try:
        return checked_endpoint(endpoint)
    except ValueError as error:
        raise InputError(f"endpoints: {error}") from error


def _open_transport(settings: ClientSettings, endpoints: Sequence[str]) -> Transport:
    # aiohttp takes 11 MB: a worker that does not use it does not load it.
    if settings.transport == "aiohttp":
        from inference_energy.acquire.load.http.transport_aiohttp import GeneralTransport

        return GeneralTransport(settings, endpoints)
    from inference_energy.acquire.load.http.transport_httptools import PlainTransport

    return PlainTransport(settings, endpoints)
