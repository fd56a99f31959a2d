"""The made windows are imported by name; recorded results are made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
sys.path.insert(0, str(Path(__file__).parent))

from recorded_results import build_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that are not to be changed; see `build_results`."""
    return build_results(tmp_path_factory.mktemp("results"))
