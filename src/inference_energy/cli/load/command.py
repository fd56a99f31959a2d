"""`load-test` as it is typed."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/bold]

Eight users, each with one request in flight, with prompts from a file:
  inference-energy load-test --endpoint http://localhost:8000 --model M --prompts prompts.txt \\
    --duration 600 --concurrency 8 --output logs/requests.csv

64 requests/s, Poisson, synthetic prompts, exactly 128 tokens each, goodput under limits:
  inference-energy load-test --endpoint http://localhost:8000 --model M --prompt-length normal:256:64 \\
    --max-tokens 128 --ignore-eos --qps 64 --limits ttft=0.5,tpot=0.05 --duration 120 --output requests.parquet

Bursts; a ramp; a trace at twice its rate; a conversation:
  ... --qps 64 --arrival gamma --burstiness 0.5
  ... --arrival ramp --qps 1:64
  ... --trace conv.csv --time-scale 0.5 --ignore-eos
  ... --prompts sharegpt.json --turns uniform:2:6 --turn-think lognormal:8:6 --api chat --qps 2

The same requests again:
  ... --qps 64 --save-schedule mine.parquet
  ... --schedule mine.parquet
"""

PROMPTS, ANSWERS, ARRIVALS, TRACES = "Prompts", "Answers", "Arrivals", "Traces and schedules"
CLIENT, RESULTS, POWER = "Client", "Results", "Power"
LENGTHS = "normal:MEAN:STD, lognormal:MEAN:STD, uniform:MIN:MAX, fixed:N or a number, empirical:FILE"
TIMES = "seconds, exponential:MEAN, lognormal:MEAN:STD or uniform:MIN:MAX"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("load-test", epilog=EXAMPLES, rich_help_panel="By hand")(load_test)


