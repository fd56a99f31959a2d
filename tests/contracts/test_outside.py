"""What comes from outside is bounded and clean, or refused with a message."""

import asyncio
import json

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.contracts.outside import MAX_COUNT, as_count, clean_text, decode_json, read_body, read_text
from inference_energy.errors import InputError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_can_be_encoded_and_keeps_what_could_be(text):
    cleaned = clean_text(text)
    assert cleaned.encode().decode() == cleaned
    assert len(cleaned) == len(text)
    assert all(new == old for new, old in zip(cleaned, text, strict=True) if not "\ud800" <= old <= "\udfff")


def test_half_a_surrogate_pair_becomes_a_replacement_character_in_values_and_keys():
    assert decode_json(r'{"a\ud83d": ["x\ude00y"]}') == {"a�": ["x�y"]}
    assert decode_json(r'"\ud83d\ude00"') == "😀"


@given(json_values)
def test_json_that_python_writes_is_read_back(value):
    assert decode_json(json.dumps(value).encode()) == value
    assert decode_json("\ufeff" + json.dumps(value)) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 levels"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"", "not JSON"),
        (b"1" * 5000, "4300"),
    ],
)
def test_json_that_cannot_be_used_is_refused_with_the_reason(content, message):
    with pytest.raises(ValueError, match=message):
        decode_json(content)


def test_brackets_within_texts_are_no_levels():
    assert decode_json(json.dumps(["[" * 1000, '\\"[' * 100])) == ["[" * 1000, '\\"[' * 100]


@pytest.mark.parametrize("value", [0, 5, 5.0, MAX_COUNT])
def test_a_whole_number_is_a_count(value):
    assert as_count(value) == value
    assert isinstance(as_count(value), int)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), 1e18, 2**63, "5", None, True, [5]])
def test_anything_else_is_no_count(value):
    assert as_count(value) is None


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffhä".encode())
    assert read_text(path, 6) == "hä"
    with pytest.raises(InputError, match="larger than"):
        read_text(path, 5)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_text(path, 5)


@pytest.mark.parametrize("name", ["missing", "x" * 300, "a\0b", "."])
def test_a_name_that_is_no_file_is_an_error_of_input(tmp_path, name):
    with pytest.raises(InputError):
        read_text(tmp_path / name, 5)


def test_a_body_without_an_end_is_left_at_its_bound():
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * 10_000)
            sent += 10_000
        return response

    async def ask() -> None:
        application = web.Application()
        application.router.add_get("/page", endless)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/page") as response:
                with pytest.raises(ValueError, match="/page answers with more than 1 MiB"):
                    await read_body(response, 2**20)
        finally:
            await runner.cleanup()

    asyncio.run(ask())
    assert sent < 50_000_000
