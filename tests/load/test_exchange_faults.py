"""Every way in which a request can go wrong ends as a record that says so."""

import asyncio
import contextlib
import socket
import time

import pytest
from exchange_server import (
    DONE,
    GOOD,
    GOOD_ANSWER,
    HEAD,
    LAST_CHUNK,
    Exchange,
    Script,
    Seen,
    chunk,
    client_of,
    event,
    good,
    one,
    says,
    send,
    serving,
    then_closes,
    token,
    usage_event,
    whole,
)
from tests.conftest import unused_port

from inference_energy.acquire.load.http.request import RequestRecord, WorkloadSettings

both = pytest.mark.parametrize("transport", ["plain", "aiohttp"])

CLOSED = "the server closed the connection before the answer was complete"
NO_ANSWER = "the server closed the connection without an answer"


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def resets_within(exchange: Exchange) -> None:
    await exchange.write(HEAD + chunk(token("a")), pause_s=0.05)
    exchange.reset()


@both
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (says(whole("500 Internal Server Error", b'{"error": {"message": "broken"}}')), "status 500: {"),
        (says(whole("404 Not Found", b"The model `m` does not exist.")), "status 404: The model `m` does"),
        (says(whole("307 Temporary Redirect", b"", "location: http://127.0.0.1:1/")), "status 307: "),
        (says(HEAD + chunk(token("a") + event({"error": {"message": "lost"}}) + DONE) + LAST_CHUNK), "lost"),
        (says(HEAD + chunk(token("a") + DONE) + LAST_CHUNK), "the answer ended without a finish_reason"),
        (says(HEAD + chunk(b"data: {]\n\n" + GOOD) + LAST_CHUNK), "an event is not JSON: {]"),
        (says(HEAD + chunk(b"What do you want?") + LAST_CHUNK), "the answer holds no event: What do"),
        (says(HEAD + LAST_CHUNK), "the answer holds no event"),
        (then_closes(HEAD + chunk(token("a"))), CLOSED),
        (then_closes(HEAD + chunk(GOOD)), CLOSED),
        (then_closes(HEAD[:30]), None),
        (then_closes(), NO_ANSWER),
        (resets, NO_ANSWER),
        (resets_within, CLOSED),
        (then_closes(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n"), "what the server sent is not HTTP: "),
        (then_closes(HEAD + b"zz\r\nnonsense"), None),
        (then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n"), "what the server sent is not HTTP: "),
    ],
)
def test_what_a_server_can_do_wrong(script: object, error: str | None, transport: str) -> None:
    record = one(script, transport)  # type: ignore[arg-type]
    assert record.status == "failed"
    assert record.error
    assert record.error.startswith(error or "")
    assert record.attempts == 1
    assert record.sent_ns and record.end_ns and record.sent_ns <= record.end_ns


@both
def test_what_came_before_a_failure_is_kept(transport: str) -> None:
    usage = usage_event({"prompt_tokens": 3, "completion_tokens": 1})
    record = one(then_closes(HEAD + chunk(token("a") + usage)), transport)
    assert (record.status, record.error, record.status_code) == ("failed", CLOSED, 200)
    assert record.first_token_ns and record.last_token_ns
    assert (record.prompt_tokens, record.completion_tokens) == (3, 1)


@both
def test_nobody_listens(transport: str) -> None:
    async def run() -> RequestRecord:
        async with client_of(f"http://127.0.0.1:{unused_port()}", transport=transport) as client:
            return (await send(client)).record

    record = asyncio.run(run())
    assert record.status == "failed"
    assert record.error and record.error.startswith("no connection to 127.0.0.1:")
    assert record.error.endswith("Connection refused")
    assert record.attempts == 1


@both
def test_a_name_that_is_none(transport: str) -> None:
    async def run() -> RequestRecord:
        async with client_of("http://no-such-host.invalid:8000", transport=transport) as client:
            return (await send(client)).record

    record = asyncio.run(run())
    assert record.status == "failed"
    assert record.error and record.error.startswith("no connection to no-such-host.invalid:8000: ")


@both
def test_a_name_with_addresses(transport: str) -> None:
    async def run() -> list[RequestRecord]:
        async with serving(good) as server:
            url = server.url.replace("127.0.0.1", "localhost")
            async with client_of(url, transport=transport) as client:
                return [outcome.record for outcome in await asyncio.gather(*[send(client, n) for n in range(3)])]

    assert [record.error for record in asyncio.run(run())] == [None] * 3


@both
def test_a_connection_that_takes_too_long(transport: str) -> None:
    """The server's queue of connections is full and stays so: the kernel answers no more."""

    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        host, port = listening.getsockname()
        for _ in range(4):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex((host, port))

        async def run() -> RequestRecord:
            async with client_of(f"http://{host}:{port}", transport=transport, connect_timeout_s=0.3) as client:
                return (await send(client)).record

        record = asyncio.run(run())
    assert record.status == "failed"
    assert record.error and record.error.startswith("no connection to 127.0.0.1:")
    assert record.error.endswith("within 0.3 s")


@both
def test_a_request_that_takes_too_long_is_closed(transport: str) -> None:
    gone = asyncio.Event()

    async def stalls(exchange: Exchange) -> None:
        await exchange.write(HEAD + chunk(token("a")))
        assert await exchange.peer_is_gone()
        gone.set()

    async def run() -> RequestRecord:
        limit = {"request_timeout_s": 0.3}
        async with serving(stalls) as server, client_of(server.url, transport=transport, **limit) as client:
            record = (await send(client)).record
            await asyncio.wait_for(gone.wait(), 10)
        return record

    record = asyncio.run(run())
    assert (record.status, record.error) == ("failed", "no end within 0.3 s")
    assert record.first_token_ns


@both
@pytest.mark.parametrize("answered", [False, True])
def test_a_cancelled_request_is_closed_and_recorded(transport: str, answered: bool) -> None:
    gone = asyncio.Event()

    async def stalls(exchange: Exchange) -> None:
        if answered:
            await exchange.write(HEAD + chunk(token("a")))
        assert await exchange.peer_is_gone()
        gone.set()

    async def run() -> None:
        seen = Seen()
        async with serving(stalls) as server, client_of(server.url, transport=transport, seen=seen) as client:
            task = asyncio.create_task(send(client, 0, WorkloadSettings(keep_answers=True)))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (record, text) = seen.ended_with[0]
            await asyncio.wait_for(gone.wait(), 10)
        assert (record.status, record.error) == ("aborted", "cut off before its end")
        assert (record.first_token_ns is not None) == answered
        assert text == ("a" if answered else "")
        assert record.end_ns and record.sent_ns and record.end_ns <= time.monotonic_ns()

    asyncio.run(run())


def test_a_request_cancelled_before_it_was_sent() -> None:
    async def run() -> None:
        seen = Seen()

        async def stalls(exchange: Exchange) -> None:
            await exchange.peer_is_gone()

        async with serving(stalls) as server, client_of(server.url, seen=seen, connections=1) as client:
            tasks = [asyncio.create_task(send(client, number)) for number in range(2)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        waiting = next(record for record, _ in seen.ended_with if record.request_id == 1)
        assert (waiting.status, waiting.sent_ns, waiting.attempts) == ("aborted", None, 0)
        assert ("sent", 1) not in seen.calls

    asyncio.run(run())


@both
def test_an_observer_that_fails_costs_one_request(transport: str) -> None:
    class Broken(Seen):
        def first_token(self, record: RequestRecord) -> None:
            raise RuntimeError("broken")

    async def run() -> RequestRecord:
        async with serving(good) as server, client_of(server.url, transport=transport, seen=Broken()) as client:
            return (await send(client)).record

    record = asyncio.run(run())
    assert record.status == "failed"
    assert record.error == "RuntimeError: broken"


def test_more_than_was_asked_for_closes_the_connection() -> None:
    """Two answers to one request: the first counts, and the connection is not used again."""

    async def run() -> None:
        async with serving(says(GOOD_ANSWER + GOOD_ANSWER)) as server, client_of(server.url) as client:
            records = [(await send(client, number)).record for number in range(2)]
        assert [(record.status, record.completion_tokens) for record in records] == [("ok", 2)] * 2
        assert server.connections == 2

    asyncio.run(run())


async def never_ends_a_header(exchange: Exchange) -> None:
    with contextlib.suppress(ConnectionError):
        await exchange.write(b"HTTP/1.1 200 OK\r\nx: ", *[b"h" * 2**16] * 1000)


async def never_ends_a_line(exchange: Exchange) -> None:
    with contextlib.suppress(ConnectionError):
        await exchange.write(HEAD, *[chunk(b"x" * 2**16)] * 1000)


@both
@pytest.mark.parametrize(
    ("script", "errors"),
    [
        (never_ends_a_header, ("the server sent more than 1 MiB of headers", "what the server sent is not HTTP")),
        (never_ends_a_line, ("the answer is larger than the client's limit of 2 MiB an answer",)),
    ],
)
def test_what_has_no_end_fails_early_and_the_connection_is_closed(
    script: Script, errors: tuple[str, ...], transport: str
) -> None:
    record = one(script, transport, max_answer_mib=2)
    assert record.status == "failed"
    assert record.error and record.error.startswith(errors)
