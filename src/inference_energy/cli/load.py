"""`load-test`: load on an endpoint that runs, from a file of prompts."""

import time
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/bold]

inference-energy load-test --endpoint http://localhost:8000 --model M --prompts prompts.txt \\
  --duration 600 --concurrency 8 --output logs/requests.csv

Run `inference-energy log-power` beside it, then `inference-energy analyze`.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("load-test", epilog=EXAMPLES, rich_help_panel="By hand")(load_test)


def load_test(
    endpoint: Annotated[str, typer.Option(help="Base URL of an OpenAI-compatible server, without /v1.")],
    model: Annotated[str, typer.Option(help="Model name at the endpoint.")],
    prompts: Annotated[Path, typer.Option(help="Text file, one prompt a line.")],
    output: Annotated[Path, typer.Option(help="Request log to write; CSV or Parquet by its ending.")],
    duration: Annotated[float, typer.Option(min=0.1, help="How long requests are sent \\[s].")] = 600.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Users, each with one request in flight.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens generated for a request.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="A request that takes longer has failed \\[s].")] = 300.0,
    drain: Annotated[float, typer.Option(min=0, help="Wait this long for requests in flight at the end \\[s].")] = 60.0,
) -> None:
    """Load an endpoint with prompts from a file and log every request.

    Closed loop: each of the users sends its next request when the last has ended. Prompts repeat when used up, under
    a cache salt. Tokens are those of the server's own count.
    """
    import asyncio

    from rich.console import Console

    from inference_energy.acquire.load.client import LoadClient
    from inference_energy.acquire.load.closed_loop import ClosedTest, run_closed_test
    from inference_energy.acquire.load.log import check_ending, write_requests
    from inference_energy.acquire.session.progress import Progress
    from inference_energy.contracts.tables import clock_anchor

    check_ending(output)
    console = Console(stderr=True)
    seen: list[LoadClient] = []
    progress = Progress(
        "load-test",
        [("load", duration)],
        in_flight=lambda: seen[-1].in_flight if seen else 0,
        tokens=lambda: seen[-1].events if seen else 0,
    )

    def tick(client: LoadClient) -> None:
        if not seen:
            seen.append(client)
            progress.begin("load")
        progress.tick()

    anchor = clock_anchor()
    begun_s = time.monotonic()
    test = ClosedTest(endpoint, model, prompts, duration, concurrency, max_tokens, timeout, drain)
    try:
        records = asyncio.run(run_closed_test(test, tick))
    except KeyboardInterrupt:
        records = seen[0].records if seen else []
        console.print("interrupted; what was sent so far is kept")
    write_requests(output, records, anchor)
    done = [record for record in records if record.status == "ok"]
    tokens = sum(record.completion_tokens or 0 for record in done)
    console.print(
        f"{len(done)} of {len(records)} requests succeeded in {time.monotonic() - begun_s:.0f} s, "
        f"{tokens} completion tokens; log: {output}"
    )
