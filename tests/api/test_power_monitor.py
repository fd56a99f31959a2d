"""Energy of a block of Python code, with the modelled source in place of sensors."""

import doctest
import os
import signal
import subprocess
import sys
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


def kill_sampler(monitor: PowerMonitor) -> None:
    assert monitor._sampler is not None and monitor._sampler.pid is not None
    os.kill(monitor._sampler.pid, signal.SIGKILL)


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
        kill_sampler(monitor)
        time.sleep(0.5)
    assert monitor.energy_j is None
    assert monitor.mean_power.value is None
    assert [reason.code for reason in monitor.reasons] == ["power_not_covered"]
    assert not monitor.recording.stats.clean


def test_an_error_in_the_block_goes_on_and_leaves_the_energy_up_to_there(tmp_path: Path) -> None:
    monitor = PowerMonitor(**MODELLED, log=tmp_path / "power.parquet")
    with pytest.raises(ZeroDivisionError), monitor:
        assert monitor.alive()
        time.sleep(0.4)
        raise ZeroDivisionError
    assert not monitor.alive()
    assert monitor.energy_j is not None
    assert 60 * monitor.duration_s <= monitor.energy_j * 1.001 <= 65.1 * monitor.duration_s
    assert pq.read_table(tmp_path / "power.parquet").num_rows == monitor.recording.log.num_rows


def test_an_error_after_the_sampler_died_leaves_a_reason_for_the_missing_energy() -> None:
    monitor = PowerMonitor(**MODELLED)
    with pytest.raises(ZeroDivisionError), monitor:
        time.sleep(0.6)
        kill_sampler(monitor)
        time.sleep(0.5)
        raise ZeroDivisionError
    assert monitor.energy_j is None
    assert "power_not_covered" in [reason.code for reason in monitor.reasons]


def test_an_error_is_not_hidden_by_a_log_that_cannot_be_read() -> None:
    monitor = PowerMonitor(**MODELLED)
    with pytest.raises(ZeroDivisionError) as caught, monitor:
        monitor._stream.unlink()
        raise ZeroDivisionError
    assert "no such log" in caught.value.__notes__[0]
    with pytest.raises(RunError, match="no such log"):
        monitor.energy  # noqa: B018


def test_an_interrupt_of_the_wait_after_the_block_keeps_the_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = time.sleep

    def interrupted(seconds: float) -> None:
        monkeypatch.setattr(time, "sleep", slept)  # once
        raise KeyboardInterrupt

    monitor = PowerMonitor(**MODELLED)
    monitor.start()
    time.sleep(0.3)
    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        monitor.stop()
    assert not monitor.alive()
    assert monitor.recording.log.num_rows > 0


def test_a_log_has_one_monitor_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "power.csv"
    monkeypatch.chdir(tmp_path)
    with PowerMonitor(**MODELLED, log=log) as outer:
        with (
            pytest.raises(InputError, match=r"^log: .*power\.csv: another power monitor"),
            PowerMonitor(**MODELLED, log="power.csv"),
        ):
            pass
        with PowerMonitor(**MODELLED, log=tmp_path / "other.csv"):
            time.sleep(0.1)
    assert outer.recording.stats.clean
    with PowerMonitor(**MODELLED, log=log):
        time.sleep(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "power.csv"]


def test_a_log_has_one_monitor_of_all_processes(tmp_path: Path) -> None:
    log = tmp_path / "power.csv"
    program = f"""
import sys
from inference_energy import PowerMonitor
with PowerMonitor(sources=["modelled"], tdp_w=65, log={str(log)!r}):
    print("running", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"running\n"
        with pytest.raises(InputError, match="another power monitor"), PowerMonitor(**MODELLED, log=log):
            pass
        other.kill()
    with PowerMonitor(**MODELLED, log=log) as monitor:
        time.sleep(0.2)
    assert monitor.energy_j is not None, "the lock of a killed process does not last"


def test_the_log_stays_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    with PowerMonitor(**MODELLED, log="power.csv"):
        os.chdir(elsewhere)
    assert (tmp_path / "power.csv").is_file()
    assert list(elsewhere.iterdir()) == []


def test_a_log_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for log in (tmp_path / "file" / "power.csv", tmp_path / "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"cannot be written|is a folder"), PowerMonitor(**MODELLED, log=log):
            pass


def test_a_process_that_is_not_there_is_refused() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        # Until it is waited for, the ended process is a zombie.
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with (
            pytest.raises(InputError, match=rf"^pid: there is no process {ended.pid}"),
            PowerMonitor(**MODELLED, pid=ended.pid),
        ):
            pass
    with (
        pytest.raises(InputError, match=rf"^pid: there is no process {ended.pid}"),
        PowerMonitor(**MODELLED, pid=ended.pid),
    ):
        pass
    with PowerMonitor(**MODELLED, pid=os.getpid()) as monitor:
        time.sleep(0.2)
    assert monitor.energy_j is not None


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
    with pytest.raises(InputError, match=r"^log: power\.txt: .*\.csv or \.parquet"):
        PowerMonitor(log="power.txt")
    for settings in ([1], "redfish", 5):
        with pytest.raises(InputError, match=r"^settings: .* write keys of the section power"):
            PowerMonitor(settings=settings)
    for limits in ({"gpu": -1}, {"gpuu": 1}, {"gpu": "much"}, 5):
        with pytest.raises(InputError, match=r"^plausible_power_w"):
            PowerMonitor(settings={"plausible_power_w": limits})
    for name in ("\0.csv", "x" * 300 + ".csv"):
        with pytest.raises(InputError, match=r"^log: .*cannot be the name of a file"):
            PowerMonitor(log=name)
    with pytest.raises(InputError, match=r"^period_s: .*0\.002"):
        PowerMonitor(period_s=0.0)
    with pytest.raises(InputError, match=r"power\.modelled\.tdp_w"), PowerMonitor(sources=["modelled"]):
        pass
    log = tmp_path / "power.parquet"
    with pytest.raises(InputError, match="wattmeter"), PowerMonitor(sources=["wattmeter"], log=log):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gpus": "12"}, r"^gpus: '12' is no list; write a list, such as \['12'\]"),
        ({"gpus": {"0": 1}}, r"^gpus: .* is no list"),
        ({"sources": "modelled"}, r"^sources: 'modelled' is no list; write a list, such as \['modelled'\]"),
        ({"sources": None}, r"^sources: None is no list"),
        ({"log": 5}, r"^log: 5: write the name of a file"),
        ({"settings": {"interval_s": 9}}, r"^settings: interval_s is set by the argument period_s"),
        ({"settings": {"modelled": {"tdp_w": 70}}, "tdp_w": 65}, r"^settings: modelled is set by the arguments tdp_w"),
    ],
)
def test_arguments_that_would_be_taken_for_others_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PowerMonitor(**arguments)
