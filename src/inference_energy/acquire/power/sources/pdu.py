"""Source `pdu`: the whole machine's power from its outlets on a power distribution unit (PDU), by SNMP v2c or v3.

The vendor's MIB defines which object holds an outlet's power, and its unit: the settings give OID and scale.
Source: RFC 3416 (GET), RFC 3414 and RFC 3826 (users and encryption of version 3); library: pysnmp.
"""

import asyncio
import importlib.util
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError, timed
from inference_energy.acquire.power.credentials import Credentials, plain, variable
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.meter import MeterSource
from inference_energy.config.power import PduSettings

KEY = "power.pdu"
TIMEOUT_S = 1.0
RETRIES = 1
LONGEST_S = 4.0
STILL_LIMIT_S = 3600.0
"""Many PDUs report power in steps of 10 W, so that of a steady machine can stay the same for long."""

AUTHENTICATION = {
    "md5": "USM_AUTH_HMAC96_MD5",
    "sha": "USM_AUTH_HMAC96_SHA",
    "sha224": "USM_AUTH_HMAC128_SHA224",
    "sha256": "USM_AUTH_HMAC192_SHA256",
    "sha384": "USM_AUTH_HMAC256_SHA384",
    "sha512": "USM_AUTH_HMAC384_SHA512",
}
PRIVACY = {
    "des": "USM_PRIV_CBC56_DES",
    "aes": "USM_PRIV_CFB128_AES",
    "aes192": "USM_PRIV_CFB192_AES",
    "aes256": "USM_PRIV_CFB256_AES",
}

_OID = re.compile(r"\.?\d+(\.\d+)+")
_REFUSED = {
    "UnknownUserName": "the device does not know this user",
    "UnknownSecurityName": "the device does not know this user",
    "WrongDigest": f"the password or the authentication protocol is wrong: check it and {KEY}.authentication",
    "AuthenticationFailure": f"the password or the authentication protocol is wrong: check it and {KEY}.authentication",
    "DecryptionError": f"the privacy password or protocol is wrong: check it and {KEY}.privacy",
    "UnsupportedSecurityLevel": "the device does not take this user without, or with, encryption",
    "EncryptionError": "encryption needs a recent version of the Python package cryptography: install it",
}


class PduSource(MeterSource[PduSettings]):
    """The sum of the outlets that feed the machine.

    Args:
        settings: the PDU; None if none is configured.
    """

    name = "pdu"
    grade = "metered"
    key = KEY
    setup_hint = "the PDU's host and the oids of the outlets' power"

    def find_devices(self) -> tuple[str, list[str]]:
        """Read every outlet once."""
        with ExitStack() as stack:
            channels = []
            for channel in self._outlets():
                stack.callback(channel.agent.close)
                channels.append(channel)
            readings = [channel.read() for channel in channels]
        total_w = sum(reading.power_instant_w or 0.0 for reading in readings)
        reason = f"{len(channels)} outlet(s), now at {total_w:g} W in all"
        return reason, [channel.device for channel in channels]

    def channels(self) -> list[SensorChannel]:
        """Return one channel per outlet, each with a separate SNMP engine, which runs in the channel's thread."""
        channels: list[SensorChannel] = []
        for channel in self._outlets():
            self._connections.append(channel.agent)
            channels.append(channel)
        return channels

    def _outlets(self) -> Iterator["_OutletChannel"]:
        settings = self.settings
        for oid in settings.oids:
            if not _OID.fullmatch(oid):
                raise SourceError(f"{KEY}.oids holds {oid!r}: write numbers and dots, such as 1.3.6.1.4.1.318.1.1.26.1")
        login = self.login()
        for oid in dict.fromkeys(oid.lstrip(".") for oid in settings.oids):
            yield _OutletChannel(_Agent(settings, self._credentials(settings, login)), oid, settings)

    def _credentials(self, settings: PduSettings, login: Credentials | None) -> Any:
        """Return the community or the user that authenticates the requests.

        Raises:
            SourceError: a credential is missing or cannot be used.
        """
        snmp = _library()
        if settings.version == "2c":
            community = plain(login.community) if login else None
            if community is None:
                raise SourceError(f"{KEY} has no community: set {variable(settings.credentials, 'community')}")
            return snmp.CommunityData(community, mpModel=1)
        user = plain(login.username) if login else None
        if login is None or user is None:
            raise SourceError(f"{KEY} has no user: set {variable(settings.credentials, 'username')}")
        password, privacy_password = plain(login.password), plain(login.privacy_password)
        if privacy_password and not password:
            raise SourceError(f"{KEY} has a privacy password but no password: SNMP has no encryption without one")
        for field, value in (("password", password), ("privacy_password", privacy_password)):
            if value is not None and len(value) < 8:
                # RFC 3414, 11.2; pysnmp accepts shorter ones, devices do not.
                raise SourceError(f"{variable(settings.credentials, field)} is shorter than SNMP v3's 8 characters")
        keys: dict[str, Any] = {}
        if password:
            keys |= {"authKey": password, "authProtocol": getattr(snmp, AUTHENTICATION[settings.authentication])}
        if privacy_password:
            if importlib.util.find_spec("cryptography") is None:
                unset = variable(settings.credentials, "privacy_password")
                raise SourceError(f"{KEY}: {_REFUSED['EncryptionError']}, or unset {unset} and do without encryption")
            keys |= {"privKey": privacy_password, "privProtocol": getattr(snmp, PRIVACY[settings.privacy])}
        return snmp.UsmUserData(user, **keys)


