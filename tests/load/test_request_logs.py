"""The logs of the load processes: readable however they were cut off, and merged in order."""

from pathlib import Path

import pytest

from inference_energy.acquire.load.request_log import RequestLogger, RowLog, merge_request_logs
from inference_energy.acquire.load.worker_pool import remove_logs
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.requests import ANSWERS_SCHEMA, CHUNKS_SCHEMA, SCHEMA, RequestRecord
from inference_energy.errors import RunError

ANCHOR = {"monotonic_ns": 5, "unix_ns": 7}


def record(number: int, scheduled_ns: int, worker: int = 0) -> RequestRecord:
    made = RequestRecord(number, "c", worker, "e", 0, None, scheduled_ns, sent_ns=scheduled_ns + 3)
    made.status, made.completion_tokens, made.end_ns = "ok", 4, scheduled_ns + 10
    return made


def log(folder: Path, worker: int, numbers: list[int], *, flush_each: bool = False, close: bool = True) -> Path:
    """A worker's log of requests: later numbers are due earlier."""
    logger = RequestLogger(folder, worker)
    logger.begin_cell(chunk_times=True, keep_answers=True)
    for number in numbers:
        one = record(number, 1000 - number, worker)
        logger.sent(one)
        logger.chunk(one, 1000 + number, 2, None if number % 2 else 8)
        logger.ended(one, f"text {number}")
        if flush_each:
            logger.flush()
    logger.flush()
    if close:
        logger.close()
    return folder / f"requests-{worker}.arrows"


def test_logs_of_all_workers_are_merged_in_the_order_of_the_schedule(tmp_path: Path) -> None:
    log(tmp_path, 0, [4, 1, 7])
    log(tmp_path, 11, [2, 9], close=False)
    merged = merge_request_logs(tmp_path, tmp_path / "out" / "requests.parquet", clock_anchor=ANCHOR)
    assert (merged.rows, merged.truncated) == (5, [])
    table = read_table(tmp_path / "out" / "requests.parquet", SCHEMA)
    assert table["request_id"].tolist() == [9, 7, 4, 2, 1]
    assert table["worker"].tolist() == [11, 0, 0, 11, 0]
    assert read_metadata(tmp_path / "out" / "requests.parquet")["clock_anchor"] == ANCHOR
    came = read_table(tmp_path / "out" / "chunks.parquet", CHUNKS_SCHEMA)
    assert came["request_id"].tolist() == [4, 1, 7, 2, 9]
    assert came["timestamp_ns"].tolist() == [1004, 1001, 1007, 1002, 1009]
    assert came["completion_tokens"].isna().tolist() == [False, True, True, False, True]
    assert read_metadata(tmp_path / "out" / "chunks.parquet")["clock_anchor"] == ANCHOR
    said = read_table(tmp_path / "out" / "answers.parquet", ANSWERS_SCHEMA)
    assert said["text"].tolist() == ["text 4", "text 1", "text 7", "text 2", "text 9"]


def test_a_record_is_logged_under_the_names_of_its_fields(tmp_path: Path) -> None:
    logger = RequestLogger(tmp_path, 0)
    logger.ended(RequestRecord(1, "cell", 2, "e", 3, None, 4, status_code=200, attempts=1), None)
    logger.close()
    merge_request_logs(tmp_path, tmp_path / "requests.parquet")
    (row,) = read_table(tmp_path / "requests.parquet", SCHEMA).to_dict("records")
    assert (row["request_id"], row["cell"], row["worker"], row["scheduled_ns"], row["status_code"]) == (
        1, "cell", 2, 4, 200,
    )  # fmt: skip
    assert (row["status"], row["attempts"]) == ("aborted", 1)


def test_equal_times_are_ordered_by_id(tmp_path: Path) -> None:
    logger = RequestLogger(tmp_path, 0)
    for number in (5, 3, 4):
        logger.ended(record(number, 100), None)
    logger.close()
    merge_request_logs(tmp_path, tmp_path / "requests.parquet")
    assert read_table(tmp_path / "requests.parquet", SCHEMA)["request_id"].tolist() == [3, 4, 5]


def test_a_log_cut_off_anywhere_gives_its_whole_batches(tmp_path: Path) -> None:
    path = log(tmp_path, 0, [1, 2, 3], flush_each=True, close=False)
    log(tmp_path, 1, [8])
    whole = path.read_bytes()
    seen = set()
    for length in range(len(whole), 0, -61):
        path.write_bytes(whole[:length])
        try:
            merged = merge_request_logs(tmp_path, tmp_path / "out" / "requests.parquet")
        except RunError as error:
            assert "nothing can be read" in str(error)  # not even the schema is there
            seen.add("none")
            continue
        ids = read_table(tmp_path / "out" / "requests.parquet", SCHEMA)["request_id"].tolist()
        assert ids == [8, *[3, 2, 1][4 - len(ids) :]]
        seen.add(merged.rows)
    assert seen == {4, 3, 2, 1, "none"}