def load_test(
    *,
    endpoint: Annotated[
        list[str], typer.Option(help="Base URL of an OpenAI-compatible server, without /v1; several are used in turn.")
    ],
    model: Annotated[str, typer.Option(help="Model name at the endpoint.")],
    output: Annotated[Path, typer.Option(help="Request log to write; CSV or Parquet by its ending.")],
    duration: Annotated[float, typer.Option(min=0.1, help="How long requests are sent \\[s].")] = 600.0,
    warmup: Annotated[
        float, typer.Option(min=0, help="Send so long before, into a file of its own, in no figure \\[s].")
    ] = 0.0,
    prompts: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PROMPTS,
            help="File with prompts: text, one a line; .jsonl; ShareGPT .json; of a --schedule its prompts.parquet.",
        ),
    ] = None,
    prompt_order: Annotated[
        str | None, typer.Option(rich_help_panel=PROMPTS, help="file (default) or random.", metavar="ORDER")
    ] = None,
    prompt_length: Annotated[
        str | None,
        typer.Option(rich_help_panel=PROMPTS, help=f"Synthetic prompts of this length: {LENGTHS}.", metavar="LENGTH"),
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=PROMPTS,
            min=1,
            help="Synthetic prompts of token ids below this number, of exact lengths; default words.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PROMPTS,
            help="Synthetic prompts that begin alike in groups.",
            metavar="GROUPS:TOKENS[:SHARE]",
        ),
    ] = None,
    turns: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PROMPTS,
            help="Conversations of so many turns: a number, uniform:MIN:MAX or geometric:MEAN:MAX.",
            metavar="TURNS",
        ),
    ] = None,
    turn_think: Annotated[
        str | None,
        typer.Option(rich_help_panel=PROMPTS, help=f"Wait before a next turn: {TIMES}.", metavar="TIME"),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PROMPTS,
            help="Later turns begin with the server's answers (actual, default) or the recorded ones (planned).",
        ),
    ] = None,
    prefix_reuse: Annotated[
        bool,
        typer.Option("--prefix-reuse", rich_help_panel=PROMPTS, help="Send no cache salt where content repeats."),
    ] = False,
    api: Annotated[
        str | None, typer.Option(rich_help_panel=ANSWERS, help="completions (default) or chat.", metavar="API")
    ] = None,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", rich_help_panel=ANSWERS, help="Answers in one piece: no TTFT and TPOT.")
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(rich_help_panel=ANSWERS, min=1, help="Most tokens of an answer. \\[default: 256]"),
    ] = None,
    output_length: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ANSWERS, help="In its place, exact lengths drawn for each request.", metavar="LENGTH"
        ),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", rich_help_panel=ANSWERS, help="Exactly so many tokens.")
    ] = False,
    parameters: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ANSWERS, help='More fields of a request, such as {"temperature": 0}.', metavar="JSON"
        ),
    ] = None,
    arrival: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ARRIVALS,
            help="poisson (default with --qps), gamma, constant, ramp, piecewise, day; closed (default without); "
            "trace; schedule.",
            metavar="PROCESS",
        ),
    ] = None,
    qps: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ARRIVALS,
            help="Requests/s; of a ramp FROM:TO, piecewise RATE:SECONDS,..., of a day the mean.",
            metavar="RATE",
        ),
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(rich_help_panel=ARRIVALS, help="Of gamma: below 1 bursts, 1 Poisson, above 1 more even."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(rich_help_panel=ARRIVALS, min=1, help="Closed: users, each with one request. \\[default: 8]"),
    ] = None,
    think: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ARRIVALS, help=f"Closed: wait before a user's next request: {TIMES}.", metavar="TIME"
        ),
    ] = None,
    stagger: Annotated[
        float | None, typer.Option(rich_help_panel=ARRIVALS, min=0, help="Closed: users begin over this time \\[s].")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=ARRIVALS,
            min=1,
            help="Closed: prompts made, then sent again. \\[default: all of a file up to 10,000, else 256]",
        ),
    ] = None,
    amplitude: Annotated[
        float | None,
        typer.Option(rich_help_panel=ARRIVALS, help="Day: largest deviation as a share of the mean. \\[default: 0.5]"),
    ] = None,
    period: Annotated[
        float | None, typer.Option(rich_help_panel=ARRIVALS, help="Day: its length \\[s]. \\[default: 86400]")
    ] = None,
    phase: Annotated[
        float | None, typer.Option(rich_help_panel=ARRIVALS, help="Day: share that is over at the start.")
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=ARRIVALS, min=0, help="Of every random draw.")] = None,
    trace: Annotated[
        str | None, typer.Option(rich_help_panel=TRACES, help="Send what a trace says, as it was published.")
    ] = None,
    trace_format: Annotated[
        str | None,
        typer.Option(rich_help_panel=TRACES, help="azure, burstgpt or mooncake. \\[default: by its content]"),
    ] = None,
    trace_start: Annotated[
        float | None, typer.Option(rich_help_panel=TRACES, help="Begin so long after its first request \\[s].")
    ] = None,
    time_scale: Annotated[
        float | None,
        typer.Option(rich_help_panel=TRACES, help="Seconds here for one of the trace."),
    ] = None,
    trace_arrivals_only: Annotated[
        bool,
        typer.Option("--trace-arrivals-only", rich_help_panel=TRACES, help="Its times, but not its lengths."),
    ] = False,
    schedule: Annotated[
        str | None,
        typer.Option(rich_help_panel=TRACES, help="Send a schedule again, .parquet with its prompts, or .csv."),
    ] = None,
    schedule_cell: Annotated[
        str | None, typer.Option(rich_help_panel=TRACES, help="Which of its cells. \\[default: its only one]")
    ] = None,
    save_schedule: Annotated[
        Path | None,
        typer.Option(rich_help_panel=TRACES, help="Keep the schedule in this .parquet, its prompts beside it."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", rich_help_panel=TRACES, help="Keep the plan, say what it is, send nothing.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(rich_help_panel=CLIENT, min=1, max=64, help="Processes that share the load."),
    ] = 1,
    transport: Annotated[
        str,
        typer.Option(
            rich_help_panel=CLIENT,
            help="auto and plain: the light one; aiohttp: another HTTP client, where that fails.",
        ),
    ] = "auto",
    connections: Annotated[
        int | None, typer.Option(rich_help_panel=CLIENT, min=1, help="Most connections of a worker to an endpoint.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(rich_help_panel=CLIENT, min=0.1, help="A request that takes longer has failed \\[s]."),
    ] = 300.0,
    drain: Annotated[
        float,
        typer.Option(rich_help_panel=CLIENT, min=0, help="Wait this long for requests in flight at the end \\[s]."),
    ] = 60.0,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=CLIENT,
            help="Variable with the key. \\[default: OPENAI_API_KEY, if set]",
            metavar="NAME",
        ),
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option(rich_help_panel=CLIENT, help="Certificates to trust, in place of the system's.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", rich_help_panel=CLIENT, help="Do not check the server's certificate.")
    ] = False,
    limits: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=RESULTS,
            help="Goodput under limits in s: ttft, tpot, itl, e2e.",
            metavar="ttft=0.5,tpot=0.05",
        ),
    ] = None,
    chunks: Annotated[
        bool, typer.Option("--chunks", rich_help_panel=RESULTS, help="Also log the time of every arrival, for ITL.")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", rich_help_panel=RESULTS, help="Also keep the answers' texts.")
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option("--json", rich_help_panel=RESULTS, help="Write the summary as JSON; - is stdout.", metavar="FILE"),
    ] = None,
    power: Annotated[
        bool, typer.Option("--power", rich_help_panel=POWER, help="Log power beside, as log-power does.")
    ] = False,
    power_source: Annotated[
        list[str] | None, typer.Option(rich_help_panel=POWER, help="Power source, may be repeated.")
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option(rich_help_panel=POWER, help="GPU by index or UUID, may be repeated.")
    ] = None,
    tdp_w: Annotated[
        float | None, typer.Option(rich_help_panel=POWER, help="CPU's power at full use \\[W], for modelled power.")
    ] = None,
    idle_w: Annotated[float | None, typer.Option(rich_help_panel=POWER, help="CPU's power at rest \\[W].")] = None,
) -> None:
    """Load an endpoint, log every request, and say how it did.

    Without --qps and --arrival it is a closed loop: each of the users sends its next request when the last has ended.
    Everything random is drawn before. Tokens are those of the server's own count, compared with its /metrics. See
    docs/reference/load.md.
    """
    given = dict(locals())
    from rich.console import Console

    from inference_energy.cli.load.options import LoadOptions, refuse_contradictions
    from inference_energy.cli.load.run import end, run, show
    from inference_energy.cli.load.run import ensure_writable as check_place

    del given["json_file"]
    options = LoadOptions.of(given)
    refuse_contradictions(options)
    if json_file not in (None, "-"):
        check_place(Path(json_file))
    found = run(options, Console(stderr=True))
    show(options, found, json_file)
    if not plan_only:
        end(found)
