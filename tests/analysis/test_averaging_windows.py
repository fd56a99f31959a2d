"""Average power counts for half of what it averages over earlier, as the log says."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.power_series import PowerSeries, series_from_log
from inference_energy.analysis.sensor_checks import check_channel
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.power import SCHEMA

S = 1_000_000_000


def one(source: str = "nvml", counter: bool = False, reading: str = "average", **facts: float | None) -> PowerSeries:
    times_ns = (np.arange(0, 20, 0.1) * S).astype(np.int64)
    flicker_w = 200 + np.sin(7.3 * times_ns / S)
    known = {"timestamp_ns": times_ns, "source": source, "device": "GPU-a", "domain": "gpu"}
    rows = pd.DataFrame({**known, "power_average_w": flicker_w, "power_instant_w": flicker_w})
    if counter:
        counted = pd.DataFrame({**known, "energy_counter_j": 1e6 + 200 * times_ns / S})
        rows = pd.concat([rows, counted.iloc[::5]])
    about = {"name": source, "grade": "sampled"}
    if facts:
        about["channels"] = [{"device": "GPU-a", "domain": "gpu", **facts}]  # type: ignore[assignment]
    (found,) = series_from_log(rows.reindex(columns=SCHEMA.names), [about], reading)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("source", "window_s", "delay_s"),
    [("nvml", 1.0, 0.5), ("nvml", 0.0, 0.0), ("nvml", 0.6, 0.3), ("dcgm", 1.0, 0.5), ("amd-smi", 0.0, 0.0)],
)
def test_the_log_says_how_much_earlier_and_how_blurred(source: str, window_s: float, delay_s: float) -> None:
    found = one(source, averaging_window_s=window_s)
    assert (found.reading_delay_s, found.half_averaging_time_s) == (delay_s, delay_s)
    assert found.times_ns[0] == -round(delay_s * S)
    assert found.other_series["instant"][0][0] == 0, "instantaneous readings stand where they were read"
    taken_instant = one(source, reading="instant", averaging_window_s=window_s)
    assert (taken_instant.times_ns[0], taken_instant.reading_delay_s) == (0, 0.0)


@pytest.mark.parametrize(("source", "delay_s"), [("nvml", 0.5), ("nvidia-smi", 0.5), ("dcgm", 0.0), ("redfish", 0.0)])
def test_a_log_from_before_it_said_so_is_read_as_before(source: str, delay_s: float) -> None:
    found = one(source)
    assert (found.reading_delay_s, found.half_averaging_time_s, found.times_ns[0]) == (
        delay_s,
        delay_s,
        -round(delay_s * S),
    )


def test_a_channel_that_averages_nothing_is_not_moved() -> None:
    assert one(mig=None).averaging_s == 0.0


def codes(found: PowerSeries) -> dict[str, str]:
    return {r.code: r.detail for r in check_channel(found, 2 * S, 15 * S, 0.1, AnalysisConfig())}


def test_an_unknown_window_moves_nothing_and_is_said() -> None:
    found = one(averaging_window_s=None)
    assert (found.times_ns[0], found.reading_delay_s) == (0, 0.0)
    assert found.half_averaging_time_s == 0.5, "and an idle phase keeps away from its edges as if it were a second"
    assert "edges are blurred" in codes(found)["averaging_unknown"]
    counted = one(counter=True, averaging_window_s=None)
    assert counted.uses_counter and "checks the counter only roughly" in codes(counted)["averaging_unknown"]
    for known in (one(), one(averaging_window_s=1.0), one(reading="instant", averaging_window_s=None)):
        assert "averaging_unknown" not in codes(known)
