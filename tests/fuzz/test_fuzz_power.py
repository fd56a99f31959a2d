"""Tools, files and devices that give power: whatever they write, it fits the log or a `SourceError` says why."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from fuzzing import damaged, fuzz
from hypothesis import strategies as st

from inference_energy.acquire.power.base import PowerSample, SourceError
from inference_energy.acquire.power.credentials import Credentials
from inference_energy.acquire.power.sources import dcgm_feeds, ipmi, nvidia_smi, pcm_power, redfish
from inference_energy.acquire.power.sources.dcgm import DcgmSource
from inference_energy.acquire.power.sources.http import HttpClient, HttpResponse
from inference_energy.acquire.power.sources.rapl import RaplSource
from inference_energy.acquire.power.sources.smart_plug import SmartPlugSource
from inference_energy.acquire.power.sources.tools import ToolOutput
from inference_energy.config.power import DcgmSettings, IpmiSettings, SmartPlugSettings
from inference_energy.contracts import power

UUID = "GPU-5dc24d97-b7da-46af-3499-71149fc3b7d1"
FIELDS = {"timestamp", "uuid", "power.draw.average", "power.draw.instant", "utilization.gpu", "memory.used"}
FIELDS |= {"clocks.sm", "temperature.gpu", "clocks_event_reasons.active"}
SMI_LINES = [
    f"2026/11/30 08:00:00.123, {UUID}, 455.10, 460.25, 97, 71234, 1755, 61, 0x0000000000000004".encode(),
    f"2026/11/30 08:00:00.123, {UUID}, [N/A], 460,25 W, [Not Supported], 1 MiB, ERR!, 61, Active".encode(),
    b"timestamp, uuid, power.draw.average [W], power.draw.instant [W], utilization.gpu [%], memory.used [MiB], "
    b"clocks.sm [MHz], temperature.gpu, clocks_event_reasons.active",
]
PAGE = f"""# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{UUID}",modelName="NVIDIA H100 80GB HBM3"}} 455.1
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="{UUID}"}} 123456789
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{UUID}"}} 71234
DCGM_FI_DEV_SM_CLOCK{{gpu="0",UUID="{UUID}"}} 1755 1764480000000
DCGM_FI_DEV_CLOCKS_EVENT_REASONS{{gpu="0",UUID="{UUID}"}} 4
""".encode()
VECTOR = [
    {"metric": {"__name__": name, "UUID": UUID}, "values": [[1764480000.1, "455.1"]]} for name in dcgm_feeds.FIELDS[:3]
]
ANSWERS = [json.dumps({"status": "success", "data": {"result": result}}).encode() for result in (VECTOR, [1.5, "1.5"])]
IPMITOOL = b"""
    Instantaneous power reading:                   312 Watts
    IPMI timestamp:                           Mon Nov 30 08:00:00 2026
    Power reading state is:                   activated
