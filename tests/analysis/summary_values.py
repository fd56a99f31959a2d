"""The recomputed summary as the JSON values that summary.json holds."""

from pathlib import Path
from typing import Any

from inference_energy.contracts.figure import json_values
from inference_energy.impact import recompute as chain


def recompute(raw: Path, plan: dict[str, Any], calibration: Path | None = None) -> dict[str, Any]:
    return json_values(chain.recompute(raw, plan, calibration))
