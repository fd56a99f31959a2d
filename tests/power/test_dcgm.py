"""GPUs through a DCGM exporter's page and through Prometheus."""

import time
from pathlib import Path
from typing import Any

import pytest
from fake_dcgm import A, B, Cluster
from fake_http import FakeDevice, Response, device, self_signed
from secrets_leak import errors_of, run_of, said

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources import dcgm_feeds
from inference_energy.acquire.power.sources.dcgm import DcgmSource
from inference_energy.config.power import DcgmSettings

pytestmark = pytest.mark.slow

TOKEN = "t0ken-of-the-cluster"


def source(fake: FakeDevice, gpus: list[str | int] | None = None, **settings: Any) -> DcgmSource:
    given = {"url": f"{fake.url}/metrics", "period_s": 0.2, **settings}
    return DcgmSource(DcgmSettings.model_validate(given), gpus)


def prometheus(fake: FakeDevice, gpus: list[str | int] | None = None, **settings: Any) -> DcgmSource:
    given = {"kind": "prometheus", "url": f"{fake.url}/prom/", "labels": {"Hostname": "node-a"}, **settings}
    return source(fake, gpus, **given)


def by_grade(channels: list[SensorChannel], uuid: str = A) -> tuple[SensorChannel, SensorChannel]:
    """The power and the energy channel of a GPU."""
    power, energy = [channel for channel in channels if channel.device == uuid]
    assert (power.grade, energy.grade) == ("sampled", "counter")
    return power, energy


def later(channel: SensorChannel) -> None:
    """Wait until a new look is taken for this channel."""
    assert channel.period_s is not None
    time.sleep(channel.period_s / 2 + 0.02)


def test_the_exporters_page() -> None:
    with device(Cluster()) as fake:
        exported = source(fake)
        assert exported.probe().devices == [A, B]
        fake.requests.clear()
        channels = exported.channels()
        assert {(channel.source, channel.domain) for channel in channels} == {("dcgm", "gpu")}
        power, energy = by_grade(channels)
        reading = power.read()
        assert (reading.power_average_w, reading.power_instant_w, reading.energy_counter_j) == (412.5, None, None)
        assert (reading.utilization, reading.memory_used_bytes, reading.sm_clock_mhz) == (0.95, 1 << 30, 1980)
        assert (reading.temperature_c, reading.clocks_event_reasons) == (51.0, 4)
        counted = energy.read()
        assert counted.energy_counter_j == pytest.approx(412.5e3, abs=10)
        assert len(fake.requests) == 1, "one look serves all channels"
        assert counted.timestamp_ns == reading.timestamp_ns
        later(energy)
        assert energy.read().energy_counter_j == pytest.approx((counted.energy_counter_j or 0) + 1)
        assert exported.grade == "counter"
        exported.close()


@pytest.mark.parametrize(
    "model",
    ["NVIDIA A100-SXM4-80GB", "NVIDIA A100X", "NVIDIA A30", "Tesla V100-SXM2-32GB", "Tesla K80", "GeForce RTX 2080 Ti"],
)
def test_older_models_report_instantaneous_power(model: str) -> None:
    with device(Cluster(model)) as fake:
        channel = source(fake).channels()[0]
        reading = channel.read()
        assert (reading.power_average_w, reading.power_instant_w) == (None, 412.5)
        assert channel.metadata["averaging_window_s"] == 0.0


@pytest.mark.parametrize(
    ("model", "window_s"),
    [
        ("NVIDIA H100 80GB HBM3", 1.0),
        ("NVIDIA A10G", 1.0),
        ("NVIDIA RTX A6000", 1.0),
        ("NVIDIA RTX 4000 Ada Generation", 1.0),
        ("NVIDIA GeForce RTX 3090", 1.0),
        ("NVIDIA L4", 1.0),
        ("", None),
    ],
)
def test_newer_models_average_over_a_second_and_who_does_not_say_is_not_known(
    model: str, window_s: float | None
) -> None:
    with device(Cluster(model)) as fake:
        channels = source(fake).channels()
        assert channels[0].metadata["averaging_window_s"] == window_s
        assert channels[0].read().power_average_w == 412.5
        assert channels[1].metadata == {}, "a counter averages nothing"


