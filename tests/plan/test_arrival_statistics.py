"""Arrivals are indistinguishable from the ideal process: 100,000 draws, 1 % level, fixed seeds, no server.

What is tested are the times at which the load processes send: the schedule is written, dealt out to one worker or to
eight, and each sends its share by the pacer on a clock that stands still while code runs.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tests.load.plans import row, write_plan
from tests.load.virtual_time import sent_virtually
from tests.plan.plan_factory import arrival

from inference_energy.acquire.load.schedule_partition import SchedulePartition
from inference_energy.acquire.load.standalone import CELL
from inference_energy.plan.arrivals.processes import arrival_rate, offsets_ns
from inference_energy.plan.distributions import generator

pytestmark = pytest.mark.slow

DRAWS = 100_000
RATE_QPS = 50.0
DURATION_S = DRAWS / RATE_QPS
LEVEL = 0.01
SHAPES = (1.0, 0.5, 4.0)
"""The first is Poisson, by its own process."""


def process(shape: float) -> object:
    if shape == 1.0:
        return arrival(process="poisson", rate_qps=RATE_QPS)
    return arrival(process="gamma", rate_qps=RATE_QPS, burstiness=shape)


@pytest.fixture(scope="module", params=[(1.0, 1), (1.0, 8), (0.5, 8), (4.0, 1)], ids=str)
def sent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, NDArray[np.float64]]:
    """Shape of the gaps, and times [s] at which the workers send."""
    shape, workers = request.param
    offsets = offsets_ns(process(shape), DURATION_S, generator(7, "window", "arrivals"))
    assert abs(len(offsets) - DRAWS) < 6 * math.sqrt(DRAWS / shape)
    folder = tmp_path_factory.mktemp("plan")
    write_plan(folder, [row(number, arrival_ns=int(offset)) for number, offset in enumerate(offsets)])
    files = folder / "schedule.parquet", folder / "prompts.parquet"
    shares = [SchedulePartition(*files, {CELL: "completions"}, worker, workers) for worker in range(workers)]
    everything = [one for share in shares for one in sent_virtually(share.cells[CELL], DURATION_S)]
    times_ns = np.array([time_ns for _, time_ns in sorted(everything)])
    assert np.array_equal(times_ns, offsets), "each request once, at its time to the nanosecond"
    return shape, np.sort(times_ns) / 1e9


def count_variance(shape: float, window_s: float) -> float:
    """Variance of the number of arrivals in a window of a stationary gamma renewal process (Cox 1962, section 4.5).

    Var N(t) = 2 r int_0^t H(u) du + r t - (r t)^2, with H the expected number after an arrival: the sum over n of the
    distribution functions of n gaps.
    """
    times_s = np.linspace(0.0, window_s, 2001)
    most = math.ceil(RATE_QPS * window_s + 12 * math.sqrt(RATE_QPS * window_s / shape) + 20)
    renewals = sum(stats.gamma.cdf(times_s, shape * n, scale=1 / (shape * RATE_QPS)) for n in range(1, most + 1))
    mean = RATE_QPS * window_s
    return float(2 * RATE_QPS * np.trapezoid(renewals, times_s) + mean - mean**2)


def test_gaps_have_the_distribution(sent: tuple[float, NDArray[np.float64]]) -> None:
    """Kolmogorov-Smirnov against the gamma distribution of that shape."""
    shape, times_s = sent
    assert stats.kstest(np.diff(times_s), "gamma", args=(shape, 0, 1 / (shape * RATE_QPS))).pvalue > LEVEL


@pytest.mark.parametrize("window_s", [0.1, 1.0, 10.0])
def test_dispersion_of_counts_is_that_of_the_renewal_process(
    sent: tuple[float, NDArray[np.float64]], window_s: float
) -> None:
    """The variance of counts against the process's own, with the standard error of a variance."""
    shape, times_s = sent
    windows = round(DURATION_S / window_s)
    counts = np.histogram(times_s, bins=windows, range=(0.0, DURATION_S))[0]
    expected = count_variance(shape, window_s)
    if shape == 1.0:
        assert expected == pytest.approx(RATE_QPS * window_s, rel=1e-3)
    squares = (counts - RATE_QPS * window_s) ** 2
    error = np.std(squares) / math.sqrt(windows)
    assert abs(np.mean(squares) - expected) < stats.norm.isf(LEVEL / 2) * error


