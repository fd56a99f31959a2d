"""`metrics`: the metric family of a finished experiment."""

import json
from pathlib import Path
from typing import Annotated

import typer

from inference_energy.cli.lazy_group import examples
from inference_energy.errors import InputError

_EXAMPLES = examples(
    "inference-energy metrics results/default",
    "inference-energy metrics results/default --pareto energy_total_per_output_token_j,ttft_p90_s",
    "inference-energy metrics results/default --traffic day.csv --replicas 2",
    "inference-energy metrics results/default --json > metrics.json",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("metrics", epilog=_EXAMPLES)(metrics)


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

    from inference_energy.contracts.documents.experiment import read_summary
    from inference_energy.contracts.figure import json_values
    from inference_energy.metrics.stage import recompute_daily_use, recompute_front

    summary = read_summary(experiment)
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


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--pareto {text}: write two figures and a comma, such as e2e_p90_s,sci_per_request_g")
    return names[0], names[1]
