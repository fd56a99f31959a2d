"""The real vLLM (CPU build) and the small real model, made by the package itself in the repository's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.conftest import unused_port
from tests.pipeline.conftest import make_project  # noqa: F401
from tests.vllm.real_server import CONFIG, ROOT, default_server, real_spec

from inference_energy.acquire.model_files import prepare_model
from inference_energy.acquire.server.locks import DIRECTORY_VARIABLE
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.acquire.vllm_environment import CACHE_VARIABLE, ensure_environment


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM; made in 1 to 5 minutes where there is none yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(ROOT / ".cache"))
        return ensure_environment("cpu", ROOT / "envs" / "cpu")


@pytest.fixture(scope="session")
def real_model(vllm_python: Path) -> dict[str, Any]:
    """What the rule `model` says of the default model."""
    name = default_server().model
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(ROOT / ".cache"))
        return prepare_model({"name": name, **CONFIG.models[name].model_dump()}, [str(vllm_python)])


@pytest.fixture(scope="module")
def make_spec(vllm_python: Path) -> Iterator[Callable[[Path, Mapping[str, Any]], LaunchSpec]]:
    """Makes the spec of a server with its log in a folder, for a model, on a free port; with locks of its own.

    vLLM leaves its sockets in the temporary folder, so it gets one that goes, with the short path that sockets need.
    """
    with TemporaryDirectory(prefix="vllm-") as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORY_VARIABLE, temporary)
        yield lambda folder, model: real_spec(folder, vllm_python, model, unused_port(), Path(temporary))
