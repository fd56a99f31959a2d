"""The arithmetic over trials: bias, spread, coverage, and when a figure counts as biased."""

import math
from typing import Any

import pytest

from inference_energy.analysis.fit.cells import FitCell
from inference_energy.analysis.fit.models import MODELS, fit_model
from inference_energy.validation.bench_trial import Trial, TrialOutcome
from inference_energy.validation.coverage import Coverage, CoverageRow, summarize


def trial(
    seed: int, *outcomes: TrialOutcome, scenario: str = "one", conservation: float = 0.0, true_conservation: float = 0.0
) -> Trial:
    return Trial(scenario, seed, outcomes, conservation, true_conservation)


def energy(measured: float | None, truth: float | None = 100.0, **more: Any) -> TrialOutcome:
    content: dict[str, Any] = {"interval": None, "reasons": () if measured is not None else ("gap",), **more}
    return TrialOutcome("energy", "J", truth, measured, **content)


def row_of(*outcomes: TrialOutcome) -> CoverageRow:
    (row,) = summarize([trial(seed, one) for seed, one in enumerate(outcomes)]).rows
    return row


def test_bias_and_spread_are_those_of_the_relative_errors() -> None:
    row = row_of(energy(101.0), energy(104.0), energy(206.0, truth=200.0), energy(96.0))
    # Relative errors 0.01, 0.04, 0.03, -0.04: mean 0.01, sum of squared deviations 0.0038.
    assert row.bias == pytest.approx(0.01)
    assert row.spread == pytest.approx(math.sqrt(0.0038 / 3))
    assert row.bias_se == pytest.approx(math.sqrt(0.0038 / 3) / 2)
    assert row.truth == pytest.approx(125.0)
    assert (row.trials, row.given, row.withheld) == (4, 4, {})
    assert (row.quantity, row.unit, row.scenario) == ("energy", "J", "one")


def test_what_was_not_given_is_counted_with_its_reasons_and_left_out() -> None:
    row = row_of(
        energy(102.0), energy(None), energy(None, reasons=("gap", "gap", "not_steady")), energy(98.0), energy(103.0)
    )
    assert (row.trials, row.given) == (5, 3)
    assert row.bias == pytest.approx(0.01)
    assert row.withheld == {"gap": 2, "not_steady": 1}


def test_without_a_figure_nothing_is_said() -> None:
    row = row_of(energy(None), energy(None))
    assert (row.given, row.bias, row.bias_se, row.spread, row.coverage, row.coverage_interval) == (0, *[None] * 5)
    assert not row.biased
    one = row_of(energy(150.0))
    assert one.bias == pytest.approx(0.5)
    assert (one.bias_se, one.spread) == (None, None)
    assert not one.biased  # one trial says nothing of chance


def test_a_figure_without_a_truth_has_no_error() -> None:
    row = row_of(energy(5.0, truth=None, interval=(4.0, 6.0)), energy(5.0, truth=None))
    assert (row.given, row.truth, row.bias, row.intervals) == (2, None, None, 0)
    assert row_of(energy(5.0, truth=0.0), energy(5.0, truth=0.0)).bias is None


def test_coverage_counts_the_intervals_that_hold_the_truth() -> None:
    held = [energy(101.0, interval=(99.0, 103.0))] * 17
    missed = [energy(103.0, interval=(101.0, 105.0)), energy(97.0, interval=(95.0, 99.0))]
    row = row_of(*held, *missed, energy(None), energy(100.0))
    assert (row.intervals, row.covered) == (19, 17)
    assert row.coverage == pytest.approx(17 / 19)


