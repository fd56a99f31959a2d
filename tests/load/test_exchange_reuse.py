"""Connections are used again, and never cost a request when the server closes them."""

import asyncio
import time

import pytest
from exchange_server import (
    DONE,
    GOOD,
    GOOD_ANSWER,
    HEAD,
    LAST_CHUNK,
    Exchange,
    chunk,
    client_of,
    event,
    good,
    send,
    serving,
    then_closes,
    whole,
)

from inference_energy.acquire.load.http.transport_httptools import Pool

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("transport", ["plain", "aiohttp"])


@both
def test_one_after_another_on_one_connection(transport: str) -> None:
    async def run() -> None:
        async with serving(good) as server, client_of(server.url, transport=transport) as client:
            records = [(await send(client, number)).record for number in range(20)]
        assert {record.status for record in records} == {"ok"}
        assert server.connections == 1

    asyncio.run(run())


@both
def test_after_an_error_with_a_whole_answer_too(transport: str) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number % 2:
            await good(exchange)
        else:
            lost = event({"error": {"message": "lost"}}) + DONE
            await exchange.write(HEAD + chunk(lost) + LAST_CHUNK if exchange.number else whole("503 Busy", b"busy"))

    async def run() -> None:
        async with serving(script) as server, client_of(server.url, transport=transport) as client:
            records = [(await send(client, number)).record for number in range(4)]
        assert [record.error for record in records] == ["status 503: busy", None, "lost", None]
        assert server.connections <= 3

    asyncio.run(run())


@both
def test_closed_just_as_it_is_used_again(transport: str) -> None:
    """The server takes the request and closes without a word: it is sent again, on a new connection."""

    async def script(exchange: Exchange) -> None:
        if exchange.number % 2 == 0:
            await good(exchange)
        elif exchange.connection == 0:
            exchange.reset() if exchange.number == 1 else exchange.writer.close()
        else:
            await good(exchange)

    async def run() -> None:
        async with serving(script) as server, client_of(server.url, transport=transport) as client:
            before = (await send(client, 0)).record
            again = (await send(client, 1)).record
        assert (before.attempts, again.attempts) == (1, 2)
        assert (again.status, again.completion_tokens) == ("ok", 2)
        assert [exchange.connection for exchange in server.exchanges] == [0, 0, 1]

    asyncio.run(run())


@both
def test_a_second_attempt_is_the_last(transport: str) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number:
            exchange.reset()
        else:
            await good(exchange)

    async def run() -> None:
        async with serving(script) as server, client_of(server.url, transport=transport) as client:
            await send(client, 0)
            record = (await send(client, 1)).record
        assert (record.status, record.attempts) == ("failed", 2)
        assert record.error == "the server closed the connection without an answer"
        assert len(server.exchanges) == 3

    asyncio.run(run())


@both
def test_many_requests_against_a_server_that_closes_idle_connections(transport: str) -> None:
    """Pauses around the server's idle time, so that many connections close as they are about to be used."""

    async def run() -> None:
        async with serving(good, idle_s=0.02) as server, client_of(server.url, transport=transport) as client:
            records = []
            for number in range(60):
                records.append((await send(client, number)).record)
                await asyncio.sleep(0.0185 + 0.00005 * number)
        assert [record.error for record in records] == [None] * 60
        assert 1 < server.connections <= 60

    asyncio.run(run())


@both
def test_idle_connections_are_given_up_before_the_server_does(transport: str) -> None:
    async def run() -> None:
        async with serving(good) as server:
            async with client_of(server.url, transport=transport, keep_alive_s=0.8) as client:
                for pause_s in (0.0, 1.6, 0.0):
                    record = (await send(client)).record
                    assert (record.status, record.attempts) == ("ok", 1)
                    await asyncio.sleep(pause_s)
            assert server.connections == 2

    asyncio.run(run())


@both
def test_a_server_that_closes_each_time(transport: str) -> None:
    closing = HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + chunk(GOOD) + LAST_CHUNK

    async def run() -> None:
        async with serving(then_closes(closing)) as server, client_of(server.url, transport=transport) as client:
            records = [(await send(client, number)).record for number in range(5)]
        assert [(record.status, record.attempts) for record in records] == [("ok", 1)] * 5
        assert server.connections == 5

    asyncio.run(run())


def test_parting_words_on_an_idle_connection() -> None:
    """Some proxies send 408 before they close: that is no answer to the next request."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(GOOD_ANSWER, pause_s=0.05)
        await exchange.write(whole("408 Request Timeout", b""))

    async def run() -> None:
        async with serving(script) as server, client_of(server.url) as client:
            first = (await send(client, 0)).record
            await asyncio.sleep(0.2)
            second = (await send(client, 1)).record
        assert [first.status, second.status] == ["ok", "ok"]
        assert server.connections == 2

    asyncio.run(run())


@both
def test_leaving_closes_every_connection(transport: str) -> None:
    async def run() -> None:
        async with serving(good) as server:
            async with client_of(server.url, transport=transport) as client:
                await asyncio.gather(*[send(client, number) for number in range(5)])
            deadline = time.monotonic() + 10
            while server.gone < server.connections and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert server.gone == server.connections

    asyncio.run(run())


class Wire:
    def __init__(self) -> None:
        self.is_open = True

    def abort(self) -> None:
        self.is_open = False


def test_the_pool_gives_the_last_one_that_is_open() -> None:
    pool: Pool[Wire] = Pool(60.0)
    wires = [Wire() for _ in range(3)]
    for wire in wires:
        pool.put(wire)
    wires[2].abort()
    assert [pool.take(), pool.take(), pool.take()] == [wires[1], wires[0], None]


def test_the_pool_closes_what_was_idle_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    pool: Pool[Wire] = Pool(0.02)
    old, new = Wire(), Wire()
    pool.put(old)
    now_ns += 30_000_000
    pool.put(new)
    assert pool.take() is new
    assert not old.is_open
    pool.put(new)
    pool.close()
    assert not new.is_open
