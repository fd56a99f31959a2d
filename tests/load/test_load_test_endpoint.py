"""`load-test` at an endpoint behind TLS that wants an API key."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from tests.load.certificates import self_signed

from inference_energy.acquire.server.attach import AttachedServer
from inference_energy.cli.load.models import client_of
from inference_energy.cli.load.options import LoadOptions
from inference_energy.cli.load.prepare import _attached
from inference_energy.errors import InputError


async def attached(folder: Path, **given: object) -> AttachedServer:
    """Attach to a server with a certificate of its own and the key `secret`."""
    both, _ = self_signed(folder)

    async def models(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            raise web.HTTPUnauthorized
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)).start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        content = {"endpoint": [f"https://127.0.0.1:{port}/v1"], "model": "m", "output": "r.csv", **given}
        options = LoadOptions.of({"power_source": (), "gpu": (), **content})
        (server,) = await _attached(options, client_of(options))
        return server
    finally:
        await runner.cleanup()


def test_the_key_is_sent_and_the_certificate_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    trusted = str(tmp_path / "certificate.pem")
    assert asyncio.run(attached(tmp_path, api_key_env="MY_KEY", ca_file=trusted)).models == ("m",)
    assert asyncio.run(attached(tmp_path, api_key_env="MY_KEY", insecure=True)).models == ("m",)
    with pytest.raises(InputError, match=r"--endpoint: .*[Cc]ertificate"):
        asyncio.run(attached(tmp_path, api_key_env="MY_KEY"))


def test_without_the_key_the_endpoint_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"--endpoint: .*401"):
        asyncio.run(attached(tmp_path, insecure=True))
    with pytest.raises(InputError, match="--api-key-env: the environment variable NO_KEY is not set"):
        asyncio.run(attached(tmp_path, insecure=True, api_key_env="NO_KEY"))
    with pytest.raises(InputError, match="--ca-file: "):
        asyncio.run(attached(tmp_path, ca_file="absent.pem"))
