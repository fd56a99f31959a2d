"""Attaching to a server that runs already."""

import asyncio
from collections.abc import Callable

import pytest

from inference_energy.acquire.server.attach import AttachedServer, attach
from inference_energy.acquire.server.launch import launch_server
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.errors import InputError


def test_attach(stub_spec: Callable[..., LaunchSpec]) -> None:
    async def use() -> None:
        async with await launch_server(stub_spec()) as server:
            for endpoint, model in ((server.base_url, None), (f"{server.base_url}/v1/", "stub")):
                assert await attach("a", endpoint, model) == AttachedServer(
                    server.base_url, "stub", ("stub",), server.server_pid, "0.0.0+stub"
                )
            with pytest.raises(InputError, match=r"servers\.a\.model: .* no model other; it has: stub"):
                await attach("a", server.base_url, "other")
            assert server.alive()

    asyncio.run(use())


def test_nobody_there(free_port: int) -> None:
    with pytest.raises(InputError, match=rf"servers\.b\.endpoint: nothing answers at http://127.0.0.1:{free_port}: "):
        asyncio.run(attach("b", f"http://127.0.0.1:{free_port}"))


@pytest.mark.parametrize("endpoint", ["localhost:8000", "http://localhost:8000 ", "http://h:99999", "http://::1", ""])
def test_no_url(endpoint: str) -> None:
    with pytest.raises(InputError, match=r"servers\.c\.endpoint: .*; write one like|brackets around"):
        asyncio.run(attach("c", endpoint))
