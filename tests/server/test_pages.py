"""Pages of a server: what may answer, how much of it is read, and in which words it fails."""

import asyncio
import gzip
import json
import resource
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.load.certificates import self_signed
from tests.load.counted_server import serving

from inference_energy.acquire.server.attach import attach
from inference_energy.acquire.server.metrics import MetricsPoller
from inference_energy.acquire.server.pages import Access, PageError, ServerPages
from inference_energy.config.load.client import ClientConfig
from inference_energy.errors import InputError

KEY = "sesame-4711"
MODELS = b'{"object": "list", "data": [{"id": "m"}]}'
Answers = dict[str, bytes | Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]]


def page(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@asynccontextmanager
async def answering(answers: Answers) -> AsyncIterator[str]:
    """A server whose every byte is given, by path; 404 for the others. It closes after each answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            answer = answers.get(head.split()[1].decode(), page(b"", "404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def attached(answers: Answers, model: str | None = "m", **access: Any) -> Any:
    async def ask() -> Any:
        async with answering(answers) as url:
            return await attach("", url, model, Access(**access))

    return asyncio.run(ask())


def refused(answers: Answers, **access: Any) -> str:
    with pytest.raises(InputError) as error:
        attached(answers, **access)
    return str(error.value)


def repeating(part: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Callable[..., Any]:
    """Answer with the same part until nobody reads any more."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(100_000):
            writer.write(part)
            await writer.drain()

    return answer


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "299 Fine"])
def test_every_success_is_healthy(status: str) -> None:
    assert attached({"/v1/models": page(MODELS), "/health": page(b"", status)}).model == "m"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 429, 501])
def test_health_that_cannot_be_asked_says_nothing(status: int) -> None:
    assert attached({"/v1/models": page(MODELS), "/health": page(b"", f"{status} X")}).model == "m"


def test_health_elsewhere_is_not_asked_there() -> None:
    elsewhere = page(b"", "302 Found", "Location: http://127.0.0.1:9/login")
    assert "another server" in refused({"/v1/models": page(MODELS), "/health": elsewhere})


