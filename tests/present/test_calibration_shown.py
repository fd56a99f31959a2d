"""What was calibrated, against which meter, stands on the page, in the method and in the last lines."""

import pytest
from report_sample import make_sample, page_text, windows_of
from test_report import report

from inference_energy.present.method_facts import calibration_facts, calibration_texts, meters
from inference_energy.present.summary_line import five_lines
from inference_energy.present.window_tables import devices_table

ENTRY = {
    "name": "GPU-0",
    "gain": 1.0412,
    "offset_w": -1.54,
    "u_gain": 0.0021,
    "u_offset_w": 0.82,
    "covariance_w": -0.001,
    "chi2_per_dof": 0.83,
    "phases": 7,
    "meter": "pdu (rack/7)",
    "channels": ["nvml GPU-0 gpu"],
    "grade": "metered",
    "date": "2026-11-20T10:00:00+00:00",
    "toolkit_version": "0.1.0",
}
NOTE = {"code": "calibration_elsewhere", "detail": "The calibration has entries of GPU-9."}
SAID = "sweep: the power of GPU-0 is calibrated against pdu (rack/7), 2026-11-20: gain 1.0412, offset -1.5 W"


@pytest.fixture
def sample(tmp_path):
    made = make_sample(tmp_path)
    made.summary["sessions"] = [
        {
            "machine": "h100-box",
            "session": "sweep",
            "server": "llama",
            "launch": {"ok": True, "mode": "launch", "ready_after_s": 40.0, "server_version": "0.25.1", "reasons": []},
            "warmup": {
                "requests": 10,
                "failed": 0,
                "throughput": {"quarters_tokens_per_s": [], "settled": None},
                "reasons": [],
            },
            "client": None,
            "calibration": {"sha256": "ab" * 32, "applied": [ENTRY], "notes": [NOTE]},
        }
    ]
    return made


def test_the_page_says_it_in_the_uncertainty_and_in_the_method(sample):
    text = " ".join(page_text(report(sample)).split())
    assert SAID in text
    assert "standard uncertainties 0.0021 and 0.82 W" in text
    assert "ab" * 32 in text
    assert "7 phases" in text and "sum of nvml GPU-0 gpu" in text
    assert NOTE["detail"] in text


def test_without_one_the_page_says_nothing_of_it(tmp_path):
    text = page_text(report(make_sample(tmp_path)))
    assert "calibrated against" not in text


def test_the_lines_at_the_end_name_the_meter(sample, tmp_path):
    trust = five_lines(sample.document, tmp_path / "report.html").splitlines()[3]
    assert "calibrated against pdu (rack/7)" in trust
    sample.summary["sessions"][0]["calibration"]["applied"] = []
    assert "calibrated" not in five_lines(sample.document, tmp_path / "report.html")


def test_devices_say_that_their_energy_is_calibrated(sample):
    cells = sample.summary["cells"][:1]
    (device,) = cells[0]["devices"][:1]
    device["calibration"] = {"name": "GPU-0", "gain": 1.04, "offset_w": 0.0}
    texts = [cell.text for row in devices_table(windows_of(cells)).rows for cell in row.cells]
    assert f"{device['reading']}, calibrated" in texts


def test_a_calibrated_idle_is_not_drawn_over_readings_that_are_not(sample):
    before = report(sample).read_text()
    assert "cold idle, 71" not in before
    sample.summary["sessions"][0]["calibration"] = None
    assert "cold idle, 71" in report(sample).read_text()


def test_sessions_without_one_have_no_facts_and_no_sentence(sample):
    sample.summary["sessions"][0]["calibration"] = None
    sessions = sample.document.sessions
    assert calibration_facts(None) == calibration_facts(sessions[0]) == []
    assert calibration_texts(sessions) == []
    assert meters(sessions) == []
