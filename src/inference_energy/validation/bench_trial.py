"""One trial: a simulated session goes through the pipeline's own stages, and each figure is set beside its truth.

The truth of a fitted term is taken over the windows that the fit was made to. A fit to other windows estimates other
coefficients: no model of the family holds exactly, and without the window of a low load, in which the device is often
idle, a token costs less and the power is higher. So where the pipeline left out a window that was not steady, its terms
are compared with those of the windows that it kept.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from inference_energy.analysis.attribution import attribute_session
from inference_energy.analysis.fit.cells import FitCell, gather_cells
from inference_energy.analysis.fit.models import MODELS, WEIGHTING, fit_model, fit_server
from inference_energy.bench.offline.raw_files import write_session
from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.config.analysis import AnalysisConfig, ImpactConfig, Uncertainty
from inference_energy.contracts.documents.energy import EnergyDocument, EnergyWindow
from inference_energy.contracts.documents.windows import LoadWindow, SteadyLoadDocument
from inference_energy.contracts.figure import Figure
from inference_energy.stages.chain import RawSession, session_parts
from inference_energy.validation.scenarios import (
    GAIN_STD,
    MACHINE,
    OFFSET_STD_W,
    SERVER,
    SESSION,
    TRIM_START_S,
    Scenario,
)

IMPACT = ImpactConfig.model_validate(
    {
        "carbon": {"zone": "none", "intensity_g_per_kwh": 1.0, "basis": "lifecycle", "source": "bench"},
        "pue": 1.0,
        "pue_source": "bench",
        "water": {"wue_site_l_per_kwh": 0.0, "ewif_grid_l_per_kwh": 0.0, "source": "bench"},
    }
)
"""Neutral factors: the bench has no data center."""


UNCERTAINTY = Uncertainty(gain=GAIN_STD, offset_w=OFFSET_STD_W)
"""Uncertainty that the pipeline assumes: the distribution that cards are drawn from."""


@dataclass(frozen=True)
class TrialOutcome:
    """One figure beside its truth.

    `of_load` means that the figure stands for the load, of which the window is a sample: its interval is for the mean
    over all windows of that load, while the interval of an amount in the window is for the window. `measured` is None
    if the pipeline gave no number; `reasons` then has the codes. `interval` is None if it gave no interval. `truth` is
    None if there is no truth (a fit that is refused on the truth too). `fitted_to` are the windows that a fitted term
    comes from.
    """

    quantity: str
    unit: str
    truth: float | None
    measured: float | None
    interval: tuple[float, float] | None
    reasons: tuple[str, ...]
    of_load: bool = False
    fitted_to: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """Relative error; None without a number or a truth."""
        return None if self.measured is None or not self.truth else self.measured / self.truth - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds this window's truth; None without an interval."""
        return self.covers(self.truth)

    def covers(self, truth: float | None) -> bool | None:
        """Whether the interval holds a value; None without an interval."""
        if self.interval is None or truth is None:
            return None
        return self.interval[0] <= truth <= self.interval[1]


@dataclass(frozen=True)
class Trial:
    """All figures of one simulated session.

    `conservation` is the largest relative difference between a window's energy and the sum of its receipts, and
    `true_conservation` that of the node's true energy and the sum of its ledger. `true_cells` are the windows that a
    fit could use, with their true energies and tokens.
    """

    scenario: str
    seed: int
    outcomes: tuple[TrialOutcome, ...]
    conservation: float
    true_conservation: float
    true_cells: tuple[FitCell, ...] = ()


def run_trial(scenario: Scenario, seed: int) -> Trial:
    """Simulate a session, put it through the pipeline, and compare."""
    session = simulate(scenario.plan(seed), scenario.node(seed))
    with tempfile.TemporaryDirectory(prefix="inference-energy-bench-") as folder:
        write_session(session, Path(folder))
        return _compare(scenario, seed, session, Path(folder))


def _compare(scenario: Scenario, seed: int, session: SimulatedSession, raw_root: Path) -> Trial:
    config = AnalysisConfig(trim_start_s=TRIM_START_S, uncertainty=UNCERTAINTY)
    files = RawSession.below(raw_root, MACHINE, SESSION, SERVER)
    parts = session_parts(files, config, IMPACT)
    cells, _ = gather_cells([(parts.energy, parts.steady)])
    true_cells = tuple(_true_cell(cell, parts.energy, session) for cell in cells)
    outcomes = [
        *_idle(parts.energy, session),
        *_window(parts.energy.windows[scenario.reported], parts.steady.windows[scenario.reported], session),
        *_fit(parts.energy, parts.steady, true_cells),
    ]
    receipts = attribute_session(requests=files.requests, energy=parts.energy, config=config)
    differences = [0.0]
    for name, window in parts.energy.windows.items():
        energy_j = window.figures["energy_total_j"].value
        if energy_j is not None:
            differences.append(abs(receipts.loc[receipts["cell"] == name, "energy_j"].sum() / energy_j - 1))
    true_differences = [
        abs((split.prefill_j.sum() + split.decode_j.sum() + split.rest_j) / split.total_j - 1)
        for split in session.truth.ledgers
    ]
    return Trial(scenario.name, seed, tuple(outcomes), max(differences), max(true_differences), true_cells)


