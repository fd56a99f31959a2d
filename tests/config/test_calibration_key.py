"""`analysis.calibration`: the file is looked at before anything starts, and the message says what to write."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import validate
from inference_energy.contracts.calibration import read_calibrations
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
ENTRY: dict[str, Any] = {
    "gain": 1.01,
    "offset_w": -0.5,
    "u_gain": 0.002,
    "u_offset_w": 0.4,
    "covariance_w": -0.0006,
    "chi2_per_dof": 1.1,
    "meter": {"name": "pdu", "grade": "metered", "devices": ["rack/7"]},
    "channels": ["nvml GPU-0 gpu"],
    "phases": [{"phase": "cold idle", "own_w": 70.0, "u_own_w": 0.1, "meter_w": 70.2, "u_meter_w": 0.2}],
    "grade": "metered",
    "date": "2026-11-20T10:00:00+00:00",
    "toolkit_version": "0.1.0",
}
WRITE = "write the path of a file that `inference-energy calibrate` made, or null"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def file(content: Any) -> str:
    Path("calibration.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return "calibration.json"


def of(**changed: Any) -> dict[str, Any]:
    return {"version": 1, "calibrations": {"GPU-0": {**ENTRY, **changed}}}


def configured(path: str | None) -> Any:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw.setdefault("analysis", {})["calibration"] = path
    return validate(raw)


def test_a_good_file_and_none_at_all_are_taken() -> None:
    assert configured(file(of())).analysis.calibration == "calibration.json"
    assert configured(None).analysis.calibration is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "content: Input should be"),
        ({"version": 2, "calibrations": {"GPU-0": ENTRY}}, "version: Input should be 1"),
        ({"version": 1, "calibrations": {}}, "calibrations: "),
        ({"version": 1, "calibrations": {"GPU-0": {"gain": 1.0}}}, "calibrations.GPU-0.offset_w: Field required"),
        (of(gain=0.0), "calibrations.GPU-0.gain: Input should be greater than 0"),
        (of(u_gain=-0.1), "calibrations.GPU-0.u_gain"),
        (of(u_gain=float("nan")), "calibrations.GPU-0.u_gain: Input should be a finite number"),
        (of(covariance_w=-0.01), "calibrations.GPU-0: Value error, covariance_w is larger"),
        (of(channels=[]), "calibrations.GPU-0.channels"),
        (of(grade="guessed"), "calibrations.GPU-0.grade"),
        (of(gian=1.0), "calibrations.GPU-0.gian: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_none_is_refused(content: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        configured(file(content))
    message = str(caught.value)
    assert message.startswith("analysis.calibration: calibration.json: ")
    assert said in message
    assert message.endswith(WRITE)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"analysis.calibration: no/such.json: cannot be read: No such file") as caught:
        configured("no/such.json")
    assert WRITE in str(caught.value)


def test_the_digest_is_that_of_the_bytes() -> None:
    one = read_calibrations(Path(file(of())))
    other = read_calibrations(Path(file(json.dumps(of(), indent=4))))
    assert one.entries == other.entries
    assert one.sha256 != other.sha256