def wilson(covered: int, intervals: int) -> tuple[float, float]:
    """Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    z, share = 1.959963984540054, covered / intervals
    centre = (share + z * z / (2 * intervals)) / (1 + z * z / intervals)
    half = z / (1 + z * z / intervals) * math.sqrt(share * (1 - share) / intervals + z * z / (4 * intervals**2))
    return centre - half, centre + half


@pytest.mark.parametrize(("covered", "missed"), [(17, 2), (285, 15), (300, 0), (0, 10), (1, 0)])
def test_the_interval_of_the_coverage_is_wilsons(covered: int, missed: int) -> None:
    held, not_held = energy(100.0, interval=(99.0, 101.0)), energy(103.0, interval=(102.0, 104.0))
    row = row_of(*[held] * covered, *[not_held] * missed)
    assert row.coverage_interval == pytest.approx(wilson(covered, covered + missed), abs=1e-9)


def test_biased_needs_more_than_the_limit_and_more_than_chance() -> None:
    assert row_of(energy(102.0), energy(102.2), energy(101.8)).biased
    assert row_of(energy(98.0), energy(98.2), energy(97.8)).biased
    assert not row_of(energy(100.8), energy(100.9), energy(100.7)).biased  # below the limit of 1 %
    assert not row_of(energy(112.0), energy(92.0), energy(103.0)).biased  # above it, by chance
    # Two standard errors are allowed: errors 0.02 +- d/2 have a bias of 0.02 and a standard error of d/2.
    assert row_of(energy(102.49), energy(101.51)).biased
    assert not row_of(energy(102.51), energy(101.49)).biased


def test_rows_come_by_scenario_and_figure_and_the_worst_conservation_counts() -> None:
    tokens = TrialOutcome("tokens", "token", 10.0, 10.0, None, ())
    trials = [
        trial(1, energy(101.0), tokens, conservation=1e-12),
        trial(2, energy(103.0), tokens, true_conservation=3e-11),
        trial(1, energy(90.0), tokens, scenario="two", conservation=5e-10),
    ]
    found = summarize(trials)
    assert isinstance(found, Coverage)
    assert [(row.scenario, row.quantity, row.trials) for row in found.rows] == [
        ("one", "energy", 2),
        ("one", "tokens", 2),
        ("two", "energy", 1),
        ("two", "tokens", 1),
    ]
    assert found.rows[0].bias == pytest.approx(0.02)
    assert (found.seeds, found.conservation, found.true_conservation) == (2, 5e-10, 3e-11)


def fit_trial(seed: int, power_w: float, *, without: str | None = None) -> Trial:
    """Six windows of a model that holds but for `low`, and the interval of a fit to all but one of them."""
    loads = {"low": (40.0, 60.0), "a": (0.0, 9e4), "b": (0.0, 3e5), "c": (9e5, 60.0), "d": (5e5, 2e4), "e": (1e5, 1e5)}
    cells = tuple(
        FitCell(
            name,
            "steady",
            60.0,
            prompts,
            generated,
            60.0 * (0.7 if name == "low" else 1.0) * power_w + 0.01 * prompts + 0.05 * generated,
            None,
            "gpu",
            "counter",
        )
        for name, (prompts, generated) in loads.items()
        if name != without
    )
    names = tuple(cell.name for cell in cells)
    truth = fit_model(MODELS[1], list(cells), "relative").coefficients["power"].value
    assert truth is not None
    held = (truth - 1.0, truth + 1.0)
    found = TrialOutcome("power_term: power", "W", truth, truth, held, (), of_load=True, fitted_to=names)
    return Trial("one", seed, (found,), 0.0, 0.0, cells)


def test_a_fitted_term_is_set_beside_the_fit_to_the_same_windows() -> None:
    """A fit without the window in which the device was idle finds another power: that is no error of its interval."""
    trials = [fit_trial(seed, 400.0 + offset) for seed, offset in enumerate((-0.5, 0.5, -0.4, 0.4))]
    (row,) = summarize([*trials, fit_trial(9, 400.0, without="low")]).rows
    assert (row.covered, row.intervals) == (5, 5)
    assert row.truth is not None
    apart = trials[0].outcomes[0].truth
    assert apart is not None
    assert abs(fit_trial(9, 400.0, without="low").outcomes[0].truth - apart) > 5.0  # type: ignore[operator]


def test_the_truth_of_a_fitted_term_is_the_mean_over_the_load_and_not_its_own() -> None:
    (row,) = summarize([*(fit_trial(seed, 400.0) for seed in range(4)), fit_trial(9, 420.0)]).rows
    # The mean is 404 W: all miss it by 3 W or more.
    assert (row.covered, row.intervals) == (0, 5)
    # Also where one alone was fitted to fewer windows: the others have these windows too.
    (row,) = summarize([*(fit_trial(seed, 400.0) for seed in range(4)), fit_trial(9, 420.0, without="low")]).rows
    assert (row.covered, row.intervals) == (4, 5)
