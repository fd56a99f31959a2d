"""Requests and answers over a real connection, with each transport."""

import asyncio
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from certificates import self_signed
from exchange_server import (
    COMPLETIONS,
    DONE,
    GOOD,
    GOOD_ANSWER,
    HEAD,
    LAST_CHUNK,
    Exchange,
    Seen,
    chunk,
    client_of,
    good,
    one,
    planned,
    says,
    send,
    serving,
    token,
    usage_event,
    whole,
)

from inference_energy.acquire.load.http.client import LoadClient
from inference_energy.acquire.load.http.request import (
    ClientSettings,
    PlannedRequest,
    RequestRecord,
    WorkloadSettings,
    prompt_fragment,
)
from inference_energy.errors import InputError

both = pytest.mark.parametrize("transport", ["plain", "aiohttp"])


@both
def test_a_stream(transport: str) -> None:
    async def run() -> None:
        seen = Seen()
        before_ns = time.monotonic_ns()
        async with serving(good) as server, client_of(server.url, transport=transport, seen=seen) as client:
            outcome = await send(client, 5, user=3)
        record = outcome.record
        assert (record.status, record.error, record.finish_reason) == ("ok", None, "length")
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (3, 2, 1)
        assert (record.endpoint, record.status_code, record.attempts) == (server.url, 200, 1)
        assert (record.request_id, record.prompt_id, record.user) == (5, 105, 3)
        assert record.sent_ns and record.first_token_ns and record.last_token_ns and record.end_ns
        times = [before_ns, record.scheduled_ns, record.sent_ns, record.first_token_ns, record.last_token_ns]
        times += [record.end_ns, time.monotonic_ns()]
        assert times == sorted(times)
        assert outcome.text is None
        assert seen.calls == [("sent", 5), ("first_token", 5), ("ended", 5)]
        assert seen.ended_with == [(record, None)]
        request = server.exchanges[0]
        assert request.head.startswith("POST /v1/completions HTTP/1.1\r\n")
        assert f"\r\nhost: {server.url[7:]}\r\n" in request.head.lower()
        assert "authorization" not in request.head.lower()
        assert request.body["prompt"] == 'Say "hello"\n'

    asyncio.run(run())


@both
@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_token_times_are_those_of_arrivals(transport: str, loop: object) -> None:
    """The role and the usage come at other times than the tokens, and half an event is none."""
    half, rest = token("b", "length")[:20], token("b", "length")[20:]
    role = chunk(b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n')
    pieces = [HEAD, role, chunk(token("a")), chunk(half), chunk(rest), chunk(usage_event() + DONE), LAST_CHUNK]

    async def run() -> None:
        seen = Seen()
        workload = WorkloadSettings(chunk_times=True, keep_answers=True)
        script = says(*pieces, pause_s=0.05)
        async with serving(script) as server, client_of(server.url, transport=transport, seen=seen) as client:
            outcome = await send(client, 0, workload)
        record = outcome.record
        assert outcome.text == "ab"
        assert record.sent_ns and record.first_token_ns and record.last_token_ns and record.end_ns
        assert record.first_token_ns - record.sent_ns > 80e6
        assert record.last_token_ns - record.first_token_ns > 80e6
        assert record.end_ns - record.last_token_ns > 80e6
        assert [events for _, events, _ in seen.chunks] == [1, 1]
        assert [when_ns for when_ns, _, _ in seen.chunks] == [record.first_token_ns, record.last_token_ns]

    loop(run())  # type: ignore[operator]


@both
def test_chat_without_a_stream(transport: str) -> None:
    answer = whole(
        "200 OK",
        b'{"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],'
        b'"usage": {"prompt_tokens": 9, "completion_tokens": 4}}',
        "content-type: application/json",
    )

    async def run() -> None:
        workload = WorkloadSettings(api="chat", stream=False)
        async with serving(says(answer)) as server, client_of(server.url, transport=transport) as client:
            outcome = await send(client, 0, workload, conversation=4, turn=1)
            await client.send(planned(1, "chat"), workload, 0, 0, history=prompt_fragment("chat", text="before"))
        record = outcome.record
        assert (record.status, record.first_token_ns, record.last_token_ns) == ("ok", None, None)
        assert (record.prompt_tokens, record.completion_tokens) == (9, 4)
        assert (record.conversation, record.turn) == (4, 1)
        assert outcome.text == "hi"  # the next turn needs it
        assert server.exchanges[0].head.startswith("POST /v1/chat/completions ")
        assert [message["content"] for message in server.exchanges[1].body["messages"]] == ["before", 'Say "hello"\n']

    asyncio.run(run())


@both
def test_endpoints_take_turns_and_may_have_a_path(transport: str) -> None:
    async def run() -> None:
        async with serving(good) as one_server, serving(good) as other:
            async with client_of(one_server.url, f"{other.url}/llm/", transport=transport) as client:
                records = [(await send(client, number)).record for number in range(5)]
            assert [record.endpoint for record in records[:2]] == [one_server.url, f"{other.url}/llm"]
            assert (len(one_server.exchanges), len(other.exchanges)) == (3, 2)
            assert other.exchanges[0].head.startswith("POST /llm/v1/completions ")

    asyncio.run(run())


def test_a_conversation_stays_where_it_began() -> None:
    async def run() -> None:
        async with serving(good) as one_server, serving(good) as other, client_of(one_server.url, other.url) as client:
            where: dict[int, set[str]] = {}
            for turn in range(3):
                for number in range(4):
                    request = replace(planned(10 * number + turn), conversation=number, turn=turn)
                    outcome = await client.send(request, COMPLETIONS, 0, 0)
                    where.setdefault(number, set()).add(outcome.record.endpoint)
        assert where == {0: {one_server.url}, 1: {other.url}, 2: {one_server.url}, 3: {other.url}}

    asyncio.run(run())


@both
def test_the_key_is_sent_and_nowhere_shown(transport: str) -> None:
    async def repeats_it(exchange: Exchange) -> None:
        await exchange.write(whole("401 Unauthorized", f"wrong: {exchange.head}".encode()))

    record = one(repeats_it, transport, api_key="sk-secret")
    assert record.status_code == 401
    assert record.error is not None
    assert record.error.lower().count("authorization: bearer [api key]") == 1
    assert "sk-secret" not in repr(record)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(InputError, match="api_key") as error:
        one(good, "plain", api_key=key)
    assert not key or key not in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["localhost:8000", "ftp://a", "http://", "http://a:b:c", "http://user:word@a", "http://a/?q=1"]
)
def test_endpoints_that_cannot_be(endpoint: str) -> None:
    with pytest.raises(InputError, match="endpoints") as error:
        LoadClient([endpoint], "m", ClientSettings(), observer=Seen())
    assert "word" not in str(error.value)


