"""The page of a sensor profile: every number with its unit, and a reason where there is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inference_energy.errors import InputError
from inference_energy.present.characterize import (
    number_text,
    numbers_table,
    plot_histograms,
    plot_idle,
    plot_step_response,
    profile_lines,
    write_profile_page,
)

WHY = "not resolvable: only 2 of 70 readings fell between rest and full load"


def profile(**changes: Any) -> dict[str, Any]:
    period = {"value": 0.1, "unit": "s", "statistic": "median", "p5": 0.095, "p95": 0.105, "count": 120}
    average = {
        "call": "nvmlDeviceGetFieldValues",
        "update_period": period,
        "driver_timestamp_period": {"value": None, "why": "the call gives no timestamps"},
        "resolution": {"value": 0.001, "unit": "W", "statistic": "grid on which all values lie"},
        "idle_mean": {"value": 71.25, "unit": "W", "interval_why": "only 2 independent part(s)"},
        "idle_noise": {"value": 0.5, "unit": "W", "statistic": "standard deviation", "count": 54},
        "window": {"value": 1.002, "unit": "s", "standard_error": 0.002, "interval_95": [0.997, 1.007]},
        "ratio_to_counter": {"value": 0.987, "unit": "1", "interval_95": [0.98, 0.99]},
    }
    trace = {"time_s": [0.0, 0.1, 0.2], "power_w": [120.0, 400.0, 700.0]}
    return {
        "version": 1,
        "gpu": {"uuid": "GPU-1", "name": "NVIDIA H100 <b>", "driver": "580.1", "vbios": None, "power_limit_w": 700.0},
        "grade": "counter",
        "date": "2026-01-01T00:00:00+00:00",
        "toolkit_version": "0.1.0",
        "duration": {"value": 60.0, "unit": "s"},
        "poll_period": {"value": 0.002, "unit": "s"},
        "load": {"what": "products", "steps_s": [1.5, 1.6, 1.8]},
        "readings": {
            "average": average,
            "instant": {**average, "window": {"value": None, "why": WHY}},
        },
        "counter": {"call": "c", "update_period": period, "resolution": {"value": 0.001, "unit": "J"}},
        "calls": {"nvmlX": {"median": {"value": 7e-6, "unit": "s"}, "p99": {"value": None, "why": "too few calls"}}},
        "polls": {"lateness": {"p50": {"value": 9e-5, "unit": "s"}}},
        "series": {
            "step_response": {"edge_s": [0.05, 0.15], "busy": [1, 0], "average": trace, "average_model": trace},
            "intervals_s": {"average": [0.09, 0.1, 0.1, 0.11], "counter": []},
            "calls_us": {"nvmlX": [5.0, 7.0, 3000.0]},
            "idle": {"average": trace},
        },
        **changes,
    }


def page(folder: Path, content: dict[str, Any]) -> str:
    (folder / "profile.json").write_text(json.dumps(content))
    write_profile_page(folder / "page.html", folder / "profile.json")
    return re.sub(r"<script>.*?</script>", "", (folder / "page.html").read_text(), flags=re.DOTALL)


def test_numbers_stand_with_units_and_intervals(tmp_path: Path) -> None:
    html = page(tmp_path, profile())
    assert "0.9970 to 1.007" in html and "95 % interval" in html
    assert "1.002" in html
    assert "7.000 µs" in html and "1.000 mW" in html
    assert "NVIDIA H100 &lt;b&gt;" in html and "<b>" not in html
    for name in ("step", "intervals", "calls", "idle"):
        assert f'id="figure-{name}"' in html
    assert "simulated" not in html.lower().split("</style>")[1]


def test_a_number_that_is_not_known_has_a_reason_in_its_place(tmp_path: Path) -> None:
    html = page(tmp_path, profile())
    assert f"not given: N{WHY[1:]}." in html
    assert "no interval: only 2 independent part(s)" in html
    assert "The call gives no timestamps." in html
    assert number_text({"value": None, "why": "x"}) == "not given: x"
    assert number_text(None) == "not given: it was not measured"


def test_without_a_load_or_a_counter_the_page_says_so(tmp_path: Path) -> None:
    bare = profile(load=None, counter={"why": "this GPU or driver has no energy counter"}, series={})
    bare["readings"]["instant"] = {"why": "this GPU or driver gives no instant power"}
    html = page(tmp_path, bare)
    assert "No step load was made" in html
    assert "this GPU or driver has no energy counter" in html
    assert "this GPU or driver gives no instant power" in html
    assert "figure-step" not in html


def test_a_simulated_profile_carries_a_banner(tmp_path: Path) -> None:
    assert "The GPU is simulated" in page(tmp_path, profile(grade="simulated"))
    assert "(simulated)" in next(iter(profile_lines(profile(grade="simulated"))))


def test_the_terminal_gets_every_section() -> None:
    said = "\n".join(profile_lines(profile()))
    assert "average power, averaging window: " in said
    assert f"instant power, averaging window: not given: {WHY}" in said
    assert (
        "energy counter, update period, by its value: 100.0 ms (5th to 95th percentile of 120: 95.00 to 105.0)" in said
    )
    assert "nvmlX: 7.000 µs median, not given: too few calls 99th percentile" in said


def test_the_table_has_a_row_for_every_number() -> None:
    labels = [row.cells[0].text for row in numbers_table(profile()).rows]
    assert labels.count("averaging window") == 2
    assert labels.count("update period, by its value") == 3
    assert "nvmlX, 99th percentile" in labels


def test_the_figures_show_what_was_measured() -> None:
    series = profile()["series"]
    step = plot_step_response(series)
    assert step is not None
    assert [trace.name for trace in step.data] == ["average power", "average power, fitted"]
    assert [(shape.x0, shape.x1) for shape in step.layout.shapes] == [(0.05, 0.15)]
    intervals = plot_histograms(series["intervals_s"], "time", "ms", log=False)
    assert intervals is not None
    (only,) = intervals.data
    assert sum(only.y[1:-1:2]) == pytest.approx(1.0), "every interval is in a bin"
    assert min(only.x) == pytest.approx(90) and max(only.x) == pytest.approx(110)
    calls = plot_histograms(series["calls_us"], "cost", "µs", log=True)
    assert calls is not None and calls.layout.xaxis.type == "log"
    assert plot_idle(series["idle"]) is not None
    assert plot_step_response({}) is None and plot_idle({}) is None
    assert plot_histograms({}, "time", "ms", log=False) is None


def test_one_value_alone_can_be_drawn() -> None:
    figure = plot_histograms({"x": [2.0, 2.0]}, "cost", "µs", log=True)
    assert figure is not None and sum(figure.data[0].y[1:-1:2]) == pytest.approx(1.0)


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match="no profile"):
        write_profile_page(tmp_path / "page.html", tmp_path / "x.json")
    with pytest.raises(InputError, match="no such file"):
        write_profile_page(tmp_path / "page.html", tmp_path / "y.json")
