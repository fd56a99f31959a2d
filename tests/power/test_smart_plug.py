"""Smart plugs: Shelly and Tasmota as they answer, and everything that goes wrong with them."""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fake_http import FakeDevice, Request, Response, device, digest_is_right, self_signed
from requests.auth import _basic_auth_str
from secrets_leak import error_of, errors_of, run_of, said

from inference_energy.acquire.power.base import SourceError, SourceState
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.smart_plug import SmartPlugSource
from inference_energy.config.power import SmartPlugSettings

pytestmark = pytest.mark.slow

PASSWORD = "pl&g-s3cret/€"
REALM = "shellyplusplugs-a8032ab12345"


class Shelly:
    """A Shelly: `switches` by id, or `meters` of a PM1; with `locked` it asks for the password."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"id": 0, "output": True, "apower": 412.5, "aenergy": {"total": 1000.0}}
        self.component = "Switch"
        self.locked = False
        self.challenges = 0

    def __call__(self, request: Request) -> Response:
        if self.locked and not digest_is_right(request, "admin", PASSWORD, REALM):
            self.challenges += 1
            challenge = f'Digest qop="auth", realm="{REALM}", nonce="60dc2c69", algorithm=SHA-256'
            return Response(status=401, headers={"WWW-Authenticate": challenge})
        parts = urlsplit(request.path)
        if parts.path != f"/rpc/{self.component}.GetStatus":
            return Response({"code": 404, "message": f"No handler for {parts.path}"}, 404)
        if parse_qs(parts.query)["id"] != ["0"]:
            return Response({"code": -105, "message": "Argument 'id', value 1 not found!"}, 500)
        return Response(self.status)


class Tasmota:
    """Tasmota: how it takes the password, and under which command and key it shows energy."""

    def __init__(self) -> None:
        self.energy: dict[str, Any] = {"TotalStartTime": "2026-01-01T00:00:00", "Total": 0.5, "Power": 300}
        self.old = False
        self.login: str | None = None

    def __call__(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        if self.login == "basic" and request.headers.get("Authorization") != _basic_auth_str(
            b"admin", PASSWORD.encode()
        ):
            return Response({"WARNING": "Need user=<username>&password=<password>"}, 401)
        if self.login == "query" and (query.get("user"), query.get("password")) != (["admin"], [PASSWORD]):
            return Response({"WARNING": "Need user=<username>&password=<password>"})
        assert parts.path == "/cm"
        if query["cmnd"] == ["Status 8"]:
            return Response({"StatusPWR": self.energy} if self.old else {"StatusSNS": {"Time": "x"}})
        assert query["cmnd"] == ["Status 10"]
        return Response({"StatusSNS": {"Time": "2026-01-01T00:00:00", "ENERGY": self.energy}})


@pytest.mark.parametrize("kind", ["shelly", "tasmota"])
def test_certificates(kind: str, tmp_path: Path) -> None:
    both, certificate = self_signed(tmp_path)
    with device(Shelly() if kind == "shelly" else Tasmota(), both) as fake:

        def state(**settings: Any) -> SourceState:
            given = {"kind": kind, "address": fake.url, **settings}
            return SmartPlugSource(SmartPlugSettings.model_validate(given)).probe()

        refused = state()
        assert not refused.available and "power.smart_plug.verify to its CA file" in refused.reason
        assert not fake.requests
        trusted = state(verify=str(certificate))
        assert trusted.available and "not checked" not in trusted.reason
        assert "not checked: set power.smart_plug.verify" in state(verify=False).reason


@pytest.fixture
def shelly() -> Iterator[tuple[Shelly, FakeDevice]]:
    plug = Shelly()
    with device(plug) as fake:
        yield plug, fake


@pytest.fixture
def tasmota() -> Iterator[tuple[Tasmota, FakeDevice]]:
    plug = Tasmota()
    with device(plug) as fake:
        yield plug, fake


def source(kind: str, fake: FakeDevice, **settings: Any) -> SmartPlugSource:
    given = {"kind": kind, "address": fake.url, "period_s": 0.2, **settings}
    return SmartPlugSource(SmartPlugSettings.model_validate(given))


def test_a_shelly_gives_power_and_counter(shelly: tuple[Shelly, FakeDevice]) -> None:
    plug, fake = shelly
    plugged = source("shelly", fake)
    state = plugged.probe()
    assert state.available and "412.5 W" in state.reason
    (channel,) = plugged.channels()
    assert (channel.source, channel.domain, channel.grade, channel.period_s) == ("smart-plug", "node", "metered", 0.2)
    assert channel.device == state.devices[0] == f"{urlsplit(fake.url).netloc}/0"
    before_ns = time.monotonic_ns()
    reading = channel.read()
    assert (reading.power_instant_w, reading.energy_counter_j) == (412.5, 3.6e6)
    assert before_ns < reading.timestamp_ns < time.monotonic_ns()
    plug.status = {**plug.status, "apower": 500.0, "aenergy": {"total": 1000.5}}
    reading = channel.read()
    assert (reading.power_w, reading.energy_counter_j) == (500.0, 3.6e6 + 1800)
    plugged.close()


def test_a_pm1_is_found(shelly: tuple[Shelly, FakeDevice]) -> None:
    plug, fake = shelly
    plug.component = "PM1"
    (channel,) = source("shelly", fake).channels()
    channel.read()
    channel.read()
    assert [request.path.partition(".")[0] for request in fake.requests] == ["/rpc/Switch", "/rpc/PM1", "/rpc/PM1"]


def test_a_locked_shelly_by_digest(shelly: tuple[Shelly, FakeDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    plug, fake = shelly
    plug.locked = True
    assert "refuses the credentials" in source("shelly", fake).probe().reason
    monkeypatch.setenv("INFERENCE_ENERGY_SMART_PLUG_PASSWORD", PASSWORD)
    plug.challenges = 0
    (channel,) = source("shelly", fake).channels()
    assert [channel.read().power_w for _ in range(3)] == [412.5] * 3
    assert plug.challenges == 1, "the nonce is used again"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"apower": 0.0}, "reads 0 W"),
        ({"apower": -3.0}, "wired backwards"),
        ({"apower": None}, "gives no number"),
        ({"apower": "412.5"}, "gives no number"),
        ({"apower": 5e6}, "no machine draws"),
        ({"id": 0, "output": True}, "no power meter"),
        ({"apower": 5.0, "errors": ["power_meter_failure"]}, "power_meter_failure"),
    ],
)
def test_a_power_that_cannot_be(shelly: tuple[Shelly, FakeDevice], status: dict[str, Any], message: str) -> None:
    plug, fake = shelly
    plug.status = status
    (channel,) = source("shelly", fake).channels()
    with pytest.raises(SourceError, match=message):
        channel.read()
    plug.status = {"apower": 5.0, "aenergy": None}
    assert channel.read().energy_counter_j is None


def test_a_switch_that_is_not_there(shelly: tuple[Shelly, FakeDevice]) -> None:
    assert "check power.smart_plug.channel" in source("shelly", shelly[1], channel=1).probe().reason


def test_a_counter_that_was_reset_is_told_once_and_given_up(shelly: tuple[Shelly, FakeDevice]) -> None:
    plug, fake = shelly
    plugged = source("shelly", fake)
    (channel,) = plugged.channels()
    channel.read()
    plug.status["aenergy"]["total"] = 0.0
    with pytest.raises(SourceError, match="went back"):
        channel.read()
    plug.status["aenergy"]["total"] = 2000.0
    reading = channel.read()
    assert (reading.power_w, reading.energy_counter_j) == (412.5, None)
    plugged.close()
    (channel,) = plugged.channels()
    assert channel.read().energy_counter_j is None, "also where the source is opened anew in one log"


def test_a_counter_that_stands_still_under_load_is_stuck() -> None:
    counter = sanity.GrowingCounter("counter", watched=True)
    for second in range(150):
        assert counter.add(1.0, 300.0, int(second * 1e9)) == 1.0
    with pytest.raises(SourceError, match="300 W: the meter is stuck"):
        counter.add(1.0, 300.0, int(151e9))
    assert counter.add(2.0, 300.0, int(152e9)) == 2.0
    assert counter.add(2.0, 1.0, int(1000e9)) == 2.0, "848 J may lie within one step"


@pytest.mark.parametrize("old", [False, True])
def test_a_tasmota_gives_power_and_counter(tasmota: tuple[Tasmota, FakeDevice], old: bool) -> None:
    plug, fake = tasmota
    plug.old = old
    (channel,) = source("tasmota", fake).channels()
    reading = channel.read()
    assert (reading.power_instant_w, reading.energy_counter_j) == (300.0, 1.8e6)
    fake.requests.clear()
    channel.read()
    assert len(fake.requests) == 1, "the command that worked is remembered"


def test_a_tasmota_with_several_meters(tasmota: tuple[Tasmota, FakeDevice]) -> None:
    plug, fake = tasmota
    plug.energy = {"Power": [100, 200], "Total": 4.0}
    (channel,) = source("tasmota", fake, channel=1).channels()
    reading = channel.read()
    assert (reading.power_w, reading.energy_counter_j) == (200.0, None)
    plug.energy["Total"] = [1.0, 2.0]
    assert channel.read().energy_counter_j == 7.2e6
    (missing,) = source("tasmota", fake, channel=2).channels()
    with pytest.raises(SourceError, match=r"2 meter\(s\)"):
        missing.read()


@pytest.mark.parametrize("login", ["basic", "query"])
def test_a_locked_tasmota(
    tasmota: tuple[Tasmota, FakeDevice], monkeypatch: pytest.MonkeyPatch, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    plug, fake = tasmota
    plug.login = login
    assert "refuses the user name and password, or asks" in source("tasmota", fake).probe().reason
    monkeypatch.setenv("INFERENCE_ENERGY_SMART_PLUG_PASSWORD", PASSWORD)
    with caplog.at_level(logging.DEBUG):
        (channel,) = source("tasmota", fake).channels()
        assert channel.read().power_w == 300.0
    assert "pl%26g" not in caplog.text
    assert any("pl%26g" in request.path for request in fake.requests) is (login == "query")


def test_a_tasmota_without_a_meter(tasmota: tuple[Tasmota, FakeDevice]) -> None:
    fake = tasmota[1]
    fake.handle = lambda _: Response({"StatusSNS": {"Time": "x", "Switch1": "OFF"}})
    assert "no power meter" in source("tasmota", fake).probe().reason


@pytest.mark.parametrize("kind", ["shelly", "tasmota"])
def test_it_goes_away_and_comes_back(kind: str) -> None:
    with device(Shelly() if kind == "shelly" else Tasmota()) as fake:
        (channel,) = source(kind, fake).channels()
        power_w = channel.read().power_w
        fake.stop()
        for _ in range(2):
            with pytest.raises(SourceError, match="cannot be reached"):
                channel.read()
        fake.start()
        assert channel.read().power_w == power_w
        fake.handle, working = (lambda _: Response('{"apower": 41', cut_off=True)), fake.handle
        with pytest.raises(SourceError, match=r"cut off|cannot be reached"):
            channel.read()
        for garbage in ("<html>", b"\xff\xfe", "[1, 2]", '"text"', "[" * 100_000, ""):
            fake.handle = lambda _, garbage=garbage: Response(garbage)
            with pytest.raises(SourceError, match="JSON object"):
                channel.read()
        fake.handle = working
        assert channel.read().power_w == power_w


def test_a_plug_that_hangs_does_not_hold_the_reader() -> None:
    with device(Shelly()) as fake:
        (channel,) = source("shelly", fake).channels()
        channel._plug._client._timeout_s = 0.3  # type: ignore[attr-defined]
        fake.hang.set()
        start_s = time.monotonic()
        with pytest.raises(SourceError, match=r"no answer within 0\.3 s"):
            channel.read()
        assert time.monotonic() - start_s < 5
        fake.hang.clear()
        fake.woken.set()
        assert channel.read().power_w == 412.5


def test_half_a_challenge_is_an_error(shelly: tuple[Shelly, FakeDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_SMART_PLUG_PASSWORD", PASSWORD)
    for challenge in ("Digest", 'Digest nonce="1"', "Digest realm=", 'Digest realm="x", nonce="1", algorithm=ROT13'):
        shelly[1].handle = lambda _, given=challenge: Response(status=401, headers={"WWW-Authenticate": given})
        state = source("shelly", shelly[1]).probe()
        assert not state.available and PASSWORD not in state.reason


def test_what_is_not_set_up() -> None:
    state = SmartPlugSource(None).probe()
    assert not state.available and "power.smart_plug is not set" in state.reason
    assert SmartPlugSource(None).required_by_key is None


def test_a_user_name_alone_is_no_login(shelly: tuple[Shelly, FakeDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_SMART_PLUG_USERNAME", "admin")
    plugged = source("shelly", shelly[1])
    assert "INFERENCE_ENERGY_SMART_PLUG_PASSWORD" in plugged.probe().reason
    assert plugged.required_by_key == "power.smart_plug"


@pytest.mark.parametrize("kind", ["shelly", "tasmota"])
@pytest.mark.parametrize("working", [True, False])
def test_nothing_shows_the_password(
    kind: str, working: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    password = PASSWORD if working else "wr0ng-pa%s/word"
    monkeypatch.setenv("INFERENCE_ENERGY_SMART_PLUG_PASSWORD", password)
    plug: Shelly | Tasmota
    if kind == "shelly":
        plug = Shelly()
        plug.locked = True
    else:
        plug = Tasmota()
        plug.login = "query"
    with device(plug) as fake:
        plugged = source(kind, fake)
        assert plugged.probe().available is working
        (opened,) = source(kind, fake).channels()
        shown = error_of(opened) + said(plugged) + run_of(plugged, tmp_path / "a") + errors_of(plugged)
        for status in (200, 400, 500):
            echo = lambda request, status=status: Response(f"{request.path} {request.headers}", status)  # noqa: E731
            fake.handle = echo
            shown += error_of(opened) + said(plugged) + errors_of(plugged)
        fake.handle = lambda request: Response(f"{request.path} {request.headers}", cut_off=True)
        shown += error_of(opened)
        fake.stop()
        shown += error_of(opened) + said(plugged) + errors_of(plugged) + run_of(plugged, tmp_path / "b", 1.8)
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    assert '"event": "progress"' in shown and '"silent": {"smart-plug' in shown and "SourceError" in shown
    for secret in (password, re.sub("/.*", "", password), "pl%26g", "wr0ng-pa%25s"):
        assert secret not in shown
