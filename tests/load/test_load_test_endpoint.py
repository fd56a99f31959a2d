"""`load-test` at endpoints behind TLS that want an API key, and at two kinds of engines."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.load.certificates import self_signed
from tests.load.counted_server import PROMPT_TOKENS, TOKENS, serving
from tests.load.test_load_test_cli import command

from inference_energy.acquire.server.attach import attach
from inference_energy.acquire.server.pages import Access
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

KEY = "sesame-4711"


def load(url: str, folder: Path, *words: object) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Two users for a second; the process and its summary, empty where there is none."""
    told = folder / "summary.json"
    shared = ("--model", "m", "--duration", 1, "--concurrency", 2, "--prompt-length", 3, "--json", told)
    done = command("load-test", "--endpoint", url, "--output", folder / "requests.parquet", *shared, *words)
    return done, json.loads(told.read_text()) if told.is_file() else {}


@pytest.mark.parametrize(("transport", "trusted"), [("plain", True), ("aiohttp", False)])
def test_behind_tls_and_with_a_key_everything_works_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, trusted: bool
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    both, certificate = self_signed(tmp_path)
    check = ("--ca-file", certificate) if trusted else ("--insecure",)
    with serving(key=KEY, certificate=both) as (url, server):
        done, found = load(url, tmp_path, "--api-key-env", "MY_KEY", "--transport", transport, *check)
    assert done.returncode == 0, done.stderr
    assert found["requests"]["ok"] == found["requests"]["sent"] > 2
    generated = found["counters"]["tokens"]["generated"]
    assert generated["client"] == generated["server"] == TOKENS * found["requests"]["ok"]
    assert server.asked >= {(path, True) for path in ("/v1/models", "/metrics", "/v1/completions")}
    assert KEY not in done.stdout + done.stderr + (tmp_path / "summary.json").read_text()


def test_a_key_that_the_endpoint_repeats_is_in_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(key=KEY, echo=True) as (url, _):
        output = ("--output", tmp_path / "requests.csv", "--save-schedule", tmp_path / "s.parquet")
        done, found = load(url, tmp_path, *output)
        other = command("load-test", "--endpoint", url, "--model", "x", "--prompt-length", 3, *output[:2])
    assert done.returncode == 0, done.stderr
    assert found["requests"]["failed"] > 0
    assert "no: [API key]" in (tmp_path / "requests.csv").read_text()
    assert found["counters"]["tokens"]["generated"]["server"] > 0
    assert (other.returncode, "[API key]" in other.stderr) == (2, True)
    texts = [done.stdout, done.stderr, other.stdout, other.stderr]
    texts += [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in texts if KEY in text]


def test_the_usual_variable_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(key=KEY) as (url, _):
        done, found = load(url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found["requests"]["failed"] == 0


def test_without_the_key_the_endpoint_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("WRONG_KEY", "open-please")
    with serving(key=KEY) as (url, _):
        for words, message in (
            ((), "--endpoint: .*wants an API key.*401.*--api-key-env"),
            (("--api-key-env", "WRONG_KEY"), "--endpoint: .*refuses the API key.*401"),
            (("--api-key-env", "NO_KEY"), "--api-key-env: the environment variable NO_KEY is not set"),
        ):
            done, _ = load(url, tmp_path, *words)
            assert done.returncode == 2
            with pytest.raises(AssertionError, match=message):
                raise AssertionError(done.stderr)
            assert "open-please" not in done.stderr


def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    both, _ = self_signed(tmp_path)
    with serving(certificate=both) as (url, _):
        done, _ = load(url, tmp_path)
        assert done.returncode == 2
        assert "--endpoint" in done.stderr
        assert "certificate" in done.stderr.lower()
        done, _ = load(url, tmp_path, "--ca-file", tmp_path / "absent.pem")
        assert done.returncode == 2
        assert "--ca-file" in done.stderr


def test_a_session_attaches_with_key_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    both, certificate = self_signed(tmp_path)
    with serving(key=KEY, certificate=both) as (url, _):
        access = Access("MY_KEY", str(certificate))
        assert asyncio.run(attach("a", url, access=access)).models == ("m",)
        with pytest.raises(InputError, match=r"servers\.a\.endpoint: .*client\.api_key_env"):
            asyncio.run(attach("a", url, access=Access(None, str(certificate))))
        with pytest.raises(InputError, match=r"client\.ca_file"):
            asyncio.run(attach("a", url, access=Access("MY_KEY", str(tmp_path / "absent.pem"))))


def test_sglangs_names_reconcile_as_vllms_do(tmp_path: Path) -> None:
    with serving("sglang") as (url, _):
        done, found = load(url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found["counters"]["engine"] == "SGLang"
    for kind, each in (("generated", TOKENS), ("prompt", PROMPT_TOKENS)):
        row = found["counters"]["tokens"][kind]
        assert row["client"] == row["server"] == each * found["requests"]["ok"]
    assert "agrees exactly" in done.stdout


def test_a_difference_that_nothing_explains_is_said(tmp_path: Path) -> None:
    with serving(uncounted=2) as (url, _):
        done, found = load(url, tmp_path)
    row = found["counters"]["tokens"]["generated"]
    assert (row["difference"], row["unexplained"]) == (2 * TOKENS, -2 * TOKENS)
    assert f"the server counted {2 * TOKENS} fewer" in " ".join(done.stdout.split())


def test_an_endpoint_named_twice_is_counted_once(tmp_path: Path) -> None:
    with serving() as (url, _):
        done, found = load(url, tmp_path, "--endpoint", f"{url}/v1/")
    assert done.returncode == 0, done.stderr
    assert found["counters"]["tokens"]["generated"]["difference"] == 0
