"""Energy of a block of Python code, with the modelled source in place of sensors."""

import doctest
import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import inference_energy
from inference_energy import PowerMonitor
from inference_energy.api import power_monitor
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

MODELLED: dict[str, Any] = {"sources": ["modelled"], "period_s": 0.02, "tdp_w": 65, "idle_w": 60}


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(power_monitor).failed == 0


def test_the_root_gives_it() -> None:
    assert inference_energy.PowerMonitor is power_monitor.PowerMonitor


def test_energy_is_that_of_the_block_alone(tmp_path: Path) -> None:
    with PowerMonitor(**MODELLED) as monitor:
        time.sleep(0.8)
    assert 0.8 <= monitor.duration_s < 20
    energy = monitor.energy
    assert energy.value is not None
    assert 60 * monitor.duration_s <= energy.value * 1.001 <= 65.1 * monitor.duration_s
    assert (energy.unit, energy.basis, energy.boundary, energy.grade) == ("J", "total", "cpu (modelled)", "modelled")
    assert monitor.energy_j == energy.value
    assert monitor.mean_power.unit == "W"
    assert monitor.mean_power.value == pytest.approx(energy.value / monitor.duration_s)
    assert [(device, part.value) for device, part in monitor.by_device.items()] == [("cpu", energy.value)]
    assert monitor.reasons == energy.reasons
    assert monitor.recording.stats.ended_by == "request"
    logged_ns = monitor.recording.log["timestamp_ns"].to_pylist()
    assert (logged_ns[-1] - logged_ns[0]) / 1e9 > monitor.duration_s, "readings reach beyond the block"


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_readings_are_kept_where_asked(tmp_path: Path, ending: str) -> None:
    log = tmp_path / "logs" / f"power.{ending}"
    with PowerMonitor(**MODELLED, log=log) as monitor:
        time.sleep(0.2)
    assert list(log.parent.iterdir()) == [log]
    if ending == "parquet":
        assert pq.read_table(log).num_rows == monitor.recording.log.num_rows
    else:
        assert log.read_text().startswith("time,power_W,")


def test_a_sampler_that_dies_withholds_the_energy() -> None:
    with PowerMonitor(**MODELLED) as monitor:
        time.sleep(0.6)
        assert monitor._sampler is not None and monitor._sampler.pid is not None
        os.kill(monitor._sampler.pid, signal.SIGKILL)
        time.sleep(0.5)
    assert monitor.energy_j is None
    assert monitor.mean_power.value is None
    assert [reason.code for reason in monitor.reasons] == ["power_not_covered"]
    assert not monitor.recording.stats.clean


def test_an_error_in_the_block_is_not_hidden_and_ends_the_sampler() -> None:
    monitor = PowerMonitor(**MODELLED)
    with pytest.raises(ZeroDivisionError), monitor:
        assert monitor.alive()
        raise ZeroDivisionError
    assert not monitor.alive()


def test_it_can_be_used_again_but_not_twice_at_once() -> None:
    monitor = PowerMonitor(**MODELLED)
    with pytest.raises(RunError, match="no readings yet"):
        monitor.energy  # noqa: B018
    with pytest.raises(RunError, match="not running"):
        monitor.stop()
    with monitor:
        time.sleep(0.3)
        with pytest.raises(RunError, match="is running"):
            monitor.start()
    first_j = monitor.energy_j
    with monitor:
        time.sleep(0.6)
    assert first_j is not None and monitor.energy_j is not None
    assert monitor.energy_j > 0


def test_wrong_arguments_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"power\.txt"):
        PowerMonitor(log="power.txt")
    with pytest.raises(InputError, match="interval_s"):
        PowerMonitor(period_s=0.0)
    with pytest.raises(InputError, match=r"power\.modelled\.tdp_w"), PowerMonitor(sources=["modelled"]):
        pass
    log = tmp_path / "power.parquet"
    with pytest.raises(InputError, match="wattmeter"), PowerMonitor(sources=["wattmeter"], log=log):
        pass
    assert list(tmp_path.iterdir()) == []
