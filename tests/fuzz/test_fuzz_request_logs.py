"""Logs of load processes, damaged as a full disk or a killed process damages them, are read in part or refused."""

from pathlib import Path

from fuzzing import damaged, fuzz

from inference_energy.acquire.load.request_log import RequestLogger, merge_request_logs
from inference_energy.contracts.io import read_table
from inference_energy.contracts.requests import SCHEMA, RequestRecord
from inference_energy.errors import InputError, RunError


def test_a_damaged_log_is_read_in_part_or_refused(tmp_path: Path) -> None:
    logger = RequestLogger(tmp_path, 0)
    logger.begin_cell(chunk_times=False, keep_answers=False)
    for number in range(3):
        logger.ended(RequestRecord(number, "c", 0, "http://e", number, None, number, status="ok"), None)
        logger.flush()
    logger.close()
    log = tmp_path / "requests-0.arrows"
    merged = tmp_path / "requests.parquet"
    merge_request_logs(tmp_path, merged)
    whole, table = log.read_bytes(), merged.read_bytes()

    def check(content: bytes) -> None:
        log.write_bytes(content)
        try:
            stats = merge_request_logs(tmp_path, merged, {"c": 3})
        except RunError as error:
            assert len(str(error)) < 1000
        else:
            assert stats.rows >= 3
        merged.write_bytes(content)
        try:
            read_table(merged, SCHEMA)
        except InputError as error:
            assert len(str(error)) < 1000

    fuzz(damaged([whole, table]), check)
