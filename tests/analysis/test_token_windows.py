"""Cutting windows, and counting tokens by their times."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.analysis.token_times import TokenTimes
from inference_energy.analysis.windows import trimmed_windows
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.errors import InputError

COLUMNS = ("first_token_ns", "last_token_ns", "end_ns", "prompt_tokens", "cached_tokens", "completion_tokens")
S = 1_000_000_000


def table(*rows):
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype("Int64")


requests = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40), st.integers(0, 300)).map(
    lambda t: (t[0] * S, (t[0] + (t[1] if t[2] > 1 else 0)) * S, (t[0] + t[1] + 1) * S, t[3], 0, t[2])
)


@given(st.lists(requests, min_size=1, max_size=8), st.lists(st.integers(0, 110), min_size=3, max_size=3))
def test_tokens_of_a_split_window_add_up_and_none_is_lost(rows, edges):
    tokens = TokenTimes.from_requests(table(*rows))
    start, middle, end = (edge * S for edge in sorted(edges))
    parts = tokens.completion_inside(start, middle) + tokens.completion_inside(middle, end)
    assert (parts == tokens.completion_inside(start, end)).all()
    assert (tokens.completion_inside(0, 200 * S) == tokens.completion).all()


@given(requests, st.integers(0, 110 * S))
def test_tokens_are_counted_one_by_one(row, time_ns):
    first, last, _, _, _, count = row
    # Exact fractions: token k is before t when (first - t) (n - 1) + k (last - first) < 0.
    steps = max(count - 1, 1)
    slowly = sum((first - time_ns) * steps + k * (last - first) < 0 for k in range(count))
    assert TokenTimes.from_requests(table(row)).completion_inside(-1, time_ns).tolist() == [slowly]


def test_a_window_holds_its_start_and_not_its_end():
    tokens = TokenTimes.from_requests(table((10 * S, 12 * S, 12 * S, 100, 40, 3)))
    assert tokens.completion_inside(10 * S, 12 * S).tolist() == [2]
    assert tokens.prompt_inside(10 * S, 11 * S).tolist() == [100]
    assert tokens.cached_inside(10 * S, 11 * S).tolist() == [40]
    assert tokens.prompt_inside(9 * S, 10 * S).tolist() == [0]


def test_requests_without_tokens_count_nothing():
    failed = (pd.NA, pd.NA, 20 * S, 100, pd.NA, pd.NA)
    cut_off = (15 * S, 18 * S, 20 * S, pd.NA, pd.NA, pd.NA)
    tokens = TokenTimes.from_requests(table(failed, cut_off))
    assert tokens.completion_inside(0, 100 * S).tolist() == [0, 0]
    assert tokens.prompt_inside(0, 100 * S).tolist() == [0, 0]


def test_a_response_that_came_in_one_piece_counts_at_its_end():
    tokens = TokenTimes.from_requests(table((pd.NA, pd.NA, 20 * S, 100, 0, 7)))
    assert tokens.completion_inside(20 * S, 21 * S).tolist() == [7]
    assert tokens.prompt_inside(20 * S, 21 * S).tolist() == [100]


def phases(duration_s):
    rows = [("warmup", "warmup", 0, 5 * S), ("window", "chat", 5 * S, int((5 + duration_s) * S))]
    return pd.DataFrame(rows, columns=["phase", "cell", "start_ns", "end_ns"])


def test_windows_are_trimmed_at_both_ends():
    (window,) = trimmed_windows(phases(60), AnalysisConfig(trim_start_s=5.0, trim_end_s=2.0))
    assert (window.name, window.start_ns, window.end_ns, window.duration_s) == ("chat", 10 * S, 63 * S, 53.0)


def test_a_window_shorter_than_the_trims_names_the_key():
    with pytest.raises(InputError, match=r"window chat .*analysis\.trim_start_s"):
        trimmed_windows(phases(5), AnalysisConfig(trim_start_s=5.0))


def test_numbers_of_the_kernel_clock_stay_whole():
    first = 90 * 86_400 * S + 1
    tokens = TokenTimes.from_requests(table((first, first + 1_000_000_007, first + 2 * S, 1, 0, 1001)))
    assert tokens.completion_inside(first, first + 1_000_007).tolist() == [1 + (1_000_007 * 1000 // 1_000_000_007)]
    assert tokens.completion_inside(first, first + 1).dtype == np.int64
