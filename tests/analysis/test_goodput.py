"""Goodput: which requests kept all limits, which limit the others broke, and the joules of a good one."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from synthetic import recompute

from inference_energy.analysis.latency import goodput
from inference_energy.analysis.token_times import ChunkTimes
from inference_energy.analysis.windows import Window
from inference_energy.config.analysis import Slo
from inference_energy.contracts.documents.windows import LimitCount

MS = 1_000_000
WINDOW = Window("w", 0, 20_000 * MS)


def requests(*rows):
    """(scheduled, sent, first, last in ms, tokens, status) of each."""
    frame = pd.DataFrame(rows, columns=["scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "n", "status"])
    times = {name: (frame[name] * MS).astype("Int64") for name in frame.columns[:4]}
    return frame.assign(**times, end_ns=times["last_token_ns"], completion_tokens=frame["n"].astype("Int64"))


GOOD = (1000, 1010, 1100, 1600, 11, "ok")
LATE = (1000, 1300, 1390, 1500, 11, "ok")  # late to send: within the limit from the send, not from the schedule
SLOW = (1000, 1010, 1100, 3100, 11, "ok")
FAILED = (1000, 1010, 1100, 1600, 11, "failed")
LONE = (1000, 1010, 1100, 1100, 1, "ok")


def judge(*rows, scheduled=True, arrived=None, **limits):
    return goodput(requests(*rows), arrived, Slo(**limits), WINDOW, scheduled=scheduled, reasons=[], notes=[])


def test_a_request_must_keep_every_limit():
    found = judge(GOOD, LATE, SLOW, FAILED, LONE, ttft_s=0.3, tpot_s=0.1)
    assert found.figures["good_requests"].value == 2
    assert found.figures["goodput_share"].value == pytest.approx(0.4)
    assert found.figures["goodput_requests_per_s"].value == pytest.approx(2 / 20)
    assert found.limits == {
        "ttft_s": LimitCount(limit=0.3, over=1, of=4),
        "tpot_s": LimitCount(limit=0.1, over=1, of=4),
    }
    assert sum(found.bins["good_requests"]) == 2
    assert found.figures["good_output_tokens"].value == sum(found.bins["good_output_tokens"]) == 12


def test_without_a_schedule_the_send_counts():
    assert judge(LATE, scheduled=False, ttft_s=0.3).figures["good_requests"].value == 1


def test_end_to_end_and_the_edge_of_a_limit():
    assert judge(SLOW, e2e_s=2.1).figures["good_requests"].value == 1
    assert judge(SLOW, e2e_s=2.09).figures["good_requests"].value == 0


def test_the_longest_time_between_tokens_counts():
    arrived = ChunkTimes(np.zeros(3, dtype=np.int64), np.array([1100, 1150, 1600]) * MS, np.array([1, 5, 5]))
    assert judge(GOOD, arrived=arrived, itl_s=0.1).figures["good_requests"].value == 1
    assert judge(GOOD, arrived=arrived, itl_s=0.08).figures["good_requests"].value == 0
    withheld = judge(GOOD, itl_s=0.1)
    assert [r.code for r in withheld.figures["goodput_share"].reasons] == ["no_chunk_times"]
    assert withheld.limits["itl_s"].over is None


def test_the_share_has_an_interval_within_0_and_1():
    rng = np.random.default_rng(1)
    rows = [(at, at, at + (100 if rng.random() < 0.8 else 900), at + 1000, 11, "ok") for at in range(0, 18_000, 20)]
    share = judge(*rows, ttft_s=0.5).figures["goodput_share"]
    low, high = share.interval_95
    assert 0 <= low < share.value < high <= 1
    assert low < 0.8 < high


def test_more_lenient_limits_never_have_fewer_good_requests():
    rng = np.random.default_rng(2)
    rows = [(0, 10, 10 + int(t), 600 + int(t), 11, "ok") for t in rng.integers(1, 500, 60)]
    counts = [judge(*rows, ttft_s=limit).figures["good_requests"].value for limit in (0.05, 0.2, 0.4, 1.0)]
    assert counts == sorted(counts)
    assert counts[-1] == 60


def test_in_the_summary_there_is_an_energy_per_good_request(tmp_path):
    truth = synthetic.build_session(tmp_path)
    plan = synthetic.plan([truth])
    without = recompute(tmp_path, plan)["cells"][1]
    assert "energy_total_per_good_request_j" not in without["figures"]
    assert without["checks"]["limits"] is None
    plan["analysis"]["slo"] = {"ttft_s": 0.06}
    cell = recompute(tmp_path, plan)["cells"][1]
    figures = cell["figures"]
    good = figures["good_requests"]["value"]
    assert 0 < good < figures["requests"]["value"]
    per_good = figures["energy_total_per_good_request_j"]
    assert per_good["value"] == pytest.approx(figures["energy_total_j"]["value"] / good)
    assert per_good["interval_95"][0] < per_good["value"] < per_good["interval_95"][1]
    assert cell["checks"]["limits"]["ttft_s"]["over"] > 0
