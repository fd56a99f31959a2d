"""A redirect of a POST: followed on the same server, where later requests go at once, or refused by name."""

import asyncio

import pytest
from exchange_server import (
    DONE,
    GOOD_ANSWER,
    HEAD,
    LAST_CHUNK,
    Exchange,
    chunk,
    client_of,
    one,
    says,
    send,
    serving,
    token,
    usage_event,
    whole,
)

from inference_energy.acquire.load.http.request import RequestRecord, WorkloadSettings
from inference_energy.contracts.redaction import Redaction

both = pytest.mark.parametrize("transport", ["plain", "aiohttp"])
KEY = "sesame-4711-open"


def redirect(location: str, status: str = "307 Temporary Redirect") -> bytes:
    return whole(status, b"elsewhere", f"location: {location}")


async def paths_asked(transport: str, locations: dict[str, str], status: str, count: int = 1):  # type: ignore[no-untyped-def]
    async def script(exchange: Exchange) -> None:
        path = exchange.head.split()[1]
        to = locations.get(path)
        await exchange.write(GOOD_ANSWER if to is None else redirect(to, status))

    records = []
    async with serving(script) as server:
        locations.update({path: to.replace("HERE", server.url) for path, to in locations.items()})
        async with client_of(server.url, transport=transport) as client:
            for number in range(count):
                records.append((await send(client, number)).record)
    return records, [exchange.head.split()[1] for exchange in server.exchanges]


@both
@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
@pytest.mark.parametrize("location", ["/v1/completions/", "HERE/v1/completions/", "completions/"])
def test_the_same_server_is_followed_and_then_asked_at_once(transport: str, status: str, location: str) -> None:
    records, asked = asyncio.run(paths_asked(transport, {"/v1/completions": location}, status, 3))
    assert [(record.status, record.error, record.status_code) for record in records] == [("ok", None, 200)] * 3
    there = "/v1/completions/"
    assert asked == ["/v1/completions", there, there, there]
    assert [record.attempts for record in records] == [2, 1, 1]


@both
def test_the_time_of_the_first_hop_is_not_the_requests(transport: str) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 0:
            await asyncio.sleep(0.3)
            await exchange.write(redirect("/new?a=b"))
        else:
            assert exchange.head.split()[1] == "/new?a=b"
            await exchange.write(GOOD_ANSWER)

    record = one(script, transport)
    assert record.status == "ok"
    assert record.sent_ns and record.first_token_ns
    assert record.sent_ns - record.scheduled_ns >= 0.3e9


@both
@pytest.mark.parametrize(
    ("locations", "error"),
    [
        ({"/v1/completions": "/v1/completions"}, "status 307: redirected to /v1/completions, in a circle"),
        ({"/v1/completions": "/a", "/a": "/v1/completions"}, "status 307: redirected to /v1/completions, in a circle"),
        (
            {"/v1/completions": "/1", "/1": "/2", "/2": "/3", "/3": "/4", "/4": "/5", "/5": "/6", "/6": "/7"},
            "status 307: redirected to /6, in a circle or more than 5 times",
        ),
    ],
)
def test_a_circle_ends(transport: str, locations: dict[str, str], error: str) -> None:
    records, _ = asyncio.run(paths_asked(transport, locations, "307 Temporary Redirect"))
    assert (records[0].status, records[0].status_code) == ("failed", 307)
    assert records[0].error.startswith(error)


@both
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (redirect("http://other.example:1/v1/completions"), "redirected to http://other.example:1/v1/completions, ano"),
        (redirect("https://127.0.0.1/v1/completions"), "redirected to https://127.0.0.1/v1/completions, another serv"),
        (redirect("//other.example/x"), "redirected to //other.example/x, another server"),
        (redirect("http://me:secret@other.example/x"), "redirected to http://(login)@other.example/x, another server"),
        (redirect("http://[::1/x"), "redirected to 'http://[::1/x', which is no URL"),
        (redirect("http://h:99999/x"), "redirected to 'http://h:99999/x', which is no URL"),
        (redirect("/a b"), "redirected to '/a b', which is no URL"),
        (redirect("/new", "301 Moved Permanently"), "redirected to /new, where a POST would become a GET"),
        (redirect("/new", "302 Found"), "redirected to /new, where a POST would become a GET"),
        (redirect("/new", "303 See Other"), "redirected to /new, where a POST would become a GET"),
        (whole("307 Temporary Redirect", b"nowhere"), "nowhere"),
        (whole("304 Not Modified", b""), ""),
    ],
)
def test_other_redirects_are_refused_by_name(answer: bytes, error: str, transport: str) -> None:
    record = one(says(answer), transport)
    assert record.status == "failed"
    assert record.error and record.error.startswith(f"status {record.status_code}: {error}")
    assert "secret" not in record.error


@both
@pytest.mark.parametrize(
    "answer",
    [
        redirect(f"http://other.example/?key={KEY}"),
        redirect(f"http://other.example/{'x' * 165}?key={KEY}"),
        whole("401 Unauthorized", f"wrong key: {KEY}".encode()),
        whole("401 Unauthorized", b"x" * 490 + KEY.encode()),
        whole("400 Bad Request", b'{"header": "Bearer ' + KEY.encode() + b'"}'),
    ],
)
def test_a_key_that_is_sent_back_is_in_no_record(answer: bytes, transport: str) -> None:
    record = one(says(answer), transport, api_key=KEY)
    assert record.error
    assert KEY[:4] not in record.error
    assert "[API key" in record.error


@both
def test_a_finish_reason_and_a_text_hold_no_key(transport: str) -> None:
    answer = HEAD + chunk(token(f"you sent {KEY}") + token("b", f"stop:{KEY}") + usage_event() + DONE) + LAST_CHUNK

    async def run() -> tuple[RequestRecord, str | None]:
        async with (
            serving(says(answer)) as server,
            client_of(server.url, transport=transport, api_key=KEY) as client,
        ):
            result = await send(client, 0, WorkloadSettings(keep_answers=True))
            return result.record, result.text

    record, text = asyncio.run(run())
    assert KEY not in f"{record.finish_reason} {text} {record.error}"
    assert text == "you sent [API key]b"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("a/b+c=d", "key=a%2Fb%2Bc%3Dd", "key=[API key]"),
        ('q"uote<', 'q\\"uote< q&quot;uote&lt;', "[API key] [API key]"),
        ("schlüssel", "schl\\u00fcssel", "[API key]"),
        ("EMPTY", "the list is EMPTY", "the list is EMPTY"),
        ("abc", "abc", "abc"),
        ("abcdefgh", "cut off: abcde", "cut off: [API key]"),
        ("abcdefgh", "cut off: abc", "cut off: abc"),
    ],
)
def test_every_usual_form_of_a_secret_is_replaced(secret: str, text: str, shown: str) -> None:
    assert Redaction([secret, None, ""])(text) == shown
