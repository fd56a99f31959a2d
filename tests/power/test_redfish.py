"""BMCs by Redfish: the three places of power, chassis within chassis, logins, certificates, and failures."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from fake_http import FakeDevice, Request, Response, device, self_signed
from secrets_leak import error_of, errors_of, run_of, said

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources import redfish
from inference_energy.acquire.power.sources.redfish import RedfishSource
from inference_energy.config.power import RedfishSettings

pytestmark = pytest.mark.slow

USER, PASSWORD, TOKEN = "meter", "bmc-pässword:1", "session-token-77aa"
ROOT = "/redfish/v1/Chassis"


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


class Bmc:
    """A BMC with its resources by path; `login` is how it lets in: basic, session, or open."""

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}
        self.login = "basic"
        self.sessions: list[str] = []
        self.attempts = 0

    def add(self, name: str, within: str | None = None, **resources: dict[str, Any]) -> None:
        """A chassis with the resources under it."""
        path = f"{ROOT}/{name}"
        chassis: dict[str, Any] = {"Id": name, "Links": {}}
        if within:
            chassis["Links"]["ContainedBy"] = link(f"{ROOT}/{within}")
        for key, resource in resources.items():
            chassis[key] = link(f"{path}/{key}")
            self.resources[f"{path}/{key}"] = resource
        self.resources[path] = chassis
        members = self.resources.setdefault(ROOT, {"Members": []})["Members"]
        members.append(link(path))

    def __call__(self, request: Request) -> Response:
        basic = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.path == redfish.SESSIONS and request.method == "POST":
            return self._log_in(json.loads(request.body))
        allowed = self.login == "basic" and request.headers.get("Authorization") == basic
        allowed |= request.headers.get("X-Auth-Token", "none") in self.sessions
        if not allowed:
            self.attempts += 1
            return Response({"error": {"code": "Base.1.0.NoValidSession"}}, 401)
        if request.method == "DELETE":
            self.sessions.clear()
            return Response(status=204)
        resource = self.resources.get(request.path)
        return Response({"error": {}}, 404) if resource is None else Response(resource)

    def _log_in(self, content: Any) -> Response:
        self.attempts += 1
        if self.login != "session" or content != {"UserName": USER, "Password": PASSWORD}:
            return Response({}, 401)
        self.sessions.append(f"{TOKEN}-{self.attempts}")
        location = f"https://bmc.example{redfish.SESSIONS}/1"
        return Response({}, 201, {"X-Auth-Token": self.sessions[-1], "Location": location})


def control(*watts: Any) -> dict[str, Any]:
    contexts = ["Chassis", "CPU", "Memory"]
    pairs = zip(contexts, watts, strict=False)
    return {"PowerControl": [{"PhysicalContext": context, "PowerConsumedWatts": value} for context, value in pairs]}


def environment(watts: Any, kwh: Any = None) -> dict[str, Any]:
    return {"PowerWatts": {"Reading": watts}, "EnergykWh": {"Reading": kwh}}


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_REDFISH_USERNAME", USER)
    monkeypatch.setenv("INFERENCE_ENERGY_REDFISH_PASSWORD", PASSWORD)


def source(fake: FakeDevice, **settings: Any) -> RedfishSource:
    return RedfishSource(RedfishSettings.model_validate({"endpoint": fake.url, "period_s": 0.2, **settings}))


def node(watts: Any = 612) -> Bmc:
    bmc = Bmc()
    bmc.add("Self", Power=control(watts, 100, 50))
    return bmc


def test_power_control_of_the_whole_chassis() -> None:
    bmc = node()
    bmc.resources[f"{ROOT}/Self/Power"]["PowerControl"].reverse()
    with device(bmc) as fake:
        metered = source(fake)
        (channel,) = metered.channels()
        assert (channel.device, channel.domain, channel.grade, channel.period_s) == ("Self", "node", "sampled", 0.2)
        reading = channel.read()
        assert (reading.power_instant_w, reading.energy_counter_j) == (612.0, None)
        assert metered.describe()["chassis"] == {"Self": {"how": "PowerControl", "within": None}}
        metered.close()
        assert "in the clear" in metered.probe().reason


def test_the_only_power_control_of_a_gpu_tray() -> None:
    bmc = Bmc()
    bmc.add("Tray", Power={"PowerControl": [{"PhysicalContext": "GPU", "PowerConsumedWatts": 2800}]})
    with device(bmc) as fake:
        assert source(fake).channels()[0].read().power_w == 2800
        bmc.resources[f"{ROOT}/Tray/Power"]["PowerControl"].append({"PhysicalContext": "CPU"})
        assert not source(fake).probe().available


def test_environment_metrics_come_first_and_have_a_counter() -> None:
    bmc = Bmc()
    bmc.add("Chassis_0", Power=control(1), EnvironmentMetrics=environment(812.5, 100.25))
    with device(bmc) as fake:
        (channel,) = source(fake).channels()
        reading = channel.read()
        assert (reading.power_instant_w, reading.energy_counter_j) == (812.5, 100.25 * 3.6e6)
        bmc.resources[f"{ROOT}/Chassis_0/EnvironmentMetrics"] = environment(812.5, 1.0)
        with pytest.raises(SourceError, match="went back"):
            channel.read()
        assert channel.read().energy_counter_j is None


def test_the_power_supplies_are_added_up() -> None:
    bmc = Bmc()
    base = f"{ROOT}/1U/PowerSubsystem"
    bmc.add("1U", PowerSubsystem={"PowerSupplies": link(f"{base}/PowerSupplies")}, EnvironmentMetrics={})
    bays = [f"{base}/PowerSupplies/{number}" for number in range(3)]
    bmc.resources[f"{base}/PowerSupplies"] = {"Members": [link(bay) for bay in bays]}
    for bay, watts in zip(bays, [210, 190.5, None], strict=True):
        bmc.resources[bay] = {"Metrics": link(f"{bay}/Metrics")}
        bmc.resources[f"{bay}/Metrics"] = {"InputPowerWatts": {"Reading": watts}}
    with device(bmc) as fake:
        (channel,) = source(fake).channels()
        assert channel.read().power_w == 400.5
        bmc.resources[f"{bays[0]}/Metrics"]["InputPowerWatts"]["Reading"] = None
        with pytest.raises(SourceError, match="not every power supply"):
            channel.read()


def test_a_tray_within_a_chassis_is_not_counted_twice() -> None:
    bmc = node()
    bmc.add("Baseboard", within="Self")
    bmc.add("HGX_GPU_SXM_1", within="Baseboard", EnvironmentMetrics=environment(300))
    bmc.add("Empty", EnvironmentMetrics=environment(None))
    with device(bmc) as fake:
        state = source(fake).probe()
        assert state.devices == ["Self"]
        assert "HGX_GPU_SXM_1 (in Self)" in state.reason
        named = source(fake, chassis=["HGX_GPU_SXM_1", "Self"])
        channels = named.channels()
        assert {channel.device: channel.read().power_w for channel in channels} == {"HGX_GPU_SXM_1": 300, "Self": 612}
        assert named.describe()["chassis"]["HGX_GPU_SXM_1"]["within"] == "Self"
        named.close()
        assert "gives no power now" in source(fake, chassis=["Empty"]).probe().reason
        assert "the BMC has Self, Baseboard" in source(fake, chassis=["Slef"]).probe().reason


@pytest.mark.parametrize(("value", "message"), [(0, "0 W"), (None, "no number"), (-5, "backwards"), ("9", "no number")])
def test_a_power_that_cannot_be(value: Any, message: str) -> None:
    bmc = node()
    with device(bmc) as fake:
        (channel,) = source(fake).channels()
        bmc.resources[f"{ROOT}/Self/Power"] = control(value)
        with pytest.raises(SourceError, match=message):
            channel.read()
        bmc.resources[f"{ROOT}/Self/Power"] = control(13)
        assert channel.read().power_w == 13
    with device(node(value)) as fake:
        assert "none of the chassis Self gives its power" in source(fake).probe().reason


def test_a_session_is_opened_where_basic_is_refused_renewed_and_closed() -> None:
    bmc = node()
    bmc.login = "session"
    with device(bmc) as fake:
        metered = source(fake)
        (channel,) = metered.channels()
        assert channel.read().power_w == 612
        assert bmc.attempts == 2, "one refusal, one login"
        bmc.sessions.clear()
        assert channel.read().power_w == 612
        metered.close()
        assert bmc.sessions == []
        assert (fake.requests[-1].method, fake.requests[-1].path) == ("DELETE", f"{redfish.SESSIONS}/1")


def test_a_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERENCE_ENERGY_REDFISH_USERNAME")
    monkeypatch.delenv("INFERENCE_ENERGY_REDFISH_PASSWORD")
    bmc = node()
    with device(bmc) as fake:
        assert "INFERENCE_ENERGY_REDFISH_USERNAME" in source(fake).probe().reason
        bmc.sessions.append(TOKEN)
        monkeypatch.setenv("INFERENCE_ENERGY_REDFISH_TOKEN", TOKEN)
        assert source(fake).probe().available


def test_refused_credentials_are_not_tried_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bmc = node()
    with device(bmc) as fake:
        metered = source(fake)
        (channel,) = metered.channels()
        bmc.login = "none"
        for _ in range(5):
            with pytest.raises(SourceError, match="refuses the credentials"):
                channel.read()
            metered.close()
            with pytest.raises(SourceError, match="refuses the credentials"):
                metered.channels()
        assert bmc.attempts <= 3
        bmc.login = "basic"
        start_s = redfish.time.monotonic()
        monkeypatch.setattr(redfish.time, "monotonic", lambda: start_s + redfish.REFUSED_S + 1)
        assert channel.read().power_w == 612


def test_it_goes_away_and_comes_back() -> None:
    with device(node()) as fake:
        (channel,) = source(fake).channels()
        assert channel.read().power_w == 612
        fake.stop()
        with pytest.raises(SourceError, match="cannot be reached"):
            channel.read()
        assert "cannot be reached" in source(fake).probe().reason
        fake.start()
        assert channel.read().power_w == 612


@pytest.mark.parametrize("body", ["<html>no</html>", "[]", '{"PowerControl": 3}', '{"PowerControl": [7]}', "{"])
def test_garbage(body: str) -> None:
    bmc = node()
    with device(bmc) as fake:
        (channel,) = source(fake).channels()
        fake.handle = lambda _: Response(body)
        with pytest.raises(SourceError, match=r"JSON object|no PowerControl"):
            channel.read()
        assert not source(fake).probe().available
        fake.handle = bmc
        assert channel.read().power_w == 612


def test_links_lead_to_no_other_host() -> None:
    bmc = node()
    bmc.resources[ROOT]["Members"].append(link("@elsewhere.example/redfish/v1/Chassis/2"))
    bmc.resources[f"{ROOT}/Self"]["Power"] = link("//elsewhere.example/redfish/v1")
    with device(bmc) as fake:
        assert source(fake).probe().devices == ["Self"], "by where the specification puts it"
        fake.handle = lambda _: Response(status=308, headers={"Location": "https://elsewhere.example/"})
        assert "redirects" in source(fake).probe().reason


def test_certificates(tmp_path: Path) -> None:
    both, certificate = self_signed(tmp_path)
    with device(node(), both) as fake:
        refused = source(fake).probe()
        assert not refused.available and "power.redfish.verify to its CA file" in refused.reason
        assert not fake.requests, "the password was not sent"
        trusted = source(fake, verify=str(certificate)).probe()
        assert trusted.available and "not checked" not in trusted.reason
        assert "not checked" in source(fake, verify=False).probe().reason
        assert not source(fake, verify=str(tmp_path / "gone.pem")).probe().available


def test_what_is_not_set_up(tmp_path: Path) -> None:
    assert "power.redfish is not set" in RedfishSource(None).probe().reason
    file = tmp_path / "bmc"
    file.write_text("password = x\n")
    file.chmod(0o644)
    with device(node()) as fake:
        metered = source(fake, credentials_file=str(file))
        assert "power.redfish.credentials_file" in metered.probe().reason
        assert metered.required_by_key == "power.redfish"


def test_a_login_that_the_controller_sends_back_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "s3cret-of-the-bmc"
    monkeypatch.setenv("INFERENCE_ENERGY_REDFISH_TOKEN", secret)
    bmc = Bmc()
    bmc.login, bmc.sessions = "session", [secret]
    bmc.add(f"Self-{secret}", Power=control(612))
    bmc.add(f"Dead-{secret}", Power=control(None))
    with device(bmc) as fake:
        metered = source(fake)
        assert metered.probe().devices == ["Self-[login]"]
        shown = metered.probe().reason + json.dumps(metered.describe())
        shown += run_of(metered, tmp_path / "a")
        shown += str(source(fake, chassis=["nobody"]).probe())
        bmc.resources.clear()
        shown += run_of(metered, tmp_path / "b") + str(metered.probe())
    shown += "".join(capfd.readouterr())
    assert "[login]" in shown
    assert secret not in shown


def test_the_most_that_a_chassis_can_draw_limits_its_readings() -> None:
    bmc = node()
    bmc.resources[f"{ROOT}/Self"]["MaxPowerWatts"] = 2000
    with device(bmc) as fake:
        assert source(fake).channels()[0].highest_w == 3000
        bmc.resources[f"{ROOT}/Self"]["MaxPowerWatts"] = "much"
        assert source(fake).channels()[0].highest_w == 1e6


@pytest.mark.parametrize("watts", [10**400, "612", [612], {"a": 1}, True, -5])
def test_a_power_that_is_none_makes_the_controller_unavailable(watts: Any) -> None:
    with device(node(watts)) as fake:
        assert not source(fake).probe().available


@pytest.mark.parametrize("how", ["basic", "session", "none"])
def test_nothing_shows_the_secrets(how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bmc = node()
    bmc.login = how
    with device(bmc) as fake:
        metered = source(fake)
        assert metered.probe().available is (how != "none")
        opened = source(fake).channels() if how != "none" else []
        shown = said(metered) + run_of(metered, tmp_path / "a") + errors_of(metered)
        for status in (200, 201, 400, 401):
            fake.handle = lambda request, status=status: Response(f"{request.headers} {request.body!r}", status)
            shown += said(metered) + errors_of(metered) + "".join(map(error_of, opened))
        fake.stop()
        shown += said(metered) + errors_of(metered) + run_of(metered, tmp_path / "b")
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    assert "SourceError" in shown
    for secret in (USER + ":", PASSWORD, "ssword:1", TOKEN, b64encode(f"{USER}:{PASSWORD}".encode()).decode()):
        assert secret not in shown
