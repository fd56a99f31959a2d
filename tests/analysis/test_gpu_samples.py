"""The driver's own samples in a power log change no sum: they tell of power that the domain `gpu` already holds."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.power_series import boundary, series_from_log, summed
from inference_energy.contracts.power import GPU_SAMPLES, SCHEMA

SOURCES = [{"name": "nvml", "grade": "counter"}]


def rows(domain: str, device: str, period_s: float, power_w: float) -> pd.DataFrame:
    times_ns = (np.arange(0, 20, period_s) * 1e9).astype(np.int64)
    known = {"timestamp_ns": times_ns, "source": "nvml", "device": device, "domain": domain, "power_instant_w": power_w}
    return pd.DataFrame(known).reindex(columns=SCHEMA.names)


@pytest.mark.parametrize("reading", ["average", "instant"])
def test_samples_beside_polls_are_not_added_and_not_preferred(reading: str) -> None:
    polls = [rows("gpu", "GPU-a", 0.1, 100.0), rows("gpu", "GPU-b", 0.1, 50.0)]
    samples = [rows(GPU_SAMPLES, "GPU-a", 0.02, 104.0), rows(GPU_SAMPLES, "GPU-b", 0.02, 54.0)]
    without = summed(series_from_log(pd.concat(polls), SOURCES, reading))  # type: ignore[arg-type]
    found = series_from_log(pd.concat([*samples, *polls]), SOURCES, reading)  # type: ignore[arg-type]
    chosen = summed(found)
    assert {channel.domain for channel in found} == {"gpu", GPU_SAMPLES}
    assert [(c.device, c.domain, c.grade) for c in chosen] == [(c.device, c.domain, c.grade) for c in without]
    assert boundary(chosen) == "gpu"
    energies_j = [channel.energy_j(1_000_000_000, 11_000_000_000) for channel in chosen]
    assert energies_j == pytest.approx([1000.0, 500.0])


def test_samples_alone_make_no_sum() -> None:
    assert summed(series_from_log(rows(GPU_SAMPLES, "GPU-a", 0.02, 100.0), SOURCES, "instant")) == []
