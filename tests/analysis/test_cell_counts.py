"""Totals of a whole cell against the server's counters: exact, or by how much and why."""

import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.token_reconciliation import CellSpan, cell_spans, compare_cell, prompt_lengths
from inference_energy.contracts.documents.windows import CellRequestTotals, FinishedRequests, PromptLengths

S = 1_000_000_000
SPAN = CellSpan(10 * S, 40 * S, 45 * S)
NAMES = {
    "vllm": {
        "generated": "vllm:generation_tokens_total",
        "prompt": "vllm:prompt_tokens_total",
        "cached": "vllm:prompt_tokens_cached_total",
        "preemptions": "vllm:num_preemptions_total",
    },
    "sglang": {
        "generated": "sglang:generation_tokens_total",
        "prompt": "sglang:prompt_tokens_total",
        "cached": "sglang:cached_tokens_total",
        "ended": "sglang:num_requests_total",
        "aborted": "sglang:num_aborted_requests_total",
    },
}


def metrics(rises, finished=None, *, times_s=(5, 10, 25, 41, 44), engine="vllm"):
    """Counters that had counted before the cell, rise in its middle, and stay."""
    steps = np.array([0.0, 0.0, 0.5, 1.0, 1.0])
    series = [(NAMES[engine][kind], "{}", 1000 + rise * steps) for kind, rise in rises.items()]
    name = "vllm:request_success_total"
    series += [(name, f'{{"finished_reason": "{why}"}}', 7 + n * steps) for why, n in (finished or {}).items()]
    times = (np.array(times_s) * S).astype(np.int64)
    frames = [pd.DataFrame({"timestamp_ns": times, "name": n, "labels": k, "value": v}) for n, k, v in series]
    return pd.concat(frames)


def requests(ok=10, cut=0, known=None):
    """Requests of 100 prompt tokens, 20 of them cached, and 50 generated; of those cut off only what is known."""
    rows = [
        {
            "request_id": number,
            "sent_ns": 11 * S,
            "prompt_tokens": 100 if number < ok else pd.NA,
            "cached_tokens": 20 if number < ok else pd.NA,
            "completion_tokens": 50 if number < ok else (known or pd.NA),
            "finish_reason": "length" if number < ok else None,
            "status": "ok" if number < ok else "aborted",
        }
        for number in range(ok + cut)
    ]
    kinds = dict.fromkeys(("request_id", "sent_ns", "prompt_tokens", "cached_tokens", "completion_tokens"), "Int64")
    return pd.DataFrame(rows).astype(kinds)


def schedule(count, max_tokens=50, prompt_tokens=100):
    return pd.DataFrame({"request_id": range(count), "max_tokens": max_tokens, "prompt_tokens": prompt_tokens})


EXACT = {"generated": 500, "prompt": 1000, "cached": 200, "preemptions": 0}


def judged(rises, finished=None, tolerance=0.02, planned=None, **kind):
    found, reasons = compare_cell(requests(**kind), planned, ServerMetrics(metrics(rises, finished)), SPAN, tolerance)
    return found, [r.code for r in reasons], [r.detail for r in reasons]


def test_exact_totals_leave_nothing_to_say():
    found, codes, _ = judged(EXACT, {"length": 10, "stop": 0, "abort": 0})
    assert codes == []
    assert (found.from_ns, found.to_ns) == (10 * S, 44 * S)
    for kind, total in (("generated", 500), ("prompt", 1000), ("cached", 200)):
        row = getattr(found.tokens, kind)
        assert (row.client, row.server, row.difference, row.causes) == (total, total, 0, [])
    assert found.finished == {"length": FinishedRequests(client=10, server=10)}
    assert found.requests == CellRequestTotals(sent=10, not_whole=0, of_others=0)


def test_requests_that_were_cut_off_explain_what_the_server_counted_for_them():
    rises = {**EXACT, "generated": 560, "prompt": 1200}
    found, codes, details = judged(rises, {"length": 10, "abort": 2}, planned=schedule(12), cut=2)
    assert codes == ["tokens_differ", "tokens_differ"]
    row = found.tokens.generated
    assert (row.difference, row.explained, row.unexplained) == (-60, 60, 0)
    assert "60 generated tokens more than the client (560): 2 request(s) that were cut off" in details[0]
    assert found.finished["not ok"] == FinishedRequests(client=2, server=2)


def test_they_explain_no_more_than_they_can_have_cost():
    found, codes, details = judged({**EXACT, "generated": 640}, planned=schedule(12, max_tokens=40), cut=2)
    row = found.tokens.generated
    assert (row.explained, row.unexplained) == (80, 60)
    assert codes == ["token_mismatch"]
    assert "which can explain 80" in details[0]