class _Agent:
    """One SNMP engine with its event loop, recreated after a failure; used by one thread at a time."""

    def __init__(self, settings: PduSettings, credentials: Any) -> None:
        self.address = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._credentials = credentials
        self._runner: asyncio.Runner | None = None
        self._engine: Any = None
        self._target: Any = None

    def get(self, oid: str) -> Any:
        """Return the value of an object.

        Raises:
            SourceError: the device gives no value.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        # The error is worded here, but raised outside the handler: pysnmp's exceptions may hold keys.
        problem, value = "", None
        try:
            problem, value = self._runner.run(asyncio.wait_for(self._get(oid), LONGEST_S))
        except TimeoutError:
            problem = self._silent()
        except Exception as error:  # pysnmp raises several unrelated kinds
            problem = f"SNMP fails with {type(error).__name__}: check {KEY}.host and the credentials"
        if problem:
            self.close()
            raise SourceError(f"PDU {self.address}: {problem}")
        return value

    async def _get(self, oid: str) -> tuple[str, Any]:
        """Return the problem, empty if there is none, and the value."""
        snmp = _library()
        if self._engine is None:
            self._engine = snmp.SnmpEngine()
            transport = snmp.Udp6TransportTarget if ":" in self._settings.host else snmp.UdpTransportTarget
            address = (self._settings.host, self._settings.port)
            self._target = await transport.create(address, timeout=TIMEOUT_S, retries=RETRIES)
        variable_binding = snmp.ObjectType(snmp.ObjectIdentity(oid))
        failure, status, _, answer = await snmp.get_cmd(
            self._engine, self._credentials, self._target, snmp.ContextData(), variable_binding, lookupMib=False
        )
        if failure is not None and failure:
            kind = type(failure).__name__
            return (self._silent() if kind == "RequestTimedOut" else _REFUSED.get(kind, f"SNMP says {kind}")), None
        if status:
            return f"the device answers with SNMP error {int(status)} for {oid}", None
        return "", answer[0][1]

    def _silent(self) -> str:
        """Return the likely reasons for a missing answer."""
        wrong = "the community is wrong" if self._settings.version == "2c" else "the user is wrong"
        return f"no answer: it is off or elsewhere, SNMP v{self._settings.version} is not enabled on it, or {wrong}"

    def close(self) -> None:
        """Close the socket and the loop."""
        if self._runner is None:
            return
        if self._engine is not None:
            self._runner.run(_close(self._engine))
        self._runner.close()
        self._runner = self._engine = self._target = None


async def _close(engine: Any) -> None:
    engine.close_dispatcher()


class _OutletChannel(SensorChannel):
    """The power of one outlet."""

    def __init__(self, agent: _Agent, oid: str, settings: PduSettings) -> None:
        super().__init__("pdu", f"{settings.host}/{oid}", "node", "metered", settings.period_s)
        self.still_limit_s = STILL_LIMIT_S
        self.agent = agent
        self._oid = oid
        self._scale_w = settings.scale_w

    def read(self) -> PowerSample:
        value, timestamp_ns, latency_us = timed(lambda: self.agent.get(self._oid))
        what = f"PDU {self.agent.address}, object {self._oid},"
        raw = _number(value, what)
        return PowerSample(timestamp_ns, latency_us, power_instant_w=sanity.power_w(raw * self._scale_w, what))


def _number(value: Any, what: str) -> float:
    """Return an SNMP integer, or a text such as "412.5", which some devices send, as a number.

    Raises:
        SourceError: the object is missing or is not a number.
    """
    from pysnmp.proto import rfc1902, rfc1905

    if isinstance(value, rfc1905.NoSuchObject | rfc1905.NoSuchInstance | rfc1905.EndOfMibView):
        raise SourceError(f"{what} does not exist: check {KEY}.oids, the outlet's number included")
    if isinstance(value, rfc1902.OctetString):
        text = bytes(value).decode("ascii", errors="replace").strip()
        if not re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", text):
            raise SourceError(f"{what} holds a text that is no number: check {KEY}.oids")
        return float(text)
    try:
        return float(int(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{what} holds no number: check {KEY}.oids") from error


def _library() -> Any:
    try:
        import pysnmp.hlapi.v3arch.asyncio as snmp  # here, because it is slow to import
    except ImportError as error:
        raise SourceError("the Python package pysnmp is missing: install it") from error
    return snmp
