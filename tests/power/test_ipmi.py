"""ipmitool as a power source, against a tool that speaks like it."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources import ipmi
from inference_energy.acquire.power.sources.ipmi import IpmiSource
from inference_energy.config.power import IpmiSettings

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parent / "fake_tools" / "ipmitool.py"
USER, PASSWORD = "metering-user", "open-sesame-17"
TROUBLES = [{"echo": 1}, {"echo": 9}, {"password": "another"}, {"fail": ["no way in", 1]}, {"cut": 30}]


class Bmc:
    """The fake tool's file, and the calls that it got."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "bmc.json"
        self.put()

    def put(self, **bmc: Any) -> None:
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps({"watts": 312, "user": USER, "password": PASSWORD, **bmc}))
        whole.replace(self.file)

    def source(self, **settings: Any) -> IpmiSource:
        return IpmiSource(IpmiSettings(command=[sys.executable, str(TOOL), str(self.file)], **settings))

    def channel(self, **settings: Any) -> SensorChannel:
        (channel,) = self.source(**settings).channels()
        return channel

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(f"{self.file}.calls").read_text().splitlines()]


@pytest.fixture
def bmc(tmp_path: Path) -> Bmc:
    return Bmc(tmp_path)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_IPMI_USERNAME", USER)
    monkeypatch.setenv("INFERENCE_ENERGY_IPMI_PASSWORD", PASSWORD)


def test_this_machines_bmc_gives_the_power_of_the_node(bmc: Bmc) -> None:
    channel = bmc.channel(period_s=2.0)
    before_ns = time.monotonic_ns()
    reading = channel.read()
    assert (channel.source, channel.device, channel.domain, channel.grade) == ("ipmi", "bmc", "node", "sampled")
    assert channel.period_s == 2.0
    assert (reading.power_instant_w, reading.power_average_w, reading.energy_counter_j) == (312.0, None, None)
    assert before_ns < reading.timestamp_ns < time.monotonic_ns()
    assert reading.read_latency_us > 0
    assert bmc.calls()[-1]["arguments"] == ["dcmi", "power", "reading"]
    state = bmc.source().probe()
    assert state.available
    assert "312 W" in state.reason


@pytest.mark.parametrize("old", [False, True])
def test_the_bmcs_own_clock_is_kept_however_it_is_written(bmc: Bmc, old: bool) -> None:
    bmc.put(old=old)
    told_us = bmc.channel().read().driver_timestamp_us
    assert told_us is not None
    assert abs(told_us / 1e6 - time.time()) < 60


@pytest.mark.parametrize("clock", ["Unspecified", "S+ 01:02:03", "Unknown"])
def test_a_clock_that_is_not_set_is_null(bmc: Bmc, clock: str) -> None:
    bmc.put(clock=clock)
    assert bmc.channel().read().driver_timestamp_us is None


def test_a_reading_that_the_bmc_dates_is_given_once(bmc: Bmc) -> None:
    channel = bmc.channel(period_s=0.2)
    told = [channel.read().driver_timestamp_us for _ in range(3)]
    assert len(set(told)) == 3


def test_a_bmc_whose_clock_stands_still_is_read_all_the_same(bmc: Bmc) -> None:
    bmc.put(clock="01/01/70 00:00:10 UTC")
    channel = bmc.channel()
    for _ in range(2):
        channel.read()
    calls = len(bmc.calls())
    bmc.put(clock="01/01/70 00:00:10 UTC", watts=400)
    assert channel.read().power_instant_w == 400.0
    assert len(bmc.calls()) == calls + 1, "once known, it is not asked again and again"


