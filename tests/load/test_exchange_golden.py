"""The client's times agree with the true send times of every token; limits are generous, for cores are shared."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from exchange_golden import compare, drive
from tests.bench.live_server.conftest import SMALL_8B
from tests.bench.live_server.servers import LiveServer

from inference_energy.acquire.model.dummy import write_dummy

MEDIAN_MS = 2.0


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    """A server that decodes up to 256 streams about 8 ms apart."""
    model = write_dummy(SMALL_8B, tmp_path / "model")
    server = LiveServer(tmp_path, {"engine": {"max_num_seqs": 256}}, str(model), [])
    yield server
    server.kill()


@pytest.mark.parametrize("transport", ["plain", "aiohttp"])
def test_times_agree_with_the_servers_own(live: LiveServer, transport: str) -> None:
    live.wait_until_ready()
    seen, _ = drive(live.url, 100.0, 1.5, 32, transport)
    live.stop()
    found = compare(seen, live.truth)
    assert found["requests"] > 100
    assert abs(found["ttft"]["p50_ms"]) < MEDIAN_MS
    assert found["itl"]["p50_ms"] < MEDIAN_MS
