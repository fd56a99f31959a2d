"""A sensor that shows one value for ever is found out, unless a model computed it."""

import numpy as np
import pytest

from inference_energy.analysis.power_series import PowerSeries
from inference_energy.analysis.sensor_checks import check_channel
from inference_energy.config.analysis import AnalysisConfig


@pytest.mark.parametrize(
    ("grade", "found"), [("counter", True), ("sampled", True), ("simulated", True), ("modelled", False)]
)
def test_only_a_model_may_stand_still(grade, found):
    times_ns = np.arange(100) * 100_000_000
    nothing = np.array([], dtype=np.int64)
    channel = PowerSeries(
        source="nvml",
        device="GPU-0",
        domain="gpu",
        grade=grade,
        reading="average",
        times_ns=times_ns,
        power_w=np.full(100, 310.0),
        counter_times_ns=nothing,
        counter_j=nothing.astype(float),
        empty_times_ns=nothing,
        event_times_ns=nothing,
        event_bits=nothing,
    )
    codes = [reason.code for reason in check_channel(channel, 0, int(times_ns[-1]), 0.1, AnalysisConfig())]
    assert ("stuck_sensor" in codes) == found
