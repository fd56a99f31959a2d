"""Answers that come packed are unpacked with the same record, or fail with the coding's name."""

import gzip
import zlib

import pytest
from exchange_server import DONE, GOOD, HEAD, LAST_CHUNK, chunk, one, says, then_closes, token, usage_event, whole

from inference_energy.acquire.load.http.content_coding import PIECE_BYTES, unpacker_for

both = pytest.mark.parametrize("transport", ["plain", "aiohttp"])


def packed_with_gzip(data: bytes) -> bytes:
    """Without the time of day, which would be in the tests' names: workers must find the same ones."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def packed(coding: str, body: bytes) -> bytes:
    return whole("200 OK", body, f"content-encoding: {coding}", "content-type: text/event-stream")


HALVES = GOOD[:40], GOOD[40:]


@both
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", packed_with_gzip(GOOD)),
        ("x-gzip", packed_with_gzip(GOOD)),
        ("GZip, identity", packed_with_gzip(GOOD)),
        ("gzip", packed_with_gzip(HALVES[0]) + packed_with_gzip(HALVES[1])),
        ("gzip", packed_with_gzip(GOOD) + bytes(100)),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", raw_deflate(GOOD)),
        ("identity", GOOD),
    ],
)
def test_a_packed_answer_gives_the_same_record(coding: str, body: bytes, transport: str) -> None:
    record = one(says(packed(coding, body)), transport)
    assert (record.status, record.error) == ("ok", None)
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reason) == (3, 2, "length")


@both
def test_identity_is_asked_for(transport: str) -> None:
    heads: list[str] = []

    async def script(exchange) -> None:  # type: ignore[no-untyped-def]
        heads.append(exchange.head.lower())
        await exchange.write(HEAD + chunk(GOOD) + LAST_CHUNK)

    assert one(script, transport).status == "ok"
    assert heads[0].count("\r\naccept-encoding: identity\r\n") == 1


@both
def test_tokens_of_a_packed_stream_have_the_times_of_their_arrival(transport: str) -> None:
    packer = zlib.compressobj(wbits=31)
    head = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    events = token("a"), token("b", "length"), usage_event() + DONE
    pieces = [chunk(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)) for event in events]
    record = one(says(head, *pieces, chunk(packer.flush()) + LAST_CHUNK, pause_s=0.05), transport)
    assert record.status == "ok"
    assert record.first_token_ns and record.last_token_ns
    assert record.last_token_ns > record.first_token_ns


@both
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (packed("br", b"\x0b\x02\x80"), "Content-Encoding: br)"),
        (packed("zstd", b"\x28\xb5\x2f\xfd"), "Content-Encoding: zstd)"),
        (packed("gzip, br", packed_with_gzip(GOOD)), "Content-Encoding: gzip, br)"),
        (packed("gzip", packed_with_gzip(GOOD)[:-12]), "the gzip answer was cut off"),
        (packed("gzip", packed_with_gzip(GOOD)[:5]), "the gzip answer was cut off"),
        (packed("deflate", b"x"), "the deflate answer was cut off"),
        (packed("gzip", packed_with_gzip(GOOD) + b"data: {}\n\n"), "the gzip answer goes on after its end"),
        (packed("deflate", zlib.compress(GOOD) + b"\0"), "the deflate answer goes on after its end"),
        (packed("gzip", GOOD), "the answer says Content-Encoding: gzip, and is not: "),
        (packed("gzip", b""), "the answer holds no event"),
        (whole("503 Busy", b"\x0b\x02\x80", "content-encoding: br"), "status 503: the answer is packed"),
        (whole("429 Slow", packed_with_gzip(b"slow down"), "content-encoding: gzip"), "status 429: slow down"),
    ],
)
def test_what_cannot_be_unpacked_fails_with_the_reason(answer: bytes, error: str, transport: str) -> None:
    record = one(says(answer), transport)
    assert record.status == "failed"
    assert record.error and error in record.error


@both
def test_a_packed_answer_without_a_length_ends_with_the_connection(transport: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
    assert one(then_closes(head + packed_with_gzip(GOOD)), transport).status == "ok"
    record = one(then_closes(head + packed_with_gzip(GOOD)[:-4]), transport)
    assert record.error == "the gzip answer was cut off"


@both
def test_an_answer_that_unpacks_without_end_fails(transport: str) -> None:
    record = one(says(packed("gzip", packed_with_gzip(b": comment\n\n" * 1_000_000))), transport, max_answer_mib=2)
    assert record.status == "failed"
    assert record.error == "the answer is larger than the client's limit of 2 MiB an answer"


def test_pieces_are_bounded_and_complete_whatever_the_parts_are() -> None:
    body = bytes(range(256)) * 8192
    for step in (1, 7, 4096, 2**30):
        unpacker = unpacker_for("gzip")
        assert unpacker is not None
        data, pieces = packed_with_gzip(body), []
        for start in range(0, len(data), step):
            pieces += unpacker.pieces(data[start : start + step])
        unpacker.end()
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= PIECE_BYTES
