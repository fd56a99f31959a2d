"""Requests that the drain cut off count where they were under way in the window, also if sent before it."""

import pytest
import synthetic
from faults import Case
from synthetic import recompute

S = 1_000_000_000


@pytest.mark.parametrize(
    ("sent_s", "end_s", "counts"), [(-4, 10, True), (30, 90, True), (-4, -1, False), (80, 90, False)]
)
def test_what_was_under_way_in_the_window_is_said(tmp_path, sent_s, end_s, counts):
    truth = synthetic.build_session(tmp_path, windows=synthetic.LOW_HIGH[:1])
    case = Case(tmp_path, truth)
    start_ns = case.window["start_ns"]

    def cut_off(table):
        first = table.index[table["cell"] == "low"][0]
        table.loc[first, ["first_token_ns", "last_token_ns", "completion_tokens", "prompt_tokens"]] = None
        table.loc[first, "status"] = "aborted"
        table.loc[first, ["sent_ns", "end_ns"]] = [start_ns + sent_s * S, start_ns + end_s * S]
        return table

    case.edit("requests", cut_off)
    (cell,) = recompute(case.raw, case.plan)["cells"]
    assert cell["counts"]["aborted"] == int(counts)
    for name in ("output_tokens", "energy_total_per_output_token_j"):
        figure = cell["figures"][name]
        assert figure["valid"]
        codes = [r["code"] for r in figure["reasons"]]
        assert ("aborted_requests" in codes) is counts
        # The server counted what the client has no usage of, wherever in the cell that was.
        assert set(codes) <= {"aborted_requests", "tokens_differ"}
        assert "tokens_differ" in codes
