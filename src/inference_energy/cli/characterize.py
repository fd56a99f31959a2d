"""`characterize`: properties of a GPU's power sensors; `calibrate`: a node's power channels against a meter."""

from pathlib import Path
from typing import Annotated

import typer

from inference_energy.acquire.power.characterize.profile import PROFILES, profile_path
from inference_energy.cli.lazy_group import examples

CHARACTERIZE_EXAMPLES = examples(
    "inference-energy characterize",
    "inference-energy characterize --gpu 1 --duration 120 --load-python .venv-vllm/bin/python",
    "inference-energy bench run -- inference-energy characterize --duration 30",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("characterize", epilog=CHARACTERIZE_EXAMPLES)(characterize)
    app.command("calibrate", epilog=CALIBRATE_EXAMPLES)(calibrate)


def characterize(
    gpu: Annotated[str, typer.Option(help="GPU by index or UUID.")] = "0",
    output: Annotated[Path, typer.Option(help="Folder for the profile and its page.")] = PROFILES,
    duration: Annotated[float, typer.Option(help="Duration of all phases, without the load's start [s].")] = 60.0,
    load_python: Annotated[
        Path | None,
        typer.Option(help="Python with torch for the step load; default this one or the vLLM environment's."),
    ] = None,
    no_load: Annotated[
        bool, typer.Option("--no-load", help="Make no step load; averaging windows and ratios then stay unknown.")
    ] = False,
) -> None:
    """Measure update periods, averaging windows, call costs, resolution and idle noise of a GPU's power sensors.

    No other program may use the GPU. Writes UUID.json, which later sessions cite, and UUID.html with the plots.
    """
    # Imported here, because SciPy and Plotly take a second to import.
    from inference_energy.acquire.power.characterize.measure import measure
    from inference_energy.acquire.power.characterize.profile import profile as profile_of
    from inference_energy.contracts.io import write_json
    from inference_energy.present.characterize import profile_lines, write_profile_page

    measurement = measure(
        gpu,
        duration_s=duration,
        with_load=not no_load,
        load_python=load_python,
        say=lambda text: typer.echo(text, err=True),
    )
    profile = profile_of(measurement)
    path = profile_path(output, profile["gpu"]["uuid"])
    write_json(path, profile)
    write_profile_page(path.with_suffix(".html"), path)
    for line in profile_lines(profile):
        typer.echo(line)
    typer.echo(f"profile {path}, page {path.with_suffix('.html')}")


CALIBRATE_EXAMPLES = examples(
    'inference-energy calibrate --meter smart-plug --settings \'{"kind": "shelly", "address": "http://plug.lan"}\'',
    "inference-energy calibrate --meter pdu --settings pdu.json --phase 60 --repeats 3",
)


def calibrate(
    meter: Annotated[str, typer.Option(help="The external meter: smart-plug, pdu, redfish or ipmi.")],
    settings: Annotated[str, typer.Option(help="The meter's settings: JSON, or a JSON file.")],
    output: Annotated[Path, typer.Option(help="File that the calibration is added to.")] = PROFILES
    / "calibration.json",
    device: Annotated[
        str | None, typer.Option(help="UUID of the GPU that the meter measures; by default the whole node.")
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="GPU that makes the load, by index.")] = 0,
    phase: Annotated[
        float, typer.Option(help="Length of each phase [s]; its first 5 s and last 2 s are left out.")
    ] = 30.0,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of full load, half load and rest.")] = 2,
    load_python: Annotated[Path | None, typer.Option(help="Python with torch that makes the load.")] = None,
) -> None:
    """Compare the node's own power with an external meter over idle and load, and fit gain and offset of the sum.

    No other program may use the GPUs. User names and passwords come from the environment or a file of mode 0600.
    """
    from inference_energy.acquire.power.calibrate.measure import Plan, meter_source, save
    from inference_energy.acquire.power.calibrate.measure import calibrate as run

    plan = Plan(device, gpu, phase, repeats, load_python)
    name, calibration = run(meter_source(meter, settings), plan, say=lambda text: typer.echo(text, err=True))
    save(output, name, calibration)
    typer.echo(
        f"{name} against {meter} ({calibration.grade}): gain {calibration.gain:.4f} +- {calibration.u_gain:.4f}, "
        f"offset {calibration.offset_w:.1f} +- {calibration.u_offset_w:.1f} W (standard uncertainties), "
        f"chi2 per degree of freedom {calibration.chi2_per_dof:.2g}"
    )
    typer.echo(f"written to {output}; to apply it, name this file under analysis.calibration in the configuration")
