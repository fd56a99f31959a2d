import numpy as np
import pandas as pd
import pytest
from report_sample import make_sample

from inference_energy.contracts import power
from inference_energy.contracts.figure import Reason, missing_figure
from inference_energy.contracts.io import write_table
from inference_energy.present.report_inputs import SessionFiles, read_session_files
from inference_energy.present.trace import TraceLine, plot_power_trace, thin, total, trace_lines, write_trace_page

ABSENT = missing_figure("W", "none", "gpu", "counter", Reason("gap", "The power log has a hole."))


def table(*rows):
    return pd.DataFrame([dict.fromkeys(power.SCHEMA.names) | row for row in rows])


def readings(domain, column, values, source="nvml", step_s=1.0):
    return [
        {"timestamp_ns": int(i * step_s * 1e9), "source": source, "device": "d0", "domain": domain, column: value}
        for i, value in enumerate(values)
    ]


def test_a_device_without_a_name_of_its_own_is_named_once():
    rows = readings("cpu", "power_average_w", [30.0] * 5, source="modelled")
    (found,) = trace_lines(table(*[row | {"device": "cpu"} for row in rows]), 0, {"modelled": "modelled"})
    assert found.name == "cpu (modelled)"


def test_thinning_keeps_peaks_order_and_ends():
    time_s = np.arange(50_000) / 10
    power_w = np.full(50_000, 100.0)
    power_w[31_234], power_w[7] = 700.0, 5.0
    kept_s, kept_w = thin(time_s, power_w)
    assert kept_s.size <= 2002
    assert {700.0, 5.0} <= set(kept_w)
    assert np.all(np.diff(kept_s) > 0)
    assert (kept_s[0], kept_s[-1]) == (time_s[0], time_s[-1])


def test_a_short_series_is_not_thinned():
    time_s = np.arange(10.0)
    assert thin(time_s, time_s)[0].size == 10


def test_power_of_an_energy_counter_is_its_slope_and_a_reset_leaves_a_hole():
    found = trace_lines(table(*readings("cpu_package", "energy_counter_j", [0.0, 50.0, 150.0, 3.0, 53.0])), 0, {})
    assert found[0].power_w.tolist() == [50.0, 100.0, 50.0]


def test_the_sum_holds_each_part_once():
    rows = readings("gpu", "power_average_w", [100.0] * 5) + readings("gpu_memory", "power_average_w", [40.0] * 5)
    rows += readings("cpu_package", "power_average_w", [30.0] * 5, source="rapl")
    parts = trace_lines(table(*rows), 0, {})
    assert {part.name.split()[0]: part.summed for part in parts} == {
        "gpu": True,
        "gpu_memory": False,
        "cpu_package": True,
    }
    whole = total(parts)
    assert whole is not None
    assert set(whole.power_w) == {130.0}


def test_one_part_needs_no_sum():
    assert total(trace_lines(table(*readings("gpu", "power_average_w", [1.0, 2.0])), 0, {})) is None


def test_the_figure_shades_phases_and_names_what_is_modelled(tmp_path):
    sample = make_sample(tmp_path, grade="modelled")
    figure = plot_power_trace(read_session_files(sample.session), sample.document.idle[0].cold_power_w)
    assert figure is not None
    names = [trace.name for trace in figure.data]
    assert any("modelled" in name and name.startswith("sum") for name in names)
    assert "cold idle, 71.0 W (modelled)" in names
    assert len(figure.layout.shapes) == 8
    assert {"q04", "loaded idle", "post idle"} <= {note.text for note in figure.layout.annotations}
    assert max(len(trace.x) for trace in figure.data) <= 4000


def test_the_cold_idle_is_drawn_with_its_interval_and_not_at_all_where_it_is_not_given(tmp_path):
    sample = make_sample(tmp_path)
    cold = sample.document.idle[0].cold_power_w
    figure = plot_power_trace(read_session_files(sample.session), cold)
    assert "cold idle, 71.0 ± 4.3 W" in [trace.name for trace in figure.data]
    figure = plot_power_trace(
        read_session_files(sample.session),
        missing_figure("W", "none", "gpu", "counter", Reason("gap", "The power log has a hole.")),
    )
    assert not [trace.name for trace in figure.data if "cold idle" in trace.name]


def test_a_page_of_its_own(tmp_path):
    sample = make_sample(tmp_path, grade="modelled")
    write_trace_page(tmp_path / "trace.html", sample.session, cold_idle=sample.document.idle[0].cold_power_w)
    text = (tmp_path / "trace.html").read_text()
    assert "Power is modelled, not measured" in text
    assert 'id="figure-trace"' in text


def test_a_session_without_a_log_says_so(tmp_path):
    write_table(tmp_path / "power.parquet", [], power.SCHEMA)
    write_trace_page(tmp_path / "trace.html", SessionFiles("s", "m", power=tmp_path / "power.parquet"))
    assert "no power log" in (tmp_path / "trace.html").read_text()


@pytest.mark.parametrize(
    ("grades", "name"),
    [
        (("simulated", "simulated"), "sum (simulated)"),
        (("counter", "modelled"), "sum (partly modelled)"),
        (("counter", "counter"), "sum"),
    ],
)
def test_the_sum_says_how_much_of_it_was_not_measured(grades: tuple[str, str], name: str) -> None:
    times_s = np.array([0.0, 1.0, 2.0])
    parts = [TraceLine(f"part {i}", grade, True, times_s, np.ones(3)) for i, grade in enumerate(grades)]
    found = total(parts)
    assert found is not None
    assert found.name == name
