"""The log on disk: what is flushed can be read, whatever happens afterwards."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inference_energy.acquire.power.base import PowerSample, SensorChannel
from inference_energy.acquire.power.power_log import PowerStream, compact_power_log, read_stream
from inference_energy.acquire.power.sources.cputime import MachineCpuTime
from inference_energy.acquire.power.sources.modelled import ModelledSource
from inference_energy.contracts import power
from inference_energy.contracts.grades import weakest
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.errors import RunError

pytestmark = pytest.mark.slow

ANCHOR = {"monotonic_ns": 5, "unix_ns": 1_700_000_000_000_000_000}


class Named(SensorChannel):
    def read(self) -> PowerSample:
        raise AssertionError("these tests do not read it")


CHANNEL = Named("nvml", "GPU-1", "gpu", "sampled")


def write(path: Path, batches: int, rows: int = 10) -> PowerStream:
    stream = PowerStream(path, ANCHOR, [ModelledSource(MachineCpuTime(), 65, 10)])
    for batch in range(batches):
        times_ns = reversed(range(batch * rows, (batch + 1) * rows))
        stream.write([(CHANNEL, [PowerSample(at, 3.5, power_average_w=100.0, sm_clock_mhz=1980) for at in times_ns])])
    return stream


def test_parquet_keeps_the_rows_in_order_with_their_metadata(tmp_path: Path) -> None:
    write(tmp_path / "log.arrows", batches=3).close()
    stats = compact_power_log(tmp_path / "log.arrows", tmp_path / "deep" / "power.parquet")
    assert (stats.rows, stats.batches, stats.truncated) == (30, 3, [])
    frame = read_table(tmp_path / "deep" / "power.parquet", power.SCHEMA)
    assert frame["timestamp_ns"].tolist() == list(range(30))
    assert frame.loc[0, ["source", "device", "domain"]].tolist() == ["nvml", "GPU-1", "gpu"]
    assert frame["sm_clock_mhz"].tolist() == [1980] * 30
    assert frame["power_instant_w"].isna().all()
    metadata = read_metadata(tmp_path / "deep" / "power.parquet")
    assert metadata["clock_anchor"] == ANCHOR
    assert metadata["source"][0]["grade"] == "modelled"
    assert {"version", "host"} <= set(metadata)
    assert pq.ParquetFile(tmp_path / "deep" / "power.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["power.parquet"]


def test_rows_can_be_read_once_flushed_while_the_stream_is_still_open(tmp_path: Path) -> None:
    stream = write(tmp_path / "log.arrows", batches=2)
    stream.write([(CHANNEL, [])])
    table, stats = read_stream(tmp_path / "log.arrows")
    assert (table.num_rows, stats.truncated) == (20, [])
    stream.write([(CHANNEL, [PowerSample(99, 1.0)])])
    assert read_stream(tmp_path / "log.arrows")[0].num_rows == 21
    stream.close()
    assert read_stream(tmp_path / "log.arrows")[1].batches == 3


def test_a_log_cut_off_anywhere_gives_its_whole_batches(tmp_path: Path) -> None:
    sizes = []
    for batches in range(4):
        path = tmp_path / f"{batches}.arrows"
        stream = write(path, batches)
        sizes.append(path.stat().st_size)
        stream.close()
    whole = (tmp_path / "3.arrows").read_bytes()
    cut = tmp_path / "cut.arrows"
    for size in range(sizes[0], sizes[3] + 1, 7):
        cut.write_bytes(whole[:size])
        table, stats = read_stream(cut)
        batches = sum(size >= end for end in sizes[1:])
        assert table.num_rows == batches * 10
        assert table["timestamp_ns"].to_pylist() == list(range(batches * 10))
        assert bool(stats.truncated) == (size not in sizes), f"cut at {size} of {sizes}"


def test_a_log_without_even_its_head_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.arrows").write_bytes(b"")
    for name in ("empty.arrows", "none.arrows"):
        with pytest.raises(RunError, match=name):
            compact_power_log(tmp_path / name, tmp_path / "power.parquet")
    assert not (tmp_path / "power.parquet").exists()


def test_a_batch_holds_the_readings_of_many_channels_each_under_its_name(tmp_path: Path) -> None:
    stream = PowerStream(tmp_path / "log.arrows", ANCHOR, [])
    channels = [Named("nvml", f"GPU-{number}", "gpu", "sampled") for number in range(4)]
    stream.write(
        (channel, [PowerSample(at, 1.0, power_average_w=float(place), sm_clock_mhz=at or None) for at in range(place)])
        for place, channel in enumerate(channels)
    )
    stream.close()
    table, stats = read_stream(tmp_path / "log.arrows")
    assert (stats.rows, stats.batches) == (0 + 1 + 2 + 3, 1)
    frame = table.to_pandas()
    for place, channel in enumerate(channels):
        rows = frame[frame["device"] == channel.device]
        assert rows["timestamp_ns"].tolist() == list(range(place))
        assert (rows["power_average_w"] == place).all()
        assert rows["sm_clock_mhz"].isna().sum() == min(place, 1)
    assert set(PowerSample._fields) | {"source", "device", "domain"} == set(power.SCHEMA.names)


def test_metadata_is_json_in_the_stream_itself(tmp_path: Path) -> None:
    write(tmp_path / "log.arrows", batches=0).close()
    table, _ = read_stream(tmp_path / "log.arrows")
    assert json.loads(table.schema.metadata[b"clock_anchor"]) == ANCHOR


@pytest.mark.parametrize(
    ("present", "summed"),
    [
        ({"gpu", "gpu_memory"}, {"gpu"}),
        ({"gpu", "gpu_samples"}, {"gpu"}),
        ({"gpu_samples"}, set()),
        ({"psys", "cpu_package", "dram", "gpu"}, {"cpu_package", "dram", "gpu"}),
        ({"cpu", "cpu_package"}, {"cpu_package"}),
        ({"cpu", "gpu"}, {"cpu", "gpu"}),
        ({"node", "gpu", "cpu_package"}, {"node"}),
        (set(), set()),
    ],
)
def test_no_part_is_summed_twice(present: set[str], summed: set[str]) -> None:
    assert power.summed_domains(present) == summed


def test_a_sum_has_the_grade_of_its_weakest_part() -> None:
    assert weakest(["counter", "modelled", "sampled"]) == "modelled"
    assert weakest(["counter"]) == "counter"
