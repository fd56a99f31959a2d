"""Logs of other tools give figures or one refusal, whatever they hold; nothing warns and nothing is a traceback."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzzing import damaged, fuzz

from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.analysis.power_log_file import read_power_log
from inference_energy.analysis.request_log_file import read_request_log
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.power import CSV_COLUMNS
from inference_energy.errors import InputError

T0 = 1_700_000_000
OWN_HEAD = ["time", "power_W", "gpu_util", "mem_used_bytes", "source", "grade", *CSV_COLUMNS]

POWER_LOGS = [
    "time,power_W\n" + "".join(f"{T0 + i / 10:.1f},{300 + i % 3}\n" for i in range(30)),
    "time,index,power_W\n" + "".join(f"{T0 + i / 10:.1f},{g},{300 + i % 3}\n" for i in range(20) for g in range(2)),
    "timestamp, uuid, name, power.draw [W], power.limit [W]\n"
    + "".join(
        f"2023/11/14 22:13:{20 + i / 10:06.3f}, GPU-{g}, H100, {300 + i}.5 W, 700 W\n" for i in range(9) for g in "ab"
    ),
    "time_ms;gpu0_power_mw;gpu1_power_mw\n" + "".join(f"{i * 100};{300 + i},5;{i + 100},25\n" for i in range(20)),
    ",".join(OWN_HEAD)
    + "\n"
    + "".join(
        f"{T0 + i / 10:.9f},300,,,nvml,counter,gpu,nvml,GPU-0,gpu,counter,{300 + i % 3},1.0,,{30 * i},,,,,4,9\n"
        for i in range(20)
    ),
]
REQUEST_LOGS = [
    "timestamp,prompt_tokens,completion_tokens,latency,status\n"
    + "".join(f"{T0 + i / 10},100,50,0.5,{'ok' if i else 200.0}\n" for i in range(9)),
    "timestamp_ms\tprompt_tokens\tcompletion_tokens\tlatency_ms\tsuccess\terror\n"
    + "".join(f"{i * 100}\t100\t50\t500\tTrue\t\n" for i in range(9)),
    "timestamp,prompt_tokens,completion_tokens,latency,http_status,text\n"
    + "".join(f'2023-11-14T22:13:2{i}Z,1,5,0.5,{200 + 300 * (i % 2)},"a\nb"\n' for i in range(5)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def test_power_logs_are_read_or_refused(path, tmp_path):
    requests = tmp_path / "requests.csv"
    requests.write_text(REQUEST_LOGS[0])

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                log = read_power_log(path, "average")
                document = analyze_logs(path, requests, 10.0, AnalysisConfig())
            except InputError as error:
                assert len(str(error)) < 2000
                return
        for channel in log.channels:
            assert (np.diff(channel.energy_times_ns) >= 0).all()
            assert np.isfinite(channel.power_w).all()
        for figure in document.figures.values():
            assert figure.value is None or np.isfinite(figure.value)

    fuzz(damaged([log.encode() for log in POWER_LOGS]), check)


def test_request_logs_are_read_or_refused(path):
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                frame = read_request_log(path).frame
            except InputError as error:
                assert len(str(error)) < 2000
                return
        assert len(frame) and (frame["end_ns"] >= frame["start_ns"]).all()
        for name in ("prompt_tokens", "completion_tokens"):
            known = frame[name].dropna()
            assert ((known >= 0) & (known <= 2**40)).all()

    fuzz(damaged([log.encode() for log in REQUEST_LOGS]), check)
