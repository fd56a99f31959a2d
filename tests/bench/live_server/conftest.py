from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_energy.acquire.model_files import write_dummy
from tests.bench.live_server.servers import LiveServer

SMALL_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
}
"""A model whose steps take as long as those of a real one, with few words."""


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dummy(SMALL_8B, tmp_path_factory.mktemp("models"))


@pytest.fixture
def start(tmp_path: Path, model_folder: Path) -> Iterator[Callable[..., LiveServer]]:
    """Starts servers and ends them. Arguments are flags, keywords parts of the node."""
    servers: list[LiveServer] = []

    def start_one(*flags: str, ready: bool = True, model: str | None = None, **node: Any) -> LiveServer:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = LiveServer(folder, node, model or str(model_folder), list(flags))
        servers.append(server)
        if ready:
            server.wait_until_ready()
        return server

    yield start_one
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[LiveServer]:
    """One server for all tests of a module."""
    folder = tmp_path_factory.mktemp("server")
    server = LiveServer(folder, {}, str(model_folder), ["--enable-prompt-tokens-details", "--mystery-flag", "7"])
    server.wait_until_ready()
    yield server
    server.kill()
