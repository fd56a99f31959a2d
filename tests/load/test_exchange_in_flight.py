"""Thousands of requests, at once or one after another."""

import asyncio
import collections
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import uvloop
from exchange_server import HEAD, Exchange, chunk, client_of, good, send, serving, token, whole

HERE = Path(__file__).parent
MOST = 4000
LIMIT_BYTES = 40_000


def test_thousands_in_flight_take_little_memory_and_none_fails() -> None:
    count = min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
    command = [sys.executable, str(HERE / "holding_server.py"), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path[1:]])}
            client = [sys.executable, str(HERE / "in_flight_client.py"), endpoint, str(count)]
            said = subprocess.run(client, env=environment, check=True, capture_output=True, text=True, timeout=150)
        finally:
            server.kill()
    found = json.loads(said.stdout)
    assert found["statuses"] == {"ok ": count}
    assert found["overlap"]  # the last was sent before the first had ended
    assert 0 < found["bytes_each"] < LIMIT_BYTES


async def _any_end(exchange: Exchange) -> None:
    """Ends of five kinds, in turn."""
    kind = exchange.number % 5
    if kind == 0:
        await good(exchange)
    elif kind == 1:
        exchange.reset()
    elif kind == 2:
        await exchange.write(whole("500 Error", b"no"))
    elif kind == 3:
        await exchange.write(HEAD + chunk(token("a")))
        exchange.writer.close()
    else:
        await exchange.peer_is_gone()


def test_nothing_is_left_to_the_cyclic_collector() -> None:
    """Workers run without it: whatever becomes of a request, all it took is freed when it ends."""

    async def run() -> None:
        async with serving(_any_end) as server, client_of(server.url, request_timeout_s=0.05) as client:
            statuses = {(await send(client, number)).record.status for number in range(60)}
            assert statuses == {"ok", "failed"}
            tasks = [asyncio.create_task(send(client, number)) for number in range(20)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def count() -> int:
        kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
        return sum(kinds[name] for name in ("Connection", "Answer", "RequestRecord", "ExchangeError"))

    gc.collect()
    before = count()
    gc.disable()
    try:
        uvloop.run(run())
        assert count() == before
    finally:
        gc.enable()
