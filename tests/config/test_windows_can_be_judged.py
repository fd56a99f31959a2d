"""The shipped experiments' steady windows are long enough for the test of steadiness, cut to counter readings too."""

from pathlib import Path

import pytest

from inference_energy.analysis.steadiness import BLOCK_S, MIN_BLOCKS
from inference_energy.config.loader import read_merged

ROOT = Path(__file__).parents[2]
SNAPPED_S = 1.0
"""Half a second at each end: a GPU's counter is read so often, and a window lies between two of its readings."""


@pytest.mark.parametrize("path", [Path("config.yaml"), *sorted(Path("config").glob("*.yaml"))], ids=str)
def test_every_steady_window_that_is_run_can_be_judged(path: Path) -> None:
    config = read_merged(list(dict.fromkeys([ROOT / "config.yaml", ROOT / path])))
    cut_s = config.analysis.trim_start_s + config.analysis.trim_end_s + SNAPPED_S
    for session in config.run:
        for name in config.sessions[session].windows:
            window = config.windows[name]
            if window.kind == "steady":
                assert window.duration_s - cut_s >= MIN_BLOCKS * BLOCK_S, name
