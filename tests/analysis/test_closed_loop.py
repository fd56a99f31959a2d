"""A closed loop has no schedule: nothing is said of one, whatever `scheduled_ns` holds."""

import pytest
import synthetic
from faults import Case
from synthetic import recompute

CLOSED = synthetic.WindowSpec("low", process="closed", rate_qps=None, concurrency=4)
OPEN = synthetic.WindowSpec("open", process="constant", rate_qps=4.0)
OF_A_SCHEDULE = (
    "offered_requests_per_s",
    *(f"{name}_from_schedule_p{rank}_s" for name in ("ttft", "e2e") for rank in (50, 90)),
)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path, synthetic.build_session(tmp_path, windows=(CLOSED, OPEN)))


def test_a_closed_loop_has_no_offered_rate_and_no_latency_from_a_schedule(case):
    closed, opened = recompute(case.raw, case.plan)["cells"]
    for name in OF_A_SCHEDULE:
        figure = closed["figures"][name]
        assert figure["value"] is None
        assert [r["code"] for r in figure["reasons"]] == ["no_schedule"]
        assert opened["figures"][name]["valid"]
    for name in ("requests_per_s", "ttft_p50_s", "e2e_p50_s", "energy_total_per_request_j"):
        assert closed["figures"][name]["valid"]
    assert (closed["counts"]["scheduled"], closed["checks"]["client_lag_s"]) == (None, None)
    assert opened["counts"]["scheduled"] > 0
    assert opened["checks"]["client_lag_s"]["p99"] == pytest.approx(0.002)


def test_a_client_cannot_lag_behind_no_schedule(case):
    case.requests("scheduled_ns", lambda times: times - 500_000_000)
    figures = recompute(case.raw, case.plan)["cells"][0]["figures"]
    assert figures["energy_total_per_output_token_j"]["valid"]
    assert figures["energy_total_per_output_token_j"]["reasons"] == []
