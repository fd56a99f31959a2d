"""The load test of the command line: prompts from a text file, a fixed number of users, for a given time."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_energy.acquire.load.client import LoadClient
from inference_energy.acquire.load.phase import run_phase
from inference_energy.acquire.load.request import PlannedRequest, RequestRecord
from inference_energy.acquire.server.attach import attach
from inference_energy.errors import InputError, RunError


@dataclass(frozen=True)
class ClosedTest:
    """What a load test needs; times in s."""

    endpoint: str
    model: str
    prompts: Path
    duration_s: float
    concurrency: int
    max_tokens: int
    timeout_s: float
    drain_s: float


def read_prompts(path: Path) -> list[str]:
    """Prompts, one a line; empty lines are left out.

    Raises:
        InputError: the file is missing, not text, or holds none.
    """
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts: {path} cannot be read: {error}") from error
    if not prompts:
        raise InputError(f"--prompts: {path} holds no prompt; write one a line")
    return prompts


async def run_closed_test(test: ClosedTest, on_tick: Callable[[LoadClient], None]) -> Sequence[RequestRecord]:
    """Run a load test; `on_tick` is called four times a second with the client, for progress.

    Raises:
        InputError: the endpoint does not answer or lacks the model.
        RunError: not one request succeeded.
    """
    prompts = read_prompts(test.prompts)
    try:
        await attach("", test.endpoint, test.model)
    except InputError as error:
        raise InputError(str(error).replace("servers..", "--")) from None
    requests = [PlannedRequest(index, index, prompt, test.max_tokens) for index, prompt in enumerate(prompts)]
    ids = itertools.count(len(requests))
    client = LoadClient(test.endpoint, test.model, test.timeout_s)
    async with client:
        phase = run_phase(
            client,
            "load-test",
            requests,
            test.duration_s,
            test.drain_s,
            concurrency=test.concurrency,
            new_id=lambda: next(ids),
        )
        task = asyncio.ensure_future(phase)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.25)
                on_tick(client)
            await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
    failures = [record for record in client.records if record.status == "failed"]
    if failures and not any(record.status == "ok" for record in client.records):
        raise RunError(f"all {len(client.records)} requests failed; the first: {failures[0].error}")
    return client.records