def _idle(energy: EnergyDocument, session: SimulatedSession) -> list[TrialOutcome]:
    loaded = next(row for row in session.phases if row["phase"] == "loaded_idle")
    times = {"cold": session.cold_ns, "loaded": (loaded["start_ns"], loaded["end_ns"])}
    return [
        outcome(f"idle power, {kind}", session.truth.power_w(*span), idle)
        for (kind, span), idle in zip(
            times.items(), (energy.idle.cold_power_w, energy.idle.loaded_power_w), strict=True
        )
    ]


def _window(energy: EnergyWindow, steady: LoadWindow, session: SimulatedSession) -> list[TrialOutcome]:
    truth, start_ns, end_ns = session.truth, energy.start_ns, energy.end_ns
    total_j = truth.energy_j(start_ns, end_ns)
    seconds = (end_ns - start_ns) / 1e9
    active_j = total_j - truth.power_w(*session.cold_ns) * seconds
    tokens = truth.output_tokens(start_ns, end_ns)
    figures = energy.figures
    return [
        outcome("energy, total", total_j, figures["energy_total_j"]),
        outcome("energy, active", active_j, figures["energy_active_j"]),
        outcome("output tokens", tokens, steady.figures["output_tokens"]),
        outcome("mean power", total_j / seconds, figures["power_mean_w"], of_load=True),
        outcome("J/output token, total", total_j / tokens, figures["energy_total_per_output_token_j"], of_load=True),
        outcome("J/output token, active", active_j / tokens, figures["energy_active_per_output_token_j"], of_load=True),
    ]


def _fit(energy: EnergyDocument, steady: SteadyLoadDocument, true_cells: tuple[FitCell, ...]) -> list[TrialOutcome]:
    """Return the terms of each model; their truth is the same fit to true energies and tokens of the same windows."""
    fitted = fit_server([(energy, steady)], UNCERTAINTY)
    outcomes = []
    for model in MODELS:
        true_terms = fit_model(model, list(true_cells), WEIGHTING).coefficients
        fitted_to = tuple(fitted.models[model.name].cells)
        for term, figure in fitted.models[model.name].coefficients.items():
            true_value = true_terms[term].value if term in true_terms else None
            term_outcome = outcome(f"{model.name}: {term}", true_value, figure, of_load=True)
            outcomes.append(replace(term_outcome, fitted_to=fitted_to))
    return outcomes


def _true_cell(cell: FitCell, energy: EnergyDocument, session: SimulatedSession) -> FitCell:
    """Return a cell with true energies and tokens, and without its bins, which the truth does not need."""
    truth = session.truth
    window = energy.windows[cell.name.removeprefix(f"{SESSION}.")]
    start_ns, end_ns = window.start_ns, window.end_ns
    total_j = truth.energy_j(start_ns, end_ns)
    cold_w = truth.power_w(*session.cold_ns)
    return replace(
        cell,
        prompt_tokens=truth.prompt_tokens(start_ns, end_ns) - truth.cached_tokens(start_ns, end_ns),
        generated_tokens=truth.output_tokens(start_ns, end_ns),
        energy_total_j=total_j,
        energy_active_j=None if cell.energy_active_j is None else total_j - cold_w * cell.duration_s,
        bins=None,
    )


def outcome(quantity: str, truth: float | None, figure: Figure, *, of_load: bool = False) -> TrialOutcome:
    """Return one figure of the pipeline beside its truth."""
    return TrialOutcome(
        quantity=quantity,
        unit=figure.unit,
        truth=truth,
        measured=figure.value,
        interval=figure.interval_95,
        of_load=of_load,
        reasons=() if figure.valid else tuple(reason.code for reason in figure.reasons),
    )


class FitTruth:
    """Mean true terms over the trials of one scenario.

    Args:
        trials: trials of one scenario.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        self._means = cache(self._mean_terms)

    def mean_term(self, outcome: TrialOutcome) -> float | None:
        """Return the mean truth of a fitted term over all trials with the windows of this fit; None without any."""
        model, _, term = outcome.quantity.partition(": ")
        return self._means(model, outcome.fitted_to).get(term)

    def _mean_terms(self, name: str, fitted_to: tuple[str, ...]) -> dict[str, float]:
        model = next(model for model in MODELS if model.name == name)
        values: dict[str, list[float]] = {}
        for trial in self._trials:
            true_cells = {cell.name: cell for cell in trial.true_cells}
            if not all(cell in true_cells for cell in fitted_to):
                continue
            fitted = fit_model(model, [true_cells[cell] for cell in fitted_to], WEIGHTING).coefficients
            for term, figure in fitted.items():
                if figure.value is not None:
                    values.setdefault(term, []).append(figure.value)
        return {term: float(np.mean(found)) for term, found in values.items()}
