"""A plain aiohttp loop on uvloop that counts events by their ends and parses nothing: what a light client can be.

python aiohttp_loop.py JOB.json
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

FRAMES_OF_NO_TOKEN = 2  # usage and [DONE]


def body(key: int, prompt_tokens: int, tokens: int) -> bytes:
    """A completion's request."""
    fields = {"model": "m", "prompt": [key] * prompt_tokens, "max_tokens": tokens, "temperature": 0.0, "stream": True}
    return json.dumps({**fields, "stream_options": {"include_usage": True}}).encode()


async def closed(session: aiohttp.ClientSession, job: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Users in a closed loop until the time is over."""
    end_ns = time.monotonic_ns() + round(job["seconds"] * 1e9)
    asked = body(1000, 16, job["tokens"])

    async def user() -> None:
        while (sent_ns := time.monotonic_ns()) < end_ns:
            events = 0
            async with session.post(job["endpoint"] + "/v1/completions", data=asked) as response:
                async for data in response.content.iter_any():
                    events += data.count(b"\n\n")
            rows.append({"sent_ns": sent_ns, "end_ns": time.monotonic_ns(), "tokens": events - FRAMES_OF_NO_TOKEN})

    await asyncio.gather(*(user() for _ in range(job["users"])))


async def poisson(session: aiohttp.ClientSession, job: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Each request at its time, by the loop's own sleep."""
    start_ns = time.monotonic_ns() + 100_000_000

    async def one(key: int, scheduled_ns: int) -> None:
        sent_ns, times = time.monotonic_ns(), []
        async with session.post(job["endpoint"] + "/v1/completions", data=body(key, 16, job["tokens"])) as response:
            async for data in response.content.iter_any():
                times += [time.monotonic_ns()] * data.count(b"\n\n")
        row = {"key": key, "scheduled_ns": scheduled_ns, "sent_ns": sent_ns, "end_ns": time.monotonic_ns()}
        rows.append({**row, "times_ns": times[:-FRAMES_OF_NO_TOKEN]})

    async with asyncio.TaskGroup() as tasks:
        for key, arrival_ns in job["arrivals"]:
            await asyncio.sleep(max(0.0, (start_ns + arrival_ns - time.monotonic_ns()) / 1e9))
            tasks.create_task(one(key, start_ns + arrival_ns))


async def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows: list[dict[str, Any]] = []
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        await (poisson if job["arrivals"] else closed)(session, job, rows)
    (Path(job["folder"]) / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(main())