def test_characterized_gpus_average_over_what_was_found() -> None:
    with device(Cluster()) as fake:
        exported = DcgmSource(source(fake)._settings, windows_s={A: 0.9})
        windows_s = {channel.device: channel.metadata.get("averaging_window_s") for channel in exported.channels()[::2]}
        assert windows_s == {A: 0.9, B: 1.0}


def test_certificates(tmp_path: Path) -> None:
    both, certificate = self_signed(tmp_path)
    with device(Cluster(), both) as fake:
        refused = source(fake).probe()
        assert not refused.available and "power.dcgm.verify to its CA file" in refused.reason
        trusted = source(fake, verify=str(certificate)).probe()
        assert trusted.available and "not checked" not in trusted.reason
        unchecked = source(fake, verify=False).probe()
        assert unchecked.available and "not checked: set power.dcgm.verify" in unchecked.reason


def test_instant_beside_average() -> None:
    cluster = Cluster()
    cluster.gpus[A]["POWER_USAGE_INSTANT"] = 433.0
    with device(cluster) as fake:
        reading = source(fake).channels()[0].read()
        assert (reading.power_average_w, reading.power_instant_w) == (412.5, 433.0)


def test_each_update_is_given_once_and_stale_ones_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    with device(cluster) as fake:
        power, energy = by_grade(source(fake).channels())
        monkeypatch.setattr(power, "_stale_ns", 10**12)  # until its updates shall be too old
        assert power.read().power_w == 412.5
        energy.read()
        cluster.moving = False
        later(power)
        power.read_many()
        later(power)
        assert power.read_many() == []
        with pytest.raises(SourceError, match="nothing new yet"):
            power.read()
        monkeypatch.undo()
        time.sleep(0.6)
        for channel in (power, energy):
            with pytest.raises(SourceError, match=r"s old: start the exporter with --collect-interval 200"):
                channel.read()
        cluster.moving = True
        later(power)
        assert power.read().power_w == 412.5
        assert energy.read().energy_counter_j is not None


def test_without_the_energy_counter() -> None:
    cluster = Cluster()
    for fields in cluster.gpus.values():
        del fields["TOTAL_ENERGY_CONSUMPTION"]
    with device(cluster) as fake:
        exported = source(fake)
        assert "2 without an energy counter: add DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" in exported.probe().reason
        assert [channel.grade for channel in exported.channels()] == ["sampled"] * 2
        assert exported.grade == "sampled"
        cluster.moving = False
        (power, _) = exported.channels()
        power.read()
        time.sleep(0.8)
        with pytest.raises(SourceError, match="s old"):
            power.read()


def test_which_gpus() -> None:
    with device(Cluster()) as fake:
        assert source(fake, ["GPU-bbbb"]).probe().devices == [B]
        assert source(fake, [1, B]).probe().devices == [B]
        assert source(fake, labels={"Hostname": "node-a"}).probe().devices == [A]
        assert "0 GPUs there match 'GPU-cc'" in source(fake, ["GPU-cc"]).probe().reason
        assert "2 GPUs there match 'GPU-'" in source(fake, ["GPU-"]).probe().reason
        assert "empty list" in source(fake, []).probe().reason
        assert "the labels {'Hostname': 'x'}" in source(fake, labels={"Hostname": "x"}).probe().reason


def test_mig_slices_repeat_their_boards_power() -> None:
    cluster = Cluster()
    labels = f'gpu="0",UUID="{A}",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7",Hostname="node-a"'
    cluster.extra = f"DCGM_FI_DEV_POWER_USAGE{{{labels}}} 99.0\n"
    with device(cluster) as fake:
        assert source(fake).channels()[0].read().power_w == 412.5


