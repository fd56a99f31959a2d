"""Many trials of each scenario: bias, spread and coverage of every figure."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from scipy.stats import binomtest

from inference_energy.validation.bench_trial import FitTruth, Trial, TrialOutcome, run_trial
from inference_energy.validation.scenarios import SCENARIOS, Scenario

BIAS_LIMIT = 0.01


@dataclass(frozen=True)
class CoverageRow:
    """One figure of one scenario over all its trials.

    `given` of `trials` had a number. `bias` is the mean of their relative errors, `bias_se` its standard error,
    `spread` their standard deviation; None without enough numbers. `covered` of `intervals` held the truth: for a
    figure that stands for the load, the mean truth of all its trials; for a fitted term, the truth of the same windows
    (`FitTruth`). `withheld` counts the reasons for which no number was given.
    """

    scenario: str
    quantity: str
    unit: str
    trials: int
    given: int
    truth: float | None
    bias: float | None
    bias_se: float | None
    spread: float | None
    intervals: int
    covered: int
    withheld: dict[str, int]

    @property
    def coverage(self) -> float | None:
        """Share of intervals that held the truth; None where the pipeline gives none."""
        return self.covered / self.intervals if self.intervals else None

    @property
    def coverage_interval(self) -> tuple[float, float] | None:
        """95 % interval of the coverage itself (Wilson)."""
        if not self.intervals:
            return None
        interval = binomtest(self.covered, self.intervals).proportion_ci(0.95, "wilson")
        return float(interval.low), float(interval.high)

    @property
    def biased(self) -> bool:
        """Whether the bias is beyond the limit, and not by the chance of these trials."""
        if self.bias is None or self.bias_se is None:
            return False
        return abs(self.bias) - 2 * self.bias_se > BIAS_LIMIT


@dataclass(frozen=True)
class Coverage:
    """Results of all trials, and the energy conservation of the worst one."""

    seeds: int
    rows: tuple[CoverageRow, ...]
    conservation: float
    true_conservation: float


def run_trials(
    seeds: Sequence[int],
    scenarios: Sequence[Scenario] = SCENARIOS,
    workers: int | None = None,
    done: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Run all trials in parallel processes; the order of the result does not depend on their number.

    Args:
        seeds: one trial of each scenario for each seed.
        scenarios: the scenarios.
        workers: number of processes; None for one on each core.
        done: called with each trial that has ended, for progress.
    """
    tasks = [(number, seed) for number in range(len(scenarios)) for seed in seeds]
    trials: dict[tuple[int, int], Trial] = {}
    # Fresh processes: a fork of one with threads (the progress bar's) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_trial, scenarios[number], seed): (number, seed) for number, seed in tasks}
        for future in as_completed(running):
            trials[running[future]] = future.result()
            if done is not None:
                done(trials[running[future]])
    return [trials[task] for task in tasks]


def summarize(trials: Sequence[Trial]) -> Coverage:
    """Summarize the trials."""
    return Coverage(
        seeds=len({trial.seed for trial in trials}),
        rows=tuple(_rows(trials)),
        conservation=max(trial.conservation for trial in trials),
        true_conservation=max(trial.true_conservation for trial in trials),
    )


def _rows(trials: Sequence[Trial]) -> Iterator[CoverageRow]:
    for scenario in dict.fromkeys(trial.scenario for trial in trials):
        repeats = [trial for trial in trials if trial.scenario == scenario]
        fit_truth = FitTruth(repeats)
        for outcomes in zip(*(trial.outcomes for trial in repeats), strict=True):
            yield _row(scenario, outcomes, fit_truth)


def _row(scenario: str, outcomes: Sequence[TrialOutcome], fit_truth: FitTruth) -> CoverageRow:
    errors = np.array([outcome.error for outcome in outcomes if outcome.error is not None])
    truths = [outcome.truth for outcome in outcomes if outcome.truth is not None]
    mean_truth = float(np.mean(truths)) if truths else None
    coverages = [
        covered
        for outcome in outcomes
        if (covered := outcome.covers(_truth(outcome, mean_truth, fit_truth))) is not None
    ]
    several = len(errors) > 1
    return CoverageRow(
        scenario=scenario,
        quantity=outcomes[0].quantity,
        unit=outcomes[0].unit,
        trials=len(outcomes),
        given=sum(outcome.measured is not None for outcome in outcomes),
        truth=mean_truth,
        bias=float(errors.mean()) if len(errors) else None,
        bias_se=float(errors.std(ddof=1) / math.sqrt(len(errors))) if several else None,
        spread=float(errors.std(ddof=1)) if several else None,
        intervals=len(coverages),
        covered=sum(coverages),
        withheld=dict(Counter(code for outcome in outcomes for code in dict.fromkeys(outcome.reasons))),
    )


def _truth(outcome: TrialOutcome, mean_truth: float | None, fit_truth: FitTruth) -> float | None:
    """Return the value that the outcome's interval should cover."""
    if outcome.interval is None or not outcome.of_load:
        return outcome.truth
    return fit_truth.mean_term(outcome) if outcome.fitted_to else mean_truth
