"""`log-power` and `sources` as a user meets them, and the table behind the CSV."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from inference_energy.acquire.power.power_log import by_instant
from inference_energy.acquire.power.sampler_handle import SamplerStats
from inference_energy.api.power_monitor import PowerRecording
from inference_energy.cli.main import app
from inference_energy.cli.power import register, summary
from inference_energy.contracts import power
from inference_energy.contracts.documents.session import ChannelCounts
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

APP = typer.Typer(rich_markup_mode="rich")
register(APP)
MODELLED = ["--source", "modelled", "--tdp-w", "65", "--idle-w", "10"]
SEED_COLUMNS = ["time", "power_W", "gpu_util", "mem_used_bytes"]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(APP, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


def log(rows: list[dict[str, Any]]) -> pa.Table:
    metadata = {
        "clock_anchor": json.dumps({"monotonic_ns": 1_000_000_000, "unix_ns": 1_700_000_000_000_000_000}),
        "source": json.dumps([{"name": "nvml", "grade": "counter"}, {"name": "rapl", "grade": "counter"}]),
    }
    table = pa.Table.from_pylist(rows, schema=power.SCHEMA.with_metadata(metadata))
    return table.sort_by("timestamp_ns")


def row(at_s: float, source: str, device: str, domain: str, **values: float) -> dict[str, Any]:
    return {"timestamp_ns": int(at_s * 1e9), "source": source, "device": device, "domain": domain, **values}


def gpu_rows(device: str, power_w: float, end_s: float = 10.0) -> list[dict[str, Any]]:
    times_s = [1 + 0.1 * index for index in range(round((end_s - 1) / 0.1))]
    return [row(at_s, "nvml", device, "gpu", power_average_w=power_w, power_instant_w=1.0) for at_s in times_s]


def test_csv_starts_with_the_seeds_columns_and_says_modelled(tmp_path: Path) -> None:
    output = tmp_path / "logs" / "idle.csv"
    said = call("log-power", "--duration", "1.5", "--interval", "0.05", "--output", str(output), *MODELLED)
    frame = pd.read_csv(output)
    assert list(frame)[:4] == SEED_COLUMNS
    assert set(frame["source"]) == set(frame["grade"]) == {"modelled"}
    assert frame["power_W"].between(10, 65).all()
    assert frame["time"].is_monotonic_increasing
    assert len(frame) > 10
    assert f"{len(frame)} samples" in said
    assert re.search(r"mean power [\d.]+ W \(total, cpu \(modelled\), modelled\)", said)
    assert re.search(r"energy [\d.]+ J over [\d.]+ s \(total, cpu \(modelled\), modelled\)", said)
    assert [path.name for path in output.parent.iterdir()] == ["idle.csv"], "nothing else is left"


def test_parquet_is_the_long_form(tmp_path: Path) -> None:
    output = tmp_path / "cpu.parquet"
    call("log-power", "--duration", "0.5", "--interval", "0.05", "--output", str(output), *MODELLED)
    assert set(read_table(output, power.SCHEMA)["domain"]) == {"cpu"}
    assert read_metadata(output)["source"][0]["tdp_w"] == 65


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "power.xlsx", *MODELLED], r"--output power\.xlsx.*\.csv or \.parquet"),
        (["--output", "power.csv", "--interval", "0", *MODELLED], r"^--interval: .*0\.002"),
        (["--output", "power.csv", "--source", "modelled"], r"power\.modelled\.tdp_w.*--tdp-w"),
        (["--output", "power.csv", "--source", "wattmeter"], "wattmeter"),
        (["--output", "power.csv", "--pid", str(2**22 + 1), *MODELLED], "^--pid: there is no process"),
        (["--output", "/dev/null/power.csv", *MODELLED], "cannot be written"),
    ],
)
def test_wrong_options_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        call("log-power", "--duration", "1", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_sources_as_a_table_and_as_json() -> None:
    table = call("sources")
    states = json.loads(call("sources", "--json"))
    names = [state["name"] for state in states]
    assert names[0] == "nvml" and names[-1] == "modelled" and {"rapl", "ipmi", "redfish", "pdu"} < set(names)
    assert all(state["name"] in table for state in states)
    assert set(states[0]) == {"name", "available", "reason", "devices"}


def test_help_shows_units_and_examples() -> None:
    shown = CliRunner().invoke(app, ["log-power", "--help"]).output
    assert "[s]" in shown and "[W]" in shown
    assert "--duration 120 --interval 0.1" in shown


def test_a_row_sums_what_does_not_overlap_at_one_instant() -> None:
    rows = gpu_rows("A", 100.0) + gpu_rows("B", 200.0)
    rows += [row(1 + 0.5 * i, "nvml", "A", "gpu_memory", power_average_w=35.0) for i in range(19)]
    rows += [
        row(1 + 0.5 * i, "rapl", "package-0", "cpu_package", power_average_w=50.0, energy_counter_j=i)
        for i in range(19)
    ]
    rows += [row(1 + 0.5 * i, "rapl", "psys", "psys", power_average_w=500.0, energy_counter_j=i) for i in range(19)]
    rows += [
        row(1 + i, "nvml", name, "gpu", utilization=use, memory_used_bytes=10)
        for i in range(9)
        for name, use in (("A", 0.2), ("B", 0.6))
    ]
    frame = by_instant(log(rows))
    assert len(frame) == 90
    assert frame["time"].iloc[0] == pytest.approx(1_700_000_000)
    assert frame["power_W"].tolist() == pytest.approx([350.0] * 90)
    assert frame["gpu_util"].tolist() == pytest.approx([40.0] * 90)
    assert frame["mem_used_bytes"].tolist() == pytest.approx([20.0] * 90)
    assert set(frame["source"]) == {"nvml+rapl"}
    assert set(frame["grade"]) == {"sampled"}


def test_the_sum_is_left_out_while_one_device_is_silent() -> None:
    table = log(gpu_rows("A", 100.0) + gpu_rows("B", 200.0, end_s=4.0))
    frame = by_instant(table)
    assert frame["power_W"].iloc[0] == pytest.approx(300.0)
    assert frame["power_W"].iloc[-1:].isna().all()
    said = told(table)
    assert "not given, power_not_covered: The readings of gpu of B (nvml) lack 6.0 s" in said
    assert " W (" not in said


def test_a_log_of_energy_counters_alone_is_graded_counter() -> None:
    rows = [
        row(1 + 0.1 * i, "rapl", "package-0", "cpu_package", power_average_w=5.0, energy_counter_j=i) for i in range(9)
    ]
    assert set(by_instant(log(rows))["grade"]) == {"counter"}


def told(table: pa.Table, *channels: dict[str, Any]) -> str:
    counts = msgspec.convert(channels, list[ChannelCounts])
    return summary(PowerRecording(table, SamplerStats("duration", True, 2.0, counts)), Path("x.csv"))


def test_the_summary_gives_energy_with_its_interval_and_tells_of_errors() -> None:
    fault = {
        "source": "nvml",
        "device": "A",
        "domain": "gpu",
        "errors": 2,
        "reads": 20,
        "last_error": "gone",
        "missed": 3,
    }
    said = told(log(gpu_rows("A", 100.0, end_s=3.0)), fault)
    # 1.9 s of 100 W: 2.9 % of gain and 1 W of offset, with a factor of 1.96.
    assert "energy 190 ± 11 J over 1.90 s (total, gpu, sampled)" in said
    assert "mean power 100.0 ± 6.0 W (total, gpu, sampled)" in said
    assert "lost polls 3" in said
    assert "2 of 22 reads failed, at last with: gone" in said


def test_the_counter_gives_the_energy_where_there_is_one() -> None:
    counted = [row(1 + 0.5 * i, "nvml", "A", "gpu", energy_counter_j=7e6 + 51.0 * i) for i in range(19)]
    said = told(log([*flickering("A", 100.0), *counted]))
    assert re.search(r"mean power 102\.0 ± [\d.]+ W \(total, gpu, counter\)", said)


def flickering(device: str, power_w: float, end_s: float = 10.0) -> list[dict[str, Any]]:
    """Power readings that all differ, as those of a live sensor do."""
    rows = gpu_rows(device, power_w, end_s)
    return [{**one, "power_average_w": power_w + 0.001 * (number % 7)} for number, one in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (gpu_rows("A", 0.0), "stuck_sensor"),
        (gpu_rows("A", 70.0), "stuck_sensor"),
        ([one for one in flickering("A", 70.0) if not 4e9 < one["timestamp_ns"] < 7e9], "gap"),
        (
            [
                *flickering("A", 100.0),
                *[row(1 + 0.5 * i, "nvml", "A", "gpu", energy_counter_j=7e6 + 30.0 * i) for i in range(19)],
            ],
            "counter_mismatch",
        ),
        (gpu_rows("A", 100.0, end_s=1.1), "no_power_source"),
    ],
)
def test_a_log_that_cannot_be_trusted_gives_the_reason_and_no_number(rows: list[dict[str, Any]], code: str) -> None:
    said = told(log(rows))
    assert f"mean power and energy: not given, {code}: " in said
    assert not re.search(r"(energy|power) [\d.,]+", said)


def test_a_log_without_power_gives_no_figure() -> None:
    table = log([row(1, "nvml", "A", "gpu", energy_counter_j=1.0)])
    assert list(by_instant(table)) == [*SEED_COLUMNS, "source", "grade"]
    assert "not given, no_power_source" in told(table)