@pytest.mark.usefixtures("login")
def test_over_the_network_the_password_goes_into_the_tools_environment_only(
    bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPMITOOL_PASSWORD", "somebody-elses")
    channel = bmc.channel(host="bmc-7.example")
    assert channel.device == "bmc-7.example"
    assert channel.read().power_instant_w == 312.0
    (call,) = bmc.calls()
    assert call["arguments"][:7] == ["-I", "lanplus", "-H", "bmc-7.example", "-U", USER, "-E"]
    assert PASSWORD not in " ".join(call["arguments"])
    assert call["environment"] == {"IPMI_PASSWORD": PASSWORD, "IPMITOOL_PASSWORD": None}
    assert [name for name, value in call["all"].items() if value == PASSWORD] == ["IPMI_PASSWORD"]


def test_the_credentials_may_come_from_a_file(bmc: Bmc, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"username = {USER}\npassword = {PASSWORD}\n")
    secrets.chmod(0o600)
    assert bmc.channel(host="bmc-7", credentials_file=str(secrets)).read().power_instant_w == 312.0
    secrets.chmod(0o644)
    state = bmc.source(host="bmc-7", credentials_file=str(secrets)).probe()
    assert not state.available
    assert "chmod 600" in state.reason


def test_missing_credentials_name_the_variables(bmc: Bmc) -> None:
    state = bmc.source(host="bmc-7", credentials="BMC_7").probe()
    assert not state.available
    assert "INFERENCE_ENERGY_BMC_7_USERNAME" in state.reason
    assert "INFERENCE_ENERGY_BMC_7_PASSWORD" in state.reason


@pytest.mark.usefixtures("login")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_secret_is_in_what_the_source_says(
    bmc: Bmc, trouble: dict[str, Any], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = bmc.source(host="bmc-7.example")
    said = [str(source.describe()), repr(source), source.probe().reason]
    (channel,) = source.channels()
    bmc.put(**trouble)
    said += [source.probe().reason, repr(channel)]
    with pytest.raises(SourceError) as caught:
        channel.read()
    said += [str(caught.value), repr(caught.value), repr(caught.value.__cause__), *capfd.readouterr(), caplog.text]
    for secret in ("sesame", "metering"):
        assert secret not in " ".join(said)


@pytest.mark.usefixtures("login")
def test_a_tool_that_hangs_is_given_up_and_says_no_secret(bmc: Bmc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipmi, "ANSWER_TIMEOUT_S", 0.3)
    bmc.put(hang_s=30)
    channel = bmc.channel(host="bmc-7.example")
    began_s = time.monotonic()
    with pytest.raises(SourceError, match=r"did not answer within 0\.3 s") as caught:
        channel.read()
    assert time.monotonic() - began_s < 10
    assert USER not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Could not open device at /dev/ipmi0 or /dev/ipmi/0 or /dev/ipmidev/0: No such file or directory",
            "modprobe ipmi_si",
        ),
        ("Could not open device at /dev/ipmi0 or /dev/ipmi/0 or /dev/ipmidev/0: Permission denied", "run as root"),
        ("Address lookup for bmc-7 failed\nCould not open socket!", "power.ipmi.host"),
        ("Error: Unable to establish IPMI v2 / RMCP+ session", "user and password"),
        ("    DCMI request failed because: Invalid command (c1)", "use redfish"),
        ("something new", "ipmitool says: something new"),
    ],
)
def test_what_goes_wrong_is_said_with_what_to_do(bmc: Bmc, text: str, said: str) -> None:
    bmc.put(fail=[text, 1])
    state = bmc.source().probe()
    assert not state.available
    assert said in state.reason


def test_a_missing_tool_and_missing_settings_say_what_to_do() -> None:
    assert "install the package ipmitool" in IpmiSource(IpmiSettings(command=["no-such-ipmitool"])).probe().reason
    unset = IpmiSource(None)
    assert not unset.probe().available
    assert "power.ipmi is not set" in unset.probe().reason
    assert unset.required_by_key is None
    assert IpmiSource(IpmiSettings()).required_by_key == "power.ipmi"


@pytest.mark.parametrize(
    ("bmc_says", "said"),
    [
        ({"watts": 0}, "reads 0 W"),
        ({"state": "deactivated"}, "power measurement is deactivated"),
        ({"watts": "garbage"}, "gives no power"),
        ({"cut": 30}, "gives no power"),
        ({"cut": 52}, "gives no power"),
        ({"cut": 0}, "gives no power, ipmitool says: nothing"),
        ({"fail": ["timeout", 1]}, "timeout"),
    ],
)
def test_what_is_no_power_is_an_error_and_the_next_read_works(bmc: Bmc, bmc_says: dict[str, Any], said: str) -> None:
    channel = bmc.channel()
    bmc.put(**bmc_says)
    with pytest.raises(SourceError, match=said):
        channel.read()
    bmc.put()
    assert channel.read().power_instant_w == 312.0