@pytest.mark.parametrize(("status", "words"), [("500 X", "Internal Server Error"), ("503 X", "Service Unavailable")])
def test_an_unhealthy_server_is_named_with_its_own_words(status: str, words: str) -> None:
    told = page(b'{"error": "the engine\n is\x07 dead"}', status)
    message = refused({"/v1/models": page(MODELS), "/health": told})
    assert f"not healthy (it answers with status {status[:3]} ({words}): " in message
    assert '"the engine is\ufffd dead"' in message


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: Answers = {
    "body": repeating(b"x" * 100_000),
    "chunks": repeating(
        b"186a0\r\n" + b"x" * 100_000 + b"\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "bomb": page(gzip.compress(bytes(100_000_000)), "200 OK", "Content-Encoding: gzip"),
    "header": repeating(b"x" * 100_000, b"HTTP/1.1 200 OK\r\nX-Long: "),
    "headers": repeating(b"X-A: b\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"),
    "status": repeating(b"x" * 100_000, b"HTTP/1.1 200 "),
}


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/version", "/metrics"])
def test_an_endless_page_is_left_at_its_bound(kind: str, path: str) -> None:
    async def ask() -> None:
        async with answering({path: ENDLESS[kind]}) as url, ServerPages(url, Access(**limits)) as pages:
            with pytest.raises(PageError) as error:
                await pages.get(path)
            assert len(str(error.value)) < 200

    limits = {"max_page_bytes": 2**20, "timeout_s": 2.0}
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(ask())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


LISTS = (
    b"",
    b"[]",
    b"null",
    b'{"data": 5}',
    b'{"data": [5]}',
    b'{"data": [{"id": 5}]}',
    b'{"data": [{"id": ""}]}',
    b'{"data": [{"id": "%s"}]}' % (b"m" * 5000),
    b'{"data": %s}' % json.dumps([{"id": "m"}] * 20_000).encode(),
    b'{"data": [{"id": "m", "n": NaN}]}',
    b"[" * 100_000,
    b'{"a":' * 10_000,
    b"\xff\xfe",
    b"9" * 10_000,
    b"<html>",
)


@pytest.mark.parametrize("body", LISTS, ids=range(len(LISTS)))
def test_a_list_of_models_that_is_none_is_refused_in_a_sentence(body: bytes) -> None:
    message = refused({"/v1/models": page(body)})
    assert message.startswith("endpoint: no usable answer from http://127.0.0.1:")
    assert len(message) < 400


@pytest.mark.parametrize(
    "body", [*LISTS, b'{"version": {}}', b'{"version": 1e999}', b'{"version": "%s"}' % (b"1" * 9000)]
)
def test_a_version_that_is_none_is_not_known(body: bytes) -> None:
    version = attached({"/v1/models": page(MODELS), "/version": page(body)}).version
    assert version is None or len(version) <= 100


def test_many_models_are_not_all_shown() -> None:
    many = json.dumps({"data": [{"id": f"a\u202e{number}" * 40} for number in range(500)]}).encode()
    message = refused({"/v1/models": page(many)})
    assert "and 480 more" in message
    assert len(message) < 5000
    assert message.isprintable()


def test_a_packed_page_is_unpacked() -> None:
    packed = page(gzip.compress(MODELS), "200 OK", "Content-Encoding: gzip")
    assert attached({"/v1/models": packed}).models == ("m",)
    assert "is not" in refused({"/v1/models": page(MODELS, "200 OK", "Content-Encoding: gzip")})
    assert "br" in refused({"/v1/models": page(MODELS, "200 OK", "Content-Encoding: br")})


def test_a_redirect_is_followed_on_the_same_server_only() -> None:
    moved = page(b"", "308 Moved", "Location: /api/models")
    assert attached({"/v1/models": moved, "/api/models": page(MODELS)}).model == "m"
    assert "redirected more than" in refused({"/v1/models": page(b"", "302 X", "Location: /v1/models")})
    away = page(b"", "302 X", "Location: http://user:pass@example.org/x?key=k")
    message = refused({"/v1/models": away})
    assert "another server" in message
    assert "pass" not in message


FAILURES = {
    "nobody": ("connection refused; start the server or correct the address", None),
    "closed": ("it closed the connection without an answer", b""),
    "no HTTP": ("no HTTP server", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "cut off": ("cut off", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"),
    "404": (r"has no /v1/models \(status 404\)", page(b"", "404 X")),
    "500": (r"status 500 \(Internal Server Error\): sorry", page(b"sorry", "500 X")),
    "401": ("wants an API key, and none was sent", page(b"", "401 X")),
    "odd status": ("status 799", page(b"", "799 X")),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_has_words_of_its_own(kind: str, free_port: int) -> None:
    words, answer = FAILURES[kind]
    if answer is None:
        with pytest.raises(InputError, match=words) as error:
            asyncio.run(attach("", f"http://127.0.0.1:{free_port}"))
        message = str(error.value)
        assert message.startswith(f"endpoint: nothing answers at http://127.0.0.1:{free_port}: connection refused")
    else:
        message = refused({"/v1/models": answer})
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(message)
    assert not any(internal in message for internal in ("ssl:default", "Errno", "[", "Connect call", "aiohttp"))


def test_a_silent_server_and_an_unknown_name_have_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    assert "no whole answer within 0.1 s" in refused({"/v1/models": wait}, timeout_s=0.1)

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def ask() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        await attach("", "http://no-such-host.invalid:8000")

    with pytest.raises(InputError, match=r"nothing answers at .*: no host of the name no-such-host\.invalid is found"):
        asyncio.run(ask())


def test_failures_of_tls_have_words_too(tmp_path: Path) -> None:
    both, _ = self_signed(tmp_path)
    with serving(certificate=both) as (url, _):
        with pytest.raises(InputError, match=r"certificate is not trusted: self.signed certificate.*client\.ca_file"):
            asyncio.run(attach("", url))
        with pytest.raises(InputError, match="with TLS its address begins with https"):
            asyncio.run(attach("", url.replace("https", "http")))
    with serving() as (url, _), pytest.raises(InputError, match="without TLS its address begins with http://"):
        asyncio.run(attach("", url.replace("http", "https")))


def test_a_key_that_the_server_echoes_is_in_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    echo = f"refused: {KEY}".encode()
    healthy: Answers = {"/v1/models": page(MODELS)}
    named = json.dumps({"data": [{"id": KEY}, {"id": "m"}], "version": f"1 {KEY}"}).encode()
    messages = [
        refused({"/v1/models": page(echo, "500 X")}, key_env="MY_KEY"),
        refused({"/v1/models": page(b"", "302 X", f"Location: http://other/{KEY}")}, key_env="MY_KEY"),
        refused({**healthy, "/health": page(echo, "503 X")}, key_env="MY_KEY"),
        refused({"/v1/models": page(named.replace(b'"m"', b'"x"'))}, key_env="MY_KEY"),
        repr(attached({"/v1/models": page(named), "/version": page(named)}, key_env="MY_KEY")),
    ]
    for message in messages:
        assert KEY not in message
        assert "[API key]" in message


def test_a_key_in_metrics_reaches_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    lines = f'vllm:a{{key="{KEY}"}} 1\n'.encode()

    async def scrape(body: bytes, log: Path) -> MetricsPoller:
        async with answering({"/metrics": body}) as url:
            poller = MetricsPoller(url, log=log, access=Access("MY_KEY"))
            await poller.scrape_now()
            await poller.stop()
            return poller

    poller = asyncio.run(scrape(page(lines), tmp_path / "a.arrows"))
    assert poller.errors == 0
    assert KEY.encode() not in (tmp_path / "a.arrows").read_bytes()
    for body in (page(KEY.encode(), "500 X"), page(f"vllm:a {KEY}\n".encode())):
        poller = asyncio.run(scrape(body, tmp_path / "b.arrows"))
        assert poller.errors == 1
        assert KEY not in str(poller.last_error)


@pytest.mark.parametrize("key", ["two words", "line\n", "tab\t", "ä", " "])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match=r"client\.api_key_env: the environment variable MY_KEY") as error:
        Access.from_config(ClientConfig(api_key_env="MY_KEY"), attached=True)
    assert key.strip() == "" or key not in str(error.value)
