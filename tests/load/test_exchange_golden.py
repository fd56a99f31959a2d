"""The client's times are those at which the server sent each token; how closely is measured by the benchmark `golden`.

Tokens come far apart, so that a time that belongs to another token is told from one that is late on a busy machine.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from exchange_golden import Errors, compare, drive
from tests.bench.live_server.conftest import SMALL_8B
from tests.bench.live_server.servers import LiveServer

from inference_energy.acquire.model_files import write_dummy

pytestmark = pytest.mark.slow

STEP_S = 0.06


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    """A server that decodes up to 256 streams about 0.06 s apart."""
    model = write_dummy(SMALL_8B, tmp_path / "model")
    server = LiveServer(tmp_path, {"engine": {"max_num_seqs": 256, "step_host_s": STEP_S}}, str(model), [])
    yield server
    server.kill()


@pytest.mark.parametrize("transport", ["plain", "aiohttp"])
def test_times_are_those_of_the_servers_tokens(live: LiveServer, transport: str) -> None:
    live.wait_until_ready()
    seen = drive(live.url, 20.0, 2.0, 12, transport)
    live.stop()
    found: Errors = compare(seen, live.truth)
    assert found.requests > 20
    assert found.gap_ms.p50 > STEP_S * 1e3
    assert found.since_made_ms.least >= 0, "no token came before it was made"
    assert found.token_ms.p50 < found.gap_ms.p50 / 2, "a time of the next token would be a gap too late"
    assert found.first_ms.p50 < found.gap_ms.p50 / 2
    assert found.itl_ms.p50 < found.gap_ms.p50 / 2
