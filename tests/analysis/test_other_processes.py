"""Other processes on the GPU: which stretches of time they spoil."""

import pytest

from inference_energy.analysis.sensor_checks import others_reasons

START_NS, END_NS = 100_000_000_000, 160_000_000_000


def counted(first_s, last_s, key="foreign_processes"):
    process = {"pid": 7, "name": None, "first_seen_ns": first_s * 10**9, "last_seen_ns": last_s * 10**9}
    return {"channels": [{"device": "GPU-0"}, {"device": "GPU-0", key: [process]}]}


@pytest.mark.parametrize(
    ("first_s", "last_s", "spoils"),
    [(0, 98, False), (0, 99, True), (120, 120, True), (161, 200, True), (162, 200, False), (0, 300, True)],
)
def test_a_process_counts_from_a_second_before_to_a_second_after(first_s, last_s, spoils):
    found = others_reasons(counted(first_s, last_s), START_NS, END_NS)
    assert [reason.code for reason in found] == (["foreign_process"] if spoils else [])


def test_the_reason_names_the_process_and_the_gpu():
    (reason,) = others_reasons(counted(120, 130), START_NS, END_NS)
    assert "pid 7" in reason.detail and "GPU-0" in reason.detail


def test_an_old_log_without_counts_says_nothing():
    assert others_reasons({"interval_s": 0.1}, START_NS, END_NS) == []
    assert others_reasons({"channels": None}, START_NS, END_NS) == []