def test_gaps_do_not_depend_on_each_other(sent: tuple[float, NDArray[np.float64]]) -> None:
    """Ljung and Box 1978, over 20 lags."""
    _, times_s = sent
    gaps = np.diff(times_s)
    gaps, count, lags = gaps - gaps.mean(), len(gaps), np.arange(1, 21)
    correlations = np.array([np.dot(gaps[:-lag], gaps[lag:]) for lag in lags]) / np.dot(gaps, gaps)
    statistic = count * (count + 2) * np.sum(correlations**2 / (count - lags))
    assert stats.chi2.sf(statistic, len(lags)) > LEVEL


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_not_conditioned(shape: float) -> None:
    """Clients that rescale gaps to fill the time have a fixed count; the stationary process has its own variance."""
    counts = np.array([len(offsets_ns(process(shape), 2.0, generator(seed, "w"))) for seed in range(2000)])
    assert abs(counts.mean() - 2 * RATE_QPS) < 3 * counts.std() / math.sqrt(len(counts))
    squares = (counts - 2 * RATE_QPS) ** 2
    assert abs(squares.mean() - count_variance(shape, 2.0)) < 3 * squares.std() / math.sqrt(len(counts))


@pytest.mark.parametrize("shape", SHAPES)
def test_over_many_seeds_the_tests_are_passed_as_often_as_they_should_be(shape: float) -> None:
    """p-values of the gaps over seeds are uniform: no seed was chosen."""
    values = [
        stats.kstest(
            np.diff(offsets_ns(process(shape), 20.0, generator(seed, "w")) / 1e9),
            "gamma",
            args=(shape, 0, 1 / (shape * RATE_QPS)),
        ).pvalue
        for seed in range(300)
    ]
    assert stats.kstest(values, "uniform").pvalue > LEVEL


RATES = {
    "ramp up": {"process": "ramp", "from_qps": 0.0, "to_qps": 100.0},
    "ramp down": {"process": "ramp", "from_qps": 90.0, "to_qps": 10.0},
    "piecewise": {
        "process": "piecewise",
        "steps": [
            {"rate_qps": 80, "duration_s": 3},
            {"rate_qps": 0, "duration_s": 2},
            {"rate_qps": 70, "duration_s": 5},
            {"rate_qps": 40, "duration_s": 10},
        ],
    },
    "day": {"process": "day", "mean_qps": 50.0, "amplitude": 1.0, "period_s": 400.0, "phase": 0.6},
}


@pytest.mark.parametrize("kind", ["poisson", "gamma"])
@pytest.mark.parametrize("name", RATES)
def test_arrivals_of_a_changing_rate_are_the_unit_process_in_rescaled_time(name: str, kind: str) -> None:
    """Time-rescaling theorem: the expected counts between arrivals are independent gaps of the unit process."""
    shape = 1.0 if kind == "poisson" else 0.5
    extra = {} if kind == "poisson" else {"burstiness": shape}
    changing = arrival(**RATES[name], kind=kind, **extra)
    offsets = offsets_ns(changing, DURATION_S, generator(3, name, kind))
    rescaled = arrival_rate(changing, DURATION_S).expected(offsets / 1e9)
    gaps = np.diff(rescaled)
    assert len(gaps) > 80_000
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 1 / shape)).pvalue > LEVEL
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < stats.norm.isf(LEVEL / 2) / math.sqrt(len(gaps))
