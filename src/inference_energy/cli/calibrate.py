"""`calibrate`: a node's own power channels against an external meter."""

from pathlib import Path
from typing import Annotated

import typer

from inference_energy.acquire.power.characterise.profiles import PROFILES

EXAMPLES = """
[bold]Examples[/bold]

inference-energy calibrate --meter smart-plug --settings '{"kind": "shelly", "address": "http://plug.lan"}'

inference-energy calibrate --meter pdu --settings pdu.json --phase 60 --repeats 3
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate", rich_help_panel="By hand", epilog=EXAMPLES)(calibrate)


def calibrate(
    meter: Annotated[str, typer.Option(help="The external meter: smart-plug, pdu, redfish or ipmi.")],
    settings: Annotated[str, typer.Option(help="The meter's settings: JSON, or a JSON file.")],
    output: Annotated[Path, typer.Option(help="File to put the calibration into; others in it stay.")] = PROFILES
    / "calibration.json",
    device: Annotated[
        str | None, typer.Option(help="UUID of the one GPU that the meter sees; default the whole node.")
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="Which of the GPUs makes the load.")] = 0,
    phase: Annotated[
        float, typer.Option(help="Length of each phase \\[s]; its first 5 s and last 2 s are left out.")
    ] = 30.0,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of full load, half load and rest.")] = 2,
    load_python: Annotated[Path | None, typer.Option(help="Python with torch that makes the load.")] = None,
) -> None:
    """Compare the node's own power with an external meter over idle and load, and fit gain and offset of the sum.

    Nobody else may use the GPUs. Names and passwords come from the environment or a file of mode 0600, as for sampling.
    """
    from inference_energy.acquire.power.calibrate.measure import Plan
    from inference_energy.acquire.power.calibrate.measure import calibrate as run
    from inference_energy.acquire.power.calibrate.meters import meter_source
    from inference_energy.acquire.power.calibrate.record import save

    plan = Plan(device, gpu, phase, repeats, load_python)
    name, found = run(meter_source(meter, settings), plan, say=lambda text: typer.echo(text, err=True))
    save(output, name, found)
    typer.echo(
        f"{name} against {meter} ({found.grade}): gain {found.gain:.4f} +- {found.u_gain:.4f}, "
        f"offset {found.offset_w:.1f} +- {found.u_offset_w:.1f} W (standard uncertainties), "
        f"chi2 per degree of freedom {found.chi2_per_dof:.2g}"
    )
    typer.echo(f"written to {output}; to apply it, name this file under analysis.calibration in the configuration")
