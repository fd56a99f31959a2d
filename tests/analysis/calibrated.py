"""Calibrations made by hand, and sessions analysed with them."""

from pathlib import Path

import synthetic
from synthetic import recompute

from inference_energy.contracts.io import write_json

GPU_CHANNEL = "nvml GPU-0 gpu"
DATE = "2026-11-20T10:00:00+00:00"


def entry(**changed) -> dict:
    """An entry of calibration.json: of GPU-0, exact, and changing nothing."""
    given = {
        "gain": 1.0,
        "offset_w": 0.0,
        "u_gain": 0.0,
        "u_offset_w": 0.0,
        "covariance_w": 0.0,
        "chi2_per_dof": 0.7,
        "meter": {"name": "smart-plug", "grade": "metered", "devices": ["http://plug.lan"]},
        "channels": [GPU_CHANNEL],
        "phases": [
            {"phase": name, "own_w": own_w, "u_own_w": 0.3, "meter_w": own_w, "u_meter_w": 0.5}
            for name, own_w in (("cold idle", 70.0), ("full load 1", 690.0), ("half load 1", 400.0), ("rest 1", 120.0))
        ],
        "grade": "metered",
        "date": DATE,
        "toolkit_version": "0.1.0",
    }
    return {**given, **changed}


def write(path: Path, entries: dict[str, dict]) -> Path:
    write_json(path, {"version": 1, "calibrations": entries})
    return path


def plan_with(truth: synthetic.Truth, **analysis) -> dict:
    plan = synthetic.plan([truth])
    plan["analysis"] |= {"calibration": "calibration.json", **analysis}
    return plan


def summary_with(truth: synthetic.Truth, folder: Path, entries: dict[str, dict], **analysis) -> dict:
    """The summary of a session below `folder`/raw, calibrated."""
    path = write(folder / "calibration.json", entries)
    return recompute(folder / "raw", plan_with(truth, **analysis), path)


def terms(figure: dict) -> dict[str, dict]:
    return {term["name"]: term for term in figure["budget"]["terms"]}
