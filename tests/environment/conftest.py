"""The stand-in for NVML lives with the tests of the power sources."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "power"))
