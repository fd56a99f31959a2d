"""The CSV of `log-power` gives the figures of the Parquet: counter, average and instant power keep their columns."""

import json

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import synthetic

from inference_energy.acquire.power.power_log import by_instant, write_power_log
from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts import power, requests
from inference_energy.contracts.io import read_table, write_table
from inference_energy.errors import InputError


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    raw = tmp_path_factory.mktemp("recorded")
    raw = synthetic.build_session(raw, windows=(synthetic.WindowSpec("chat", duration_s=20.0),)).folder
    asked = read_table(raw / "requests.parquet", requests.SCHEMA)
    write_table(raw / "r.parquet", asked[asked["cell"] == "chat"], requests.SCHEMA, clock_anchor=synthetic.ANCHOR)
    return raw


def only(kind):
    """Return the log with the counter, or with one of the power readings, alone."""
    columns = {"counter": "energy_counter_j", "average": "power_average_w", "instant": "power_instant_w"}

    def kept(log):
        for other in columns.values():
            if kind != "all" and other != columns[kind]:
                place = log.schema.get_field_index(other)
                log = log.set_column(place, log.schema.field(place), pa.nulls(len(log), pa.float64()))
        held = [log[name].is_valid() for name in columns.values()]
        return log.filter(pc.or_(pc.or_(held[0], held[1]), held[2]))

    return kept


def stating(log, window_s):
    """Return the log with the averaging time of its channel in the metadata, None where it is not known."""
    limits = {"plausible_power_w": 1050.0, "left_out": ["GPU-1", "GPU-2"]}
    facts = [{"device": "GPU-0", "domain": "gpu", "averaging_window_s": window_s, **limits}] if window_s != "" else []
    source = json.dumps([{"name": "nvml", "grade": "counter", "channels": facts}])
    return log.replace_schema_metadata({**log.schema.metadata, b"source": source.encode()})


@pytest.mark.parametrize("kind", ["all", "counter", "average", "instant"])
@pytest.mark.parametrize(
    ("reading", "window_s"), [("average", 1.0), ("average", None), ("average", ""), ("instant", 0.5)]
)
def test_both_files_give_the_same_figures_and_intervals(session, tmp_path, kind, reading, window_s):
    log = stating(only(kind)(pq.read_table(session / "power.parquet")), window_s)
    found = []
    for name in ("p.parquet", "p.csv"):
        write_power_log(log, tmp_path / name)
        document = analyze_logs(tmp_path / name, session / "r.parquet", 70.0, AnalysisConfig(power_reading=reading))
        found.append(msgspec.to_builtins(document))
    parquet, csv = found
    assert parquet["figures"]["energy_total_j"]["interval_95"], parquet["figures"]["energy_total_j"]["reasons"]
    assert csv["grade"] == parquet["grade"] == ("counter" if kind in ("all", "counter") else "sampled")
    assert csv["boundary"] == parquet["boundary"]
    for name, figure in parquet["figures"].items():
        other = csv["figures"][name]
        assert other["value"] == pytest.approx(figure["value"], rel=1e-9)
        if figure["interval_95"] is None:
            assert other["interval_95"] is None
        else:
            assert other["interval_95"] == pytest.approx(figure["interval_95"], rel=1e-9)
        assert other["reasons"] == figure["reasons"]


def test_a_row_holds_the_sum_and_the_reading_with_its_averaging_time(session, tmp_path):
    log = pq.read_table(session / "power.parquet")
    write_power_log(log, tmp_path / "p.csv")
    frame = pd.read_csv(tmp_path / "p.csv")
    assert list(frame)[:4] == ["time", "power_W", "gpu_util", "mem_used_bytes"]
    assert set(power.CSV_COLUMNS) <= set(frame)
    assert frame["time"].is_monotonic_increasing
    sums = by_instant(log)
    merged = frame.dropna(subset=["power_W"])
    whole_j = np.trapezoid(merged["power_W"], merged["time"])
    sampled = sums.dropna(subset=["power_W"])
    assert whole_j == pytest.approx(np.trapezoid(sampled["power_W"], sampled["time"]), rel=0.01)
    rows = frame[frame["power_average_w"].notna() & (frame["channel_domain"] == "gpu")]
    assert rows["averaging_window_s"].isna().all(), "this log does not state it"
    assert set(frame["channel_domain"]) <= set(frame["boundary"].iloc[0].split(" + "))