def test_what_they_told_before_is_not_explained_twice():
    found, _, _ = judged({**EXACT, "generated": 560}, planned=schedule(12), cut=2, known=30)
    row = found.tokens.generated
    assert (row.client, row.difference) == (560, 0)
    more, _, _ = judged({**EXACT, "generated": 600}, planned=schedule(12), cut=2, known=30)
    assert more.tokens.generated.explained == 40


@pytest.mark.parametrize(
    ("server", "code"),
    [(501, "tokens_differ"), (510, "tokens_differ"), (511, "token_mismatch"), (480, "token_mismatch")],
)
def test_what_nothing_explains_is_judged_by_the_tolerance(server, code):
    _, codes, details = judged({**EXACT, "generated": server})
    assert codes == [code]
    assert "nothing recorded explains it" in details[0]


def test_preemptions_and_requests_of_others_are_named():
    rises = {**EXACT, "generated": 700, "prompt": 1300, "preemptions": 3}
    found, codes, details = judged(rises, {"length": 14})
    assert codes == ["token_mismatch", "token_mismatch"]
    assert found.requests.of_others == 4
    assert "4 request(s) of others" in details[0]
    assert "preemption" not in details[0]
    assert "3 preemption(s)" in details[1]


def test_cached_tokens_give_no_reason_against_and_need_the_servers_word():
    _, codes, _ = judged({**EXACT, "cached": 900})
    assert codes == ["tokens_differ"]
    untold = requests().assign(cached_tokens=pd.NA)
    found, reasons = compare_cell(untold, None, ServerMetrics(metrics(EXACT)), SPAN, 0.02)
    assert found.tokens.cached is None
    assert reasons == []


def test_a_restart_is_said_and_nothing_compared():
    table = metrics(EXACT)
    table.loc[table["timestamp_ns"] > 20 * S, "value"] -= 900
    found, reasons = compare_cell(requests(), None, ServerMetrics(table), SPAN, 0.02)
    assert [r.code for r in reasons] == ["server_restarted"]
    assert "restarted" in found.why
    assert found.tokens is None


@pytest.mark.parametrize("times_s", [(12, 13, 25, 41, 44), (5, 10, 25, 38, 39), (5, 10, 25, 46, 47)])
def test_without_scrapes_on_both_sides_nothing_is_compared(times_s):
    found, reasons = compare_cell(requests(), None, ServerMetrics(metrics(EXACT, times_s=times_s)), SPAN, 0.02)
    assert "were not read" in found.why
    assert reasons == []


def test_sglang_tells_the_same_under_its_names():
    rises = {"generated": 500, "prompt": 1000, "cached": 200, "ended": 12, "aborted": 2}
    found, reasons = compare_cell(requests(), None, ServerMetrics(metrics(rises, engine="sglang")), SPAN, 0.02)
    assert reasons == []
    assert found.engine == "SGLang"
    assert found.finished == {
        "ended": FinishedRequests(client=10, server=10),
        "not ok": FinishedRequests(client=0, server=2),
    }


def test_the_order_of_requests_does_not_matter():
    mixed = requests(cut=3).sample(frac=1.0, random_state=1)
    args = (schedule(13), ServerMetrics(metrics(EXACT)), SPAN, 0.02)
    assert compare_cell(mixed, *args) == compare_cell(requests(cut=3), *args)


def test_a_cells_span_ends_where_the_next_begins():
    rows = [("warmup", "warmup", 0, 5), ("drain", "warmup", 5, 7), ("window", "a", 8, 20), ("drain", "a", 20, 22)]
    phases = pd.DataFrame(rows, columns=["phase", "cell", "start_ns", "end_ns"])
    assert cell_spans(phases) == {"warmup": CellSpan(0, 7, 8), "a": CellSpan(8, 22, None)}


def test_lengths_of_prompts_are_those_asked_for_or_the_share_is_said():
    asked = schedule(10)
    found, notes = prompt_lengths(requests(), asked)
    assert found == PromptLengths(compared=10, different=0, share=0.0, mean_difference=0.0)
    assert notes == []
    asked.loc[:1, "prompt_tokens"] = 95
    found, notes = prompt_lengths(requests(), asked)
    assert (found.different, found.share, found.mean_difference) == (2, 0.2, 1.0)
    assert [n.code for n in notes] == ["prompt_length_differs"]
    assert prompt_lengths(requests(), None) == (None, [])
    assert prompt_lengths(requests(), asked.assign(prompt_tokens=pd.NA)) == (None, [])
