"""`metrics` for people, and the stage of the same name for the workflow."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from inference_energy.cli.lazy_group import examples
from inference_energy.errors import InputError

_EXAMPLES = examples(
    "inference-energy metrics results/default",
    "inference-energy metrics results/default --pareto energy_total_per_output_token_j,ttft_p90_s",
    "inference-energy metrics results/default --traffic day.csv --replicas 2",
    "inference-energy metrics results/default --json > metrics.json",
)

Parts = list[Path]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("metrics", epilog=_EXAMPLES)(metrics)


def register_stage(stages: typer.Typer) -> None:
    """Add the stage."""
    stages.command("metrics")(stage)


def metrics(
    experiment: Annotated[Path, typer.Argument(help="Result folder of an experiment, such as results/default.")],
    *,
    pareto: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B", help="Pareto front over these two figures instead of those configured; repeatable."
        ),
    ] = None,
    traffic: Annotated[
        Path | None,
        typer.Option(help="Another day of traffic: CSV with `hour`, and `requests` or `output_tokens`."),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Servers that share the traffic and are always on.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the metric family of a finished experiment: cost of tokens, requests and right answers, by load.

    Definitions: docs/reference/metrics.md. A metric whose inputs are missing says which.
    """
    from msgspec import structs

    from inference_energy.contracts.documents.document import read_document
    from inference_energy.contracts.documents.experiment import SummaryDocument
    from inference_energy.contracts.figure import json_values
    from inference_energy.metrics.stage import recompute_daily_use, recompute_front

    summary = read_document(experiment / SummaryDocument.FILE, SummaryDocument)
    family = summary.metrics
    if family is None:
        raise InputError(f"{experiment / 'summary.json'} holds no metrics: `snakemake` writes it again")
    if pareto:
        family = structs.replace(family, fronts=[recompute_front(summary, _pair(text)) for text in pareto])
    if traffic:
        family = structs.replace(family, sweeps=recompute_daily_use(experiment, traffic, replicas))
    elif replicas != 1:
        raise InputError("--replicas: it shares a --traffic; the configured one has metrics.traffic.replicas")
    if as_json:
        typer.echo(json.dumps(json_values(family), indent=2, ensure_ascii=False))
        return
    from inference_energy.present.metrics.terminal import print_metrics

    print_metrics(summary, family)


def stage(
    *,
    spec: Annotated[str, typer.Option(help="`experiment`, `metrics` and `uncertainty` as one JSON object.")],
    steady_load: Annotated[Parts, typer.Option(help="steady_load.json of a session; repeat.")],
    energy: Annotated[Parts, typer.Option(help="energy.json, in the same order; repeat.")],
    carbon: Annotated[Parts, typer.Option(help="carbon.json, in the same order; repeat.")],
    receipts: Annotated[Parts, typer.Option(help="receipts.parquet, in the same order; repeat.")],
    requests: Annotated[Parts, typer.Option(help="requests.parquet, in the same order; repeat.")],
    prompts: Annotated[Parts, typer.Option(help="prompts.parquet, in the same order; repeat.")],
    model: Annotated[Parts, typer.Option(help="model.json of the session's server, in the same order; repeat.")],
    fit: Annotated[Parts, typer.Option(help="fit.json of a server; repeat.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """The metric family: metrics.json. Every option but the fits has one file for each session."""
    from inference_energy.config.analysis import Uncertainty
    from inference_energy.contracts import receipts as receipts_contract
    from inference_energy.contracts.io import read_json, read_table, write_json
    from inference_energy.metrics.stage import SessionResults, Settings
    from inference_energy.metrics.stage import metrics as compute
    from inference_energy.plan.workflow_params import parse

    plan: dict[str, Any] = parse(spec)
    files = {"energy": energy, "carbon": carbon, "receipts": receipts, "requests": requests}
    for name, paths in {**files, "prompts": prompts, "model": model}.items():
        if len(paths) != len(steady_load):
            raise InputError(f"--{name}: one file for each of the {len(steady_load)} session(s) is expected")
    sessions = [
        SessionResults(
            energy=read_json(energy[place]),
            steady=read_json(steady_load[place]),
            carbon=read_json(carbon[place]),
            model=read_json(model[place]),
            requests=requests[place],
            prompts=prompts[place],
            receipts=read_table(receipts[place], receipts_contract.SCHEMA),
        )
        for place in range(len(steady_load))
    ]
    settings = Settings.of(plan["metrics"], Uncertainty.from_spec(plan["uncertainty"], "analysis.uncertainty"))
    write_json(output, compute(plan["experiment"], sessions, [read_json(path) for path in fit], settings))


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--pareto {text}: write two figures and a comma, such as e2e_p90_s,sci_per_request_g")
    return names[0], names[1]