@pytest.mark.parametrize("blank", [9223372036854775794.0, 140737488355328.0, 2147483632.0, float("nan")])
def test_blank_values_are_none(blank: float) -> None:
    cluster = Cluster()
    cluster.gpus[A]["GPU_TEMP"] = blank
    cluster.gpus[B]["POWER_USAGE"] = blank
    del cluster.gpus[B]["TOTAL_ENERGY_CONSUMPTION"]
    with device(cluster) as fake:
        exported = source(fake)
        assert exported.probe().devices == [A]
        reading = exported.channels()[0].read()
        assert (reading.temperature_c, reading.power_w) == (None, 412.5)


@pytest.mark.parametrize(("value", "message"), [(0.0, "reads 0 W"), (-1.0, "below zero")])
def test_a_power_that_cannot_be(value: float, message: str) -> None:
    cluster = Cluster()
    cluster.gpus[A]["POWER_USAGE"] = value
    with device(cluster) as fake, pytest.raises(SourceError, match=message):
        source(fake).channels()[0].read()


def test_a_counter_that_was_reset_is_not_used_any_more() -> None:
    cluster = Cluster()
    with device(cluster) as fake:
        exported = source(fake)
        power, energy = by_grade(exported.channels())
        energy.read()
        for value, message in ((5000.0, "went back"), (1e12, "was reset: it is not used")):
            cluster.gpus[A]["TOTAL_ENERGY_CONSUMPTION"] = value
            later(energy)
            with pytest.raises(SourceError, match=message):
                energy.read()
        assert power.read().power_w == 412.5
        exported.close()
        _, energy = by_grade(exported.channels())
        with pytest.raises(SourceError, match="was reset: it is not used"):
            energy.read()
        cluster.gpus[A]["TOTAL_ENERGY_CONSUMPTION"] = -1000.0
        later(energy)
        with pytest.raises(SourceError, match="reads zero"):
            energy.read()


def test_a_gpu_that_is_lost_and_an_exporter_that_restarts() -> None:
    cluster = Cluster()
    with device(cluster) as fake:
        power, _ = by_grade(source(fake).channels())
        fields = cluster.gpus.pop(A)
        later(power)
        with pytest.raises(SourceError, match="no longer shown"):
            power.read()
        cluster.gpus[A] = fields
        fake.stop()
        later(power)
        with pytest.raises(SourceError, match="cannot be reached"):
            power.read()
        assert "cannot be reached" in source(fake).probe().reason
        fake.start()
        later(power)
        assert power.read().power_w == 412.5


@pytest.mark.parametrize("page", ["", "DCGM_FI_DEV_POWER_USAGE{UUID=", "<html>\n", 'a{b="c} 1\n', "x 12", b"\xff\n"])
def test_garbage(page: str | bytes) -> None:
    with device(Cluster()) as fake:
        power, _ = by_grade(source(fake).channels())
        fake.handle, working = (lambda _: Response(page)), fake.handle
        later(power)
        with pytest.raises(SourceError, match=r"cut off|text format|no longer shown"):
            power.read()
        assert not source(fake).probe().available
        fake.handle = working
        later(power)
        assert power.read().power_w == 412.5


def test_prometheus_gives_samples_their_own_time() -> None:
    cluster = Cluster()
    with device(cluster) as fake:
        scraped = prometheus(fake)
        assert scraped.probe().devices == [A]
        power, energy = by_grade(scraped.channels())
        reading = power.read()
        assert reading.power_w == 412.5
        assert energy.read().energy_counter_j is not None
        assert reading.driver_timestamp_us is not None
        # By the fake's clock a sample lies on a multiple of 0.1 s; on ours at the same moment.
        expected_ns = (reading.driver_timestamp_us / 1e6 - cluster.epoch_s) * 1e9
        assert reading.timestamp_ns == pytest.approx(expected_ns, abs=50e6)
        assert not any("UUID" in query for query in cluster.queries)
        scraped.close()


