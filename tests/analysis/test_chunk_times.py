"""Tokens counted where they arrived, and what that changes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_energy.analysis.token_times import TokenTimes, chunk_times, longest_gaps_s, read_chunks, token_gaps
from inference_energy.contracts import requests as contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.io import write_table

S = 1_000_000_000


def requests(*rows):
    """(id, first, last, tokens) of each, in s."""
    return pd.DataFrame(
        [
            {
                "request_id": number,
                "cell": "w",
                "first_token_ns": round(first * S),
                "last_token_ns": round(last * S),
                "end_ns": round(last * S) + 1,
                "prompt_tokens": 10,
                "cached_tokens": 0,
                "completion_tokens": tokens,
            }
            for number, first, last, tokens in rows
        ]
    ).astype({"completion_tokens": "Int64"})


def chunks(*rows):
    """(id, time in s, events, running count or None) of each."""
    frame = pd.DataFrame(
        [(number, "w", round(at * S), events, said) for number, at, events, said in rows],
        columns=contract.CHUNKS_SCHEMA.names,
    )
    return frame.astype({"completion_tokens": "Int64"})


BURSTS = ((7, 1.0, 1, None), (7, 2.0, 1, None), (7, 9.0, 8, None))


def test_tokens_count_when_they_came():
    asked = requests((7, 1.0, 9.0, 10), (8, 1.0, 9.0, 9))
    found = TokenTimes.from_requests(asked, chunks(*BURSTS))
    assert found.completion_inside(0, 5 * S).tolist() == [2, 4]  # the second has no arrivals: evenly
    assert TokenTimes.from_requests(asked).completion_inside(0, 5 * S).tolist() == [5, 4]
    assert found.completion_inside(0, 9 * S).tolist() == [2, 8]
    assert found.completion_inside(0, 9 * S + 1).tolist() == [10, 9]


def test_events_are_scaled_to_the_tokens_of_usage():
    found = chunk_times(requests((7, 1.0, 9.0, 25)), chunks(*BURSTS))
    assert found.tokens.tolist() == [2, 3, 20]


def test_the_servers_running_count_goes_before_events():
    said = chunks((7, 1.0, 1, 4), (7, 2.0, 1, 5), (7, 9.0, 8, 24))
    assert chunk_times(requests((7, 1.0, 9.0, 25)), said).tokens.tolist() == [4, 1, 20]


def test_a_request_without_usage_has_no_tokens_to_place():
    asked = requests((7, 1.0, 9.0, pd.NA), (8, 1.0, 2.0, 3))
    found = chunk_times(asked, chunks(*BURSTS, (8, 1.0, 3, None)))
    assert found.row.tolist() == [1]
    assert chunk_times(asked[:1], chunks(*BURSTS)) is None
    assert chunk_times(asked, None) is None


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=30),
    st.lists(st.integers(1, 40), min_size=4, max_size=4),
    st.lists(st.integers(0, 60), min_size=3, max_size=3),
    st.randoms(),
)
def test_no_token_is_lost_and_windows_add_up(rows, tokens, edges, random):
    asked = requests(*((number, 0, 50, count) for number, count in enumerate(tokens)))
    table = [(number, at, events, None) for number, at, events in rows]
    found = TokenTimes.from_requests(asked, chunks(*table))
    start, middle, end = (edge * S for edge in sorted(edges))
    parts = found.completion_inside(start, middle) + found.completion_inside(middle, end)
    assert (parts == found.completion_inside(start, end)).all()
    assert found.completion_inside(0, 100 * S).tolist() == tokens
    random.shuffle(table)
    again = TokenTimes.from_requests(asked, chunks(*table))
    assert (again.completion_inside(start, end) == found.completion_inside(start, end)).all()


def test_gaps_are_per_token_and_within_a_request():
    asked = requests((7, 1.0, 9.0, 10), (8, 1.5, 2.5, 2))
    found = chunk_times(asked, chunks(*BURSTS, (8, 1.5, 1, None), (8, 2.5, 1, None)))
    seconds, tokens, times_ns = token_gaps(found)
    assert seconds.tolist() == pytest.approx([1.0, 7 / 8, 1.0])
    assert tokens.tolist() == [1, 8, 1]
    assert (times_ns / S).tolist() == [2.0, 9.0, 2.5]
    longest = longest_gaps_s(found, 3)
    assert longest[:2].tolist() == pytest.approx([1.0, 1.0])
    assert np.isnan(longest[2])


def test_chunks_of_an_earlier_session_are_left_alone(tmp_path):
    write_table(tmp_path / "requests.parquet", [], requests_contract.SCHEMA, clock_anchor={"monotonic_ns": 2})
    assert read_chunks(tmp_path / "requests.parquet") is None
    write_table(tmp_path / "chunks.parquet", chunks(*BURSTS), contract.CHUNKS_SCHEMA, clock_anchor={"monotonic_ns": 1})
    assert read_chunks(tmp_path / "requests.parquet") is None
    write_table(tmp_path / "chunks.parquet", chunks(*BURSTS), contract.CHUNKS_SCHEMA, clock_anchor={"monotonic_ns": 2})
    assert len(read_chunks(tmp_path / "requests.parquet")) == 3