def test_a_batch_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = log(tmp_path, 0, [1, 2], flush_each=True, close=False)
    path.write_bytes(path.read_bytes()[:-100])
    assert merge_request_logs(tmp_path, tmp_path / "out" / "requests.parquet").truncated == ["requests-0.arrows"]


def test_files_of_an_earlier_run_that_are_not_made_again_go(tmp_path: Path) -> None:
    log(tmp_path, 0, [1])
    merge_request_logs(tmp_path, tmp_path / "run-7.parquet")
    assert (tmp_path / "run-7-chunks.parquet").exists()
    for path in tmp_path.glob("*.arrows"):
        path.unlink()
    (tmp_path / "chunks.parquet").write_text("another run's")
    RequestLogger(tmp_path, 0).close()
    merge_request_logs(tmp_path, tmp_path / "run-7.parquet")
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["chunks.parquet", "run-7.parquet"]


def test_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no log"):
        merge_request_logs(tmp_path, tmp_path / "requests.parquet")


def test_logs_of_an_earlier_run_with_more_workers_are_removed(tmp_path: Path) -> None:
    for worker in range(3):
        log(tmp_path, worker, [worker])
    remove_logs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_counted(tmp_path: Path) -> None:
    logger = RequestLogger(tmp_path, 0)
    failed, aborted, skipped = record(2, 100), record(3, 200), record(4, 300)
    failed.status, failed.error = "failed", "why"
    aborted.status = "aborted"
    skipped.status, skipped.sent_ns, skipped.completion_tokens = "skipped", None, None
    for one in (record(1, 50), failed, aborted):
        logger.sent(one)
    first = record(5, 400)
    first.first_token_ns = 1400
    logger.sent(first)
    logger.first_token(first)
    for one in (record(1, 50), failed, aborted, skipped):
        logger.ended(one, None)
    logger.close()
    counts = logger.counts
    assert (counts.sent, counts.ended, counts.in_flight) == (4, 3, 1)
    assert (counts.ok, counts.failed, counts.aborted, counts.skipped) == (1, 1, 1, 1)
    assert (counts.completion_tokens, counts.first_error) == (12, "why")
    assert counts.ttft.quantile_s(0.5) == pytest.approx(1e-6, rel=0.05)
    assert logger.lateness_ns.tolist() == [3, 3, 3, 3]


def test_text_that_cannot_be_encoded_costs_no_row(tmp_path: Path) -> None:
    logger = RequestLogger(tmp_path, 0)
    logger.begin_cell(chunk_times=False, keep_answers=True)
    for number, text in enumerate(("plain", "half \ud83d", "two \ude00\ud83d")):
        one = record(number, number)
        one.error, one.finish_reason, one.endpoint = text, text, text
        logger.ended(one, text)
    logger.close()
    merge_request_logs(tmp_path, tmp_path / "requests.parquet")
    table = read_table(tmp_path / "requests.parquet", SCHEMA)
    expected = ["plain", "half \ufffd", "two \ufffd\ufffd"]
    assert [table[name].tolist() for name in ("error", "finish_reason", "endpoint")] == [expected] * 3
    assert read_table(tmp_path / "answers.parquet", ANSWERS_SCHEMA)["text"].tolist() == expected


def test_a_log_that_cannot_be_written_is_an_error_and_the_others_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = RequestLogger(tmp_path, 0)
    logger.begin_cell(chunk_times=False, keep_answers=True)
    for number in range(3):
        logger.ended(record(number, number), "text")

    def full(log: RowLog, columns: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(logger._answers._log, "append", full.__get__(logger._answers))
        with pytest.raises(RunError, match="cannot be written: No space left"):
            logger.close()
    counted = {"c": 3}
    assert merge_request_logs(tmp_path, tmp_path / "requests.parquet", counted).rows == 3


@pytest.mark.parametrize(("counted", "missing"), [({"c": 3}, None), ({"c": 4}, "3 of the 4"), ({"d": 1}, "0 of the 1")])
def test_every_request_that_was_counted_has_a_row(tmp_path: Path, counted: dict[str, int], missing: str | None) -> None:
    log(tmp_path, 0, [1, 2, 3])
    if missing is None:
        assert merge_request_logs(tmp_path, tmp_path / "requests.parquet", counted).rows == 3
        return
    with pytest.raises(RunError, match=missing):
        merge_request_logs(tmp_path, tmp_path / "requests.parquet", counted)