def old_csv(session, path):
    """Write a log as it was written before: a row an instant, with the sum."""
    by_instant(pq.read_table(session / "power.parquet")).to_csv(path, index=False, float_format="%.6f")


def test_a_csv_of_before_is_still_read(session, tmp_path):
    old_csv(session, tmp_path / "p.csv")
    document = analyze_logs(tmp_path / "p.csv", session / "r.parquet", None, AnalysisConfig())
    whole = analyze_logs(session / "power.parquet", session / "r.parquet", None, AnalysisConfig())
    figure, reference = document.figures["energy_total_j"], whole.figures["energy_total_j"]
    assert figure.value == pytest.approx(reference.value, rel=0.02)
    assert figure.interval_95 is not None


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("channel_domain", "gpus", "no domain"),
        ("averaging_window_s", "-1", "averaging_window_s"),
        ("power_average_w", "1e300", "cannot be"),
        ("energy_counter_j", "inf", "infinite"),
        ("clocks_event_reasons", "1e30", "cannot be"),
        ("time", "", "Unix time"),
        ("channel_grade", "good", "grade"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_csv_of_ours_that_was_damaged_is_refused(session, tmp_path, column, value, said):
    write_power_log(pq.read_table(session / "power.parquet"), tmp_path / "p.csv")
    frame = pd.read_csv(tmp_path / "p.csv", dtype=str)
    frame.loc[:, column] = value
    frame.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(InputError, match=said):
        analyze_logs(tmp_path / "p.csv", session / "r.parquet", None, AnalysisConfig())


def test_channels_of_several_sources_add_up_from_either_file(session, tmp_path):
    anchor = {"monotonic_ns": 0, "unix_ns": synthetic.UNIX_NS}
    sources = [{"name": "nvml", "grade": "counter"}, {"name": "rapl", "grade": "counter"}]
    rows = [
        {"timestamp_ns": i * 10**8 + g * 10**7, "source": "nvml", "device": f"GPU-{g}", "domain": "gpu"}
        | {"power_average_w": 300.0 + (i * 7 + g) % 5}
        for i in range(320)
        for g in range(2)
    ]
    rows += [
        {"timestamp_ns": i * 10**8 + 5 * 10**7, "source": "rapl", "device": "package-0", "domain": "cpu_package"}
        | {"power_average_w": 50.0, "energy_counter_j": 5.0 * i}
        for i in range(320)
    ]
    metadata = {"clock_anchor": json.dumps(anchor), "source": json.dumps(sources)}
    log = pa.Table.from_pylist(rows, schema=power.SCHEMA.with_metadata(metadata)).sort_by("timestamp_ns")
    asked = "timestamp,prompt_tokens,completion_tokens,latency,status\n" + "".join(
        f"{synthetic.UNIX_NS / 1e9 + 5 + i},100,50,1.0,ok\n" for i in range(20)
    )
    (tmp_path / "r.csv").write_text(asked)
    found = []
    for name in ("p.parquet", "p.csv"):
        write_power_log(log, tmp_path / name)
        found.append(analyze_logs(tmp_path / name, tmp_path / "r.csv", None, AnalysisConfig()))
    assert found[0].boundary == found[1].boundary == "gpu + cpu_package"
    energies = [document.figures["energy_total_j"] for document in found]
    assert energies[0].value == pytest.approx(20 * 654, rel=1e-3)
    assert energies[1].value == pytest.approx(energies[0].value, rel=1e-9)
    assert energies[1].interval_95 == pytest.approx(energies[0].interval_95, rel=1e-9)


@pytest.mark.parametrize("column", ["power_average_w", "time", "channel_device"])
def test_a_csv_of_ours_that_lacks_a_column_is_refused(session, tmp_path, column):
    """Its sum stands in each row, and must not be added up by device."""
    write_power_log(pq.read_table(session / "power.parquet"), tmp_path / "p.csv")
    pd.read_csv(tmp_path / "p.csv", dtype=str).drop(columns=column).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(InputError, match=rf"lacks the column\(s\) {column}"):
        analyze_logs(tmp_path / "p.csv", session / "r.parquet", None, AnalysisConfig())