def test_prometheus_old_samples_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    monkeypatch.setattr(dcgm_feeds, "STALE_PERIODS", 1000)  # until samples shall be too old
    with device(cluster) as fake:
        power, _ = by_grade(prometheus(fake).channels())
        power.read()
        cluster.fresh_until_s = time.monotonic() + cluster.epoch_s
        cluster.moving = False
        later(power)
        power.read_many()
        later(power)
        assert power.read_many() == []
        monkeypatch.undo()
        time.sleep(0.6)
        with pytest.raises(SourceError, match=r"no longer shown.*not scraped"):
            power.read()
        assert "period_s at least" in prometheus(fake).probe().reason
        cluster.fresh_until_s, cluster.moving = None, True
        later(power)
        assert power.read().power_w == 412.5


def test_prometheus_must_be_told_which_machine() -> None:
    cluster = Cluster()
    with device(cluster) as fake:
        assert "power.dcgm.labels is empty" in prometheus(fake, labels={}).probe().reason
        assert cluster.queries == []
        assert prometheus(fake, ["GPU-bbbb"], labels={}).probe().devices == [B]
        assert 'UUID=~"GPU\\\\-bbbb.*"' in cluster.queries[-1]
        assert "which is no name" in prometheus(fake, labels={"a-b": "c"}).probe().reason
        quoted = prometheus(fake, labels={"Hostname": 'a"}[5m] or {b="'})
        assert "no GPU with" in quoted.probe().reason
        assert cluster.queries[-1].endswith('Hostname="a\\"}[5m] or {b=\\""}[600ms]')


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        {"status": "error", "error": "x"},
        {"status": "success", "data": []},
        {"status": "success", "data": {"result": [1]}},
        {"status": "success", "data": {"result": [1.0, "now"]}},
        {"status": "success", "data": {"result": {}}},
    ],
)
def test_prometheus_garbage(answer: Any) -> None:
    with device(Cluster()) as fake:
        power, _ = by_grade(prometheus(fake).channels())
        fake.handle, working = (lambda _: Response(answer)), fake.handle
        later(power)
        with pytest.raises(SourceError, match=r"JSON object|as a Prometheus server"):
            power.read()
        fake.handle = working
        later(power)
        assert power.read().power_w == 412.5


def test_what_is_not_set_up() -> None:
    assert "power.dcgm is not set" in DcgmSource(None).probe().reason
    with device(Cluster()) as fake:
        assert source(fake).required_by_key == "power.dcgm"
        assert f"{dcgm_feeds.POWER} there" in source(fake, url=fake.url, labels={"gpu": "9"}).probe().reason


@pytest.mark.parametrize("kind", ["exporter", "prometheus"])
@pytest.mark.parametrize("right", [True, False])
def test_nothing_shows_the_token(
    kind: str, right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_DCGM_TOKEN", TOKEN)
    cluster = Cluster()
    cluster.token = TOKEN if right else "another"
    with device(cluster) as fake:
        exported = (source if kind == "exporter" else prometheus)(fake)
        assert exported.probe().available is right
        shown = said(exported) + run_of(exported, tmp_path / "a") + errors_of(exported)
        for status in (200, 500):
            fake.handle = lambda request, status=status: Response(f"{request.headers}\n", status)
            shown += said(exported) + errors_of(exported)
        fake.stop()
        shown += said(exported) + errors_of(exported) + run_of(exported, tmp_path / "b")
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    assert "SourceError" in shown
    assert TOKEN not in shown


def test_a_token_that_http_cannot_carry_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_DCGM_TOKEN", f"{TOKEN}\nX-Other: 1")
    with device(Cluster()) as fake:
        shown = errors_of(source(fake)) + said(source(fake))
    assert "cannot carry" in shown
    assert TOKEN not in shown
