"""Other processes on the GPU: which stretches of time they spoil."""

import msgspec
import pytest

from inference_energy.analysis.sensor_checks import other_process_reasons
from inference_energy.contracts.documents.session import PowerLogRecord

START_NS, END_NS = 100_000_000_000, 160_000_000_000


def counted(first_s, last_s, key="foreign_processes"):
    process = {"pid": 7, "name": None, "first_seen_ns": first_s * 10**9, "last_seen_ns": last_s * 10**9}
    channel = {"source": "nvml", "device": "GPU-0", "domain": "gpu"}
    return msgspec.convert({"channels": [channel, {**channel, key: [process]}]}, PowerLogRecord)


@pytest.mark.parametrize(
    ("first_s", "last_s", "spoils"),
    [(0, 98, False), (0, 99, True), (120, 120, True), (161, 200, True), (162, 200, False), (0, 300, True)],
)
def test_a_process_counts_from_a_second_before_to_a_second_after(first_s, last_s, spoils):
    found = other_process_reasons(counted(first_s, last_s), START_NS, END_NS)
    assert [reason.code for reason in found] == (["foreign_process"] if spoils else [])


def test_the_reason_names_the_process_and_the_gpu():
    (reason,) = other_process_reasons(counted(120, 130), START_NS, END_NS)
    assert "pid 7" in reason.detail and "GPU-0" in reason.detail


def test_an_old_log_without_counts_says_nothing():
    assert other_process_reasons(PowerLogRecord(interval_s=0.1), START_NS, END_NS) == []
    assert other_process_reasons(None, START_NS, END_NS) == []
