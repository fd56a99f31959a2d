"""Parts of the family computed again from a finished experiment: other Pareto fronts, another day of traffic."""

from pathlib import Path
from typing import Any

from inference_energy.analysis.figures import load_figure
from inference_energy.config.analysis import Uncertainty
from inference_energy.config.metrics import MetricsConfig
from inference_energy.contracts.tables import read_json
from inference_energy.contracts.traffic import read_traffic
from inference_energy.metrics.cells import read_cells
from inference_energy.metrics.pareto import fronts
from inference_energy.metrics.stage import Settings, sweep_entry
from inference_energy.metrics.sweep import sweeps


def fronts_again(summary: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """The fronts over two figures, of the summary or of its metrics.

    Raises:
        InputError: as in `fronts`.
    """
    cells = [
        {
            "machine": cell["machine"],
            "cell": cell["cell"],
            "kind": cell["kind"],
            "workload": cell["load"]["workload"],
        }
        for cell in summary["cells"]
    ]
    figures: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in (*summary["cells"], *summary["metrics"]["cells"]):
        figures.setdefault((cell["machine"], cell["cell"]), {}).update(
            {name: load_figure(cell["figures"][name]) for name in names if name in cell["figures"]}
        )
    return fronts(cells, names, figures)


def daily_again(experiment: Path, traffic: Path, replicas: int) -> list[dict[str, Any]]:
    """The sweeps of an experiment with the daily use of another profile.

    Args:
        experiment: its folder; the derived files of its sessions lie beside it, as the pipeline puts them.
        traffic: the profile.
        replicas: servers that share it.

    Raises:
        InputError: the profile is wrong, or a derived file is missing.
    """
    profile = read_traffic(traffic, "--traffic")
    plan = read_json(experiment / "experiment.json")["plan"]
    uncertainty = Uncertainty.model_validate(plan["analysis"].get("uncertainty") or {})
    settings = Settings(MetricsConfig(), profile, replicas, uncertainty)
    cells = []
    for planned in plan["sessions"]:
        folder = experiment.absolute().parent / "derived" / planned["machine"] / planned["session"]
        cells += read_cells(*(read_json(folder / f"{name}.json") for name in ("energy", "steady_load", "carbon")))
    return [sweep_entry(sweep, settings) for sweep in sweeps(cells)]