def test_no_endpoint() -> None:
    with pytest.raises(InputError, match="endpoints"):
        LoadClient([], "m", ClientSettings(), observer=Seen())


def test_a_limit_of_connections_makes_requests_wait_unsent() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        await good(exchange)

    async def run() -> list[RequestRecord]:
        async with serving(slow) as server, client_of(server.url, connections=2) as client:
            outcomes = await asyncio.gather(*[send(client, number) for number in range(6)])
        assert server.connections == 2
        return [outcome.record for outcome in outcomes]

    records = asyncio.run(run())
    assert [record.status for record in records] == ["ok"] * 6
    spans = [(record.sent_ns or 0, record.end_ns or 0) for record in records]
    assert all(sum(sent <= begin < end for sent, end in spans) <= 2 for begin, _ in spans)


@both
def test_a_prompt_of_50_000_tokens(transport: str) -> None:
    fragment = prompt_fragment("completions", token_ids=range(100_000, 150_000))

    async def run() -> None:
        async with serving(good) as server, client_of(server.url, transport=transport) as client:
            request = PlannedRequest(0, "cell", 0, fragment, 2)
            outcome = await client.send(request, WorkloadSettings(), 0, 0)
        assert outcome.record.status == "ok"
        assert server.exchanges[0].body["prompt"][-1] == 149_999

    asyncio.run(run())


@both
def test_reads_and_events_of_a_megabyte(transport: str) -> None:
    many = token("word " * 4) * 13_000 + GOOD
    big = token("x" * 2**20) + GOOD
    for body in (many, big):
        assert len(body) > 2**20
        record = one(says(HEAD + chunk(body) + LAST_CHUNK), transport)
        assert (record.status, record.error, record.completion_tokens) == ("ok", None, 2)


@both
def test_tls(transport: str, tmp_path: Path) -> None:
    both_parts, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both_parts)

    async def run() -> None:
        async with serving(good, tls=context) as server:
            for options in ({"ca_file": certificate}, {"verify": False}):
                async with client_of(server.url, transport=transport, **options) as client:
                    records = [(await send(client)).record for _ in range(2)]
                assert [(record.status, record.error) for record in records] == [("ok", None)] * 2
            assert server.connections == 2
            async with client_of(server.url, transport=transport) as client:
                record = (await send(client)).record
            assert record.status == "failed"
            assert record.error and record.error.startswith("no secure connection to 127.0.0.1:")
            assert "self-signed" in record.error

    asyncio.run(run())


def test_a_file_without_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for transport in ("plain", "aiohttp"):
        with pytest.raises(InputError, match="ca_file"):
            asyncio.run(_open("https://127.0.0.1:1", transport, tmp_path / "ca.pem"))


async def _open(endpoint: str, transport: str, ca_file: Path) -> None:
    async with client_of(endpoint, transport=transport, ca_file=ca_file):
        pass


def test_auto_is_plain_with_and_without_tls(tmp_path: Path) -> None:
    both_parts, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both_parts)

    async def run() -> str:
        async with serving(good) as open_server, serving(good, tls=context) as secure:
            settings = {"transport": "auto", "ca_file": certificate}
            async with client_of(open_server.url, secure.url, **settings) as client:
                assert [(await send(client)).record.status for _ in range(2)] == ["ok", "ok"]
                assert (len(open_server.exchanges), len(secure.exchanges)) == (1, 1)
                return type(client._transport).__name__

    assert asyncio.run(run()) == "PlainTransport"


def test_an_interim_answer_is_skipped() -> None:
    assert one(says(b"HTTP/1.1 100 Continue\r\n\r\n", GOOD_ANSWER), "plain").status == "ok"


@both
def test_answers_that_end_with_the_connection(transport: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + GOOD)
        exchange.writer.close()

    record = one(script, transport)
    assert (record.status, record.error, record.completion_tokens) == ("ok", None, 2)