"""
PCM = b"""Time elapsed: 1000 ms
S0; Consumed energy units: 3412345; Consumed Joules: 208.27; Watts: 208.27; Thermal headroom below TjMax: 45
S0; Consumed DRAM energy units: 812345; Consumed DRAM Joules: 12.43; DRAM Watts: 12.43
"""
CHASSIS = {
    "Members": [{"@odata.id": "/redfish/v1/Chassis/1"}],
    "Id": "1",
    "MaxPowerWatts": 2000,
    "EnvironmentMetrics": {"@odata.id": "/redfish/v1/Chassis/1/EnvironmentMetrics"},
    "PowerWatts": {"Reading": 312},
    "EnergykWh": {"Reading": 12.5},
    "PowerControl": [{"PowerConsumedWatts": 312, "PhysicalContext": "Chassis"}],
    "Links": {"ContainedBy": {"@odata.id": "/redfish/v1/Chassis/1"}},
    "InputPowerWatts": {"Reading": 160},
}
PLUG = {
    "apower": 312.5,
    "aenergy": {"total": 1234.5},
    "errors": [],
    "StatusSNS": {"ENERGY": {"Power": [3], "Total": 1}},
}


def fits_the_log(sample: PowerSample) -> None:
    for name, value in sample._asdict().items():
        if name in power.SCHEMA.names:
            pa.array([value], power.SCHEMA.field(name).type)


def test_lines_of_nvidia_smi_and_pcm() -> None:
    def check(content: bytes) -> None:
        layout = nvidia_smi._Layout(
            FIELDS, {UUID: {"compute_cap": "9.0", "power.limit": content[:20].decode("latin1")}}
        )
        layout.limit_w(UUID)
        blocks = pcm_power._Blocks()
        for line in content.decode(errors="replace").splitlines():
            if (parsed := layout.parse(line, 0)) is not None:
                fits_the_log(parsed[1])
            if blocks.take(line, 0):
                for sample in [sample for key in list(blocks._sums) for sample in blocks.unread.take(key)]:
                    fits_the_log(sample)

    fuzz(damaged([*SMI_LINES, PCM]), check)


def test_pages_of_dcgm_and_answers_of_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(content: bytes) -> None:
        monkeypatch.setattr(HttpClient, "request", lambda *_, **__: HttpResponse(200, {}, content))
        for kind in ("exporter", "prometheus"):
            source = DcgmSource(DcgmSettings(kind=kind, url="http://localhost:9400", labels={"UUID": UUID}))
            try:
                for channel in source.channels():
                    for sample in channel.read_many():
                        fits_the_log(sample)
            except SourceError as error:
                assert len(str(error)) < 2000
            finally:
                source.close()

    fuzz(damaged([PAGE, *ANSWERS]), check)


def test_files_of_rapl(tmp_path: Path) -> None:
    def check(contents: tuple[bytes, bytes, bytes]) -> None:
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            (tmp_path / zone).mkdir(exist_ok=True)
            for name, content in zip(("name", "energy_uj", "max_energy_range_uj"), contents, strict=True):
                (tmp_path / zone / name).write_bytes(content)
                (tmp_path / zone / "constraint_0_power_limit_uw").write_bytes(content)

        def move(_: float) -> None:
            (tmp_path / "intel-rapl:1" / "energy_uj").write_bytes(contents[2])

        try:
            for channel in RaplSource(tmp_path, sleep=move).channels():
                for content in contents:
                    (tmp_path / "intel-rapl:1" / "energy_uj").write_bytes(content)
                    fits_the_log(channel.read())
        except SourceError as error:
            assert len(str(error)) < 1000

    numbers = damaged([b"40000000000\n", b"65532610987\n", b"0\n"])
    fuzz(st.tuples(damaged([b"package-0\n", b"dram\n", b"psys\n", b"package-1-die-0\n"]), numbers, numbers), check)


def test_answers_of_controllers_and_plugs(monkeypatch: pytest.MonkeyPatch) -> None:
    login = Credentials()

    def check(content: bytes) -> None:
        monkeypatch.setattr(HttpClient, "request", lambda *_, **__: HttpResponse(200, {}, content))
        output = ToolOutput(0, content.decode(errors="replace"), "")
        monkeypatch.setattr(ipmi, "run_tool", lambda *_, **__: output)
        bmc = redfish.Bmc("https://192.0.2.7", login, True, "", redfish.Refusal())
        reads = [lambda: redfish.find_chassis(bmc, None)[0][0].read(bmc), ipmi._Bmc(IpmiSettings(), None).read]
        for kind in ("shelly", "tasmota"):
            plug = SmartPlugSource(SmartPlugSettings(kind=kind, address="http://192.0.2.8"))._open()
            reads.append(plug.read)
        for read in reads:
            try:
                watts, _ = read()
            except SourceError as error:
                assert len(str(error)) < 20_000
            else:
                assert 0 < watts <= 1e6

    fuzz(damaged([json.dumps(CHASSIS).encode(), json.dumps(PLUG).encode(), IPMITOOL]), check)
