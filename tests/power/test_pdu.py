"""PDUs by SNMP against an agent on loopback."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_snmp import FakePdu, pdu
from pysnmp.entity import config
from pysnmp.proto import rfc1902
from secrets_leak import errors_of, run_of, said

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources import pdu as pdu_source
from inference_energy.acquire.power.sources.pdu import PduSource
from inference_energy.config.power import PduSettings

pytestmark = pytest.mark.slow

COMMUNITY, USER, PASSWORD = "rack-7-community", "meter-user", "auth-pass-phrase"
OUTLET_1 = "1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.1"
OUTLET_2 = "1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.2"


@pytest.fixture
def agent() -> Iterator[FakePdu]:
    values = {OUTLET_1: rfc1902.Gauge32(2105), OUTLET_2: rfc1902.Integer32(1990)}
    with pdu(values, COMMUNITY, USER, PASSWORD) as fake:
        yield fake


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdu_source, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(pdu_source, "RETRIES", 0)


@pytest.fixture
def community(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", COMMUNITY)


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_USERNAME", USER)
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PASSWORD", PASSWORD)


def source(agent: FakePdu, *oids: str, **settings: Any) -> PduSource:
    given = {"host": "127.0.0.1", "port": agent.port, "oids": oids or [OUTLET_1], "scale_w": 0.1, "period_s": 0.2}
    return PduSource(PduSettings.model_validate({**given, **settings}))


@pytest.mark.usefixtures("community")
def test_two_outlets_by_community(agent: FakePdu) -> None:
    metered = source(agent, "." + OUTLET_1, OUTLET_2)
    early = metered.channels()[0]
    state = metered.probe()
    assert early.read().power_w == pytest.approx(210.5), "asking for the state closes nothing"
    assert state.available, state.reason
    assert "409.5 W in all" in state.reason
    channels = metered.channels()
    assert [channel.device for channel in channels] == [f"127.0.0.1/{OUTLET_1}", f"127.0.0.1/{OUTLET_2}"]
    assert {(channel.source, channel.domain, channel.grade) for channel in channels} == {("pdu", "node", "metered")}
    before_ns = time.monotonic_ns()
    readings = [channel.read() for channel in channels]
    assert [reading.power_instant_w for reading in readings] == pytest.approx([210.5, 199.0])
    assert before_ns < readings[0].timestamp_ns < time.monotonic_ns()
    metered.close()


@pytest.mark.usefixtures("community")
def test_it_reads_in_a_thread_and_is_closed_from_another(agent: FakePdu) -> None:
    metered = source(agent)
    (channel,) = metered.channels()
    powers: list[Any] = []
    thread = threading.Thread(target=lambda: powers.extend(channel.read().power_w for _ in range(3)))
    thread.start()
    thread.join(20)
    metered.close()
    assert powers == pytest.approx([210.5] * 3)


@pytest.mark.usefixtures("user")
def test_version_3_by_user(agent: FakePdu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source(agent, version="3").probe().available
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PASSWORD", "wrong-pass-phrase")
    assert "password or the authentication protocol is wrong" in source(agent, version="3").probe().reason
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_USERNAME", "somebody")
    assert "does not know this user" in source(agent, version="3").probe().reason
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PASSWORD", "seven77")
    assert "PASSWORD is shorter than" in source(agent, version="3").probe().reason
    monkeypatch.delenv("INFERENCE_ENERGY_PDU_PASSWORD")
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PRIVACY_PASSWORD", "privacy-pass-phrase")
    assert "no encryption without one" in source(agent, version="3").probe().reason


@pytest.mark.usefixtures("user")
def test_encryption_that_the_device_or_the_library_lacks(agent: FakePdu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PRIVACY_PASSWORD", "privacy-pass-phrase")
    state = source(agent, version="3").probe()
    assert not state.available
    assert "cryptography" in state.reason or "encryption" in state.reason


@pytest.mark.usefixtures("user")
def test_encryption_without_its_package_says_what_to_install_or_unset(
    agent: FakePdu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PRIVACY_PASSWORD", "privacy-pass-phrase")
    monkeypatch.setattr(pdu_source.importlib.util, "find_spec", lambda name: None)
    reason = source(agent, version="3", privacy="aes256").probe().reason
    assert "package cryptography: install it" in reason
    assert "unset INFERENCE_ENERGY_PDU_PRIVACY_PASSWORD" in reason
    assert "privacy-pass-phrase" not in reason


@pytest.mark.usefixtures("user")
def test_the_authentication_protocol_is_that_of_the_settings() -> None:
    values = {OUTLET_1: rfc1902.Gauge32(2105)}
    with pdu(values, COMMUNITY, USER, PASSWORD, config.USM_AUTH_HMAC192_SHA256) as fake:
        assert source(fake, version="3", authentication="sha256").probe().available
        assert "check it and power.pdu.authentication" in source(fake, version="3").probe().reason


def test_every_protocol_is_one_of_the_library() -> None:
    import pysnmp.hlapi.v3arch.asyncio as snmp

    fields = PduSettings.model_fields
    assert set(get_args(fields["authentication"].annotation)) == set(pdu_source.AUTHENTICATION)
    assert set(get_args(fields["privacy"].annotation)) == set(pdu_source.PRIVACY)
    for name in (*pdu_source.AUTHENTICATION.values(), *pdu_source.PRIVACY.values()):
        assert getattr(snmp, name)


def test_what_is_missing(agent: FakePdu) -> None:
    assert "power.pdu is not set" in PduSource(None).probe().reason
    assert "INFERENCE_ENERGY_PDU_COMMUNITY" in source(agent).probe().reason
    assert "INFERENCE_ENERGY_PDU_USERNAME" in source(agent, version="3").probe().reason
    assert "power.pdu.oids holds 'outlet 1'" in source(agent, "outlet 1").probe().reason
    assert source(agent).required_by_key == "power.pdu"


@pytest.mark.usefixtures("community")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (rfc1902.OctetString("412.5"), 41.25),
        (rfc1902.Counter64(5000), 500.0),
        (rfc1902.Gauge32(0), "0 W"),
        (rfc1902.Integer32(-7), "backwards"),
        (rfc1902.OctetString("412,5 W"), "text that is no number"),
        (rfc1902.OctetString(hexValue="fffe"), "text that is no number"),
        (rfc1902.ObjectIdentifier("1.3.6"), "holds no number"),
        (None, "does not exist: check power.pdu.oids"),
    ],
)
def test_kinds_of_values(agent: FakePdu, value: Any, expected: float | str) -> None:
    if value is None:
        del agent.values[OUTLET_1]
    else:
        agent.values[OUTLET_1] = value
    metered = source(agent)
    (channel,) = metered.channels()
    if isinstance(expected, str):
        with pytest.raises(SourceError, match=expected):
            channel.read()
    else:
        assert channel.read().power_w == pytest.approx(expected)
    metered.close()


@pytest.mark.usefixtures("community")
def test_it_goes_away_and_comes_back(agent: FakePdu) -> None:
    metered = source(agent)
    (channel,) = metered.channels()
    assert channel.read().power_w == pytest.approx(210.5)
    agent.stop()
    start_s = time.monotonic()
    with pytest.raises(SourceError, match="no answer"):
        channel.read()
    assert time.monotonic() - start_s < 8
    agent.start()
    assert channel.read().power_w == pytest.approx(210.5)
    metered.close()


@pytest.mark.usefixtures("user")
def test_version_3_survives_a_restart_of_the_device(agent: FakePdu) -> None:
    metered = source(agent, version="3")
    (channel,) = metered.channels()
    channel.read()
    agent.stop()
    agent.start()
    powers = []
    for _ in range(3):
        try:
            powers.append(channel.read().power_w)
        except SourceError:
            continue
    assert powers[-1] == pytest.approx(210.5)
    metered.close()


def test_a_wrong_community_is_told(agent: FakePdu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", "public")
    assert "the community is wrong" in source(agent).probe().reason


def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch, agent: FakePdu) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", COMMUNITY)
    assert "check power.pdu.host" in source(agent, host="no-such-host.invalid").probe().reason


@pytest.mark.parametrize("version", ["2c", "3"])
@pytest.mark.parametrize("right", [True, False])
def test_nothing_shows_the_secrets(
    version: str,
    right: bool,
    agent: FakePdu,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = (COMMUNITY if version == "2c" else PASSWORD) if right else "someth1ng-else-entirely"
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_USERNAME", USER)
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", secret)
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PASSWORD", secret)
    metered = source(agent, version=version)
    shown = said(metered) + run_of(metered, tmp_path / "a", 0.4 if right else 1.5)
    assert ('"reads": 0' not in shown) is right
    lines = capfd.readouterr().out
    assert ('"silent": {"pdu' in lines) is not right
    shown += lines
    if right:
        agent.values[OUTLET_1] = rfc1902.OctetString(secret)
    shown += errors_of(metered) + said(metered)
    assert "SourceError" in shown
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    assert secret not in shown and USER not in shown
