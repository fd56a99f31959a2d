"""`characterize`: what a GPU's power sensors do, measured on the card itself."""

from pathlib import Path
from typing import Annotated

import typer

from inference_energy.acquire.power.characterise.profiles import PROFILES, profile_path

EXAMPLES = """
[bold]Examples[/bold]

inference-energy characterize

inference-energy characterize --gpu 1 --duration 120 --load-python .venv-vllm/bin/python

inference-energy bench run -- inference-energy characterize --duration 30
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("characterize", rich_help_panel="By hand", epilog=EXAMPLES)(characterize)


def characterize(
    gpu: Annotated[str, typer.Option(help="GPU by index or UUID.")] = "0",
    output: Annotated[Path, typer.Option(help="Folder for the profile and its page.")] = PROFILES,
    duration: Annotated[float, typer.Option(help="All phases together, without the load's start \\[s].")] = 60.0,
    load_python: Annotated[
        Path | None,
        typer.Option(help="Python with torch that makes the step load; default this one or the vLLM environment's."),
    ] = None,
    no_load: Annotated[
        bool, typer.Option("--no-load", help="Make no step load; windows and ratios are then not known.")
    ] = False,
) -> None:
    """Measure update periods, averaging windows, call costs, resolution and idle noise of a GPU's power sensors.

    Nobody else may use the GPU. Writes UUID.json, which later sessions cite, and UUID.html with the plots.
    """
    # Here, because scipy and plotly take a second that other commands need not wait for.
    from inference_energy.acquire.power.characterise.measure import measure
    from inference_energy.acquire.power.characterise.profile import profile as profile_of
    from inference_energy.contracts.tables import write_json
    from inference_energy.present.characterise import lines, write_characterisation_page

    measured = measure(
        gpu,
        duration_s=duration,
        with_load=not no_load,
        load_python=load_python,
        say=lambda text: typer.echo(text, err=True),
    )
    profile = profile_of(measured)
    path = profile_path(output, profile["gpu"]["uuid"])
    write_json(path, profile)
    write_characterisation_page(path.with_suffix(".html"), path)
    for line in lines(profile):
        typer.echo(line)
    typer.echo(f"profile {path}, page {path.with_suffix('.html')}")
