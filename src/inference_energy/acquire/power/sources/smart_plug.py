"""Source `smart-plug`: the whole machine's power from a plug with a meter.

Shelly, Gen2 and newer: `Switch.GetStatus` or `PM1.GetStatus` over HTTP, with `apower` in W and `aenergy.total` in Wh;
digest authentication with SHA-256 (Shelly Technical Documentation, "Switch", "PM1" and "Authentication").
Tasmota: the command `Status 8`, or `Status 10`, whose `ENERGY` holds `Power` in W and `Total` in kWh (Tasmota
documentation, "Commands" and "JSON Status Responses").
"""

import logging
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import quote

from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError, timed
from inference_energy.acquire.power.credentials import Credentials, plain, variable
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.http import HttpClient, StatusError, host, unverified_warning
from inference_energy.acquire.power.sources.meter import MeterSource
from inference_energy.acquire.power.sources.tools import shortened
from inference_energy.config.power import SmartPlugSettings

KEY = "power.smart_plug"
DEFAULT_USER = "admin"
STILL_LIMIT_S = 300.0
"""The power of a steady machine, in whole watts, can stay the same for minutes; the energy counter does not."""


class SmartPlugSource(MeterSource[SmartPlugSettings]):
    """A plug that feeds the whole machine.

    Args:
        settings: the plug; None if none is configured.
    """

    name = "smart-plug"
    grade = "metered"
    key = KEY
    setup_hint = "the plug's kind (shelly or tasmota) and address"

    def __init__(self, settings: SmartPlugSettings | None) -> None:
        super().__init__(settings)
        self._counter = sanity.GrowingCounter("the plug's energy counter", watched=True)

    def find_devices(self) -> tuple[str, list[str]]:
        """Read the plug once."""
        plug = self._open()
        try:
            watts, _ = plug.read()
        finally:
            plug.close()
        reason = f"{plug.what}, now at {watts:g} W"
        reason += unverified_warning(self.settings.address, self.settings.verify, f"{KEY}.verify")
        return reason, [plug.device]

    def channels(self) -> list[SensorChannel]:
        """Return one channel, with power and the plug's energy counter."""
        plug = self._open()
        self._connections.append(plug)
        return [_PlugChannel(plug, self.settings.period_s, self._counter)]

    def describe(self) -> dict[str, Any]:
        """Add the kind of plug."""
        return {**super().describe(), "kind": self._settings.kind if self._settings else None}

    def _open(self) -> "_Plug":
        settings, login = self.settings, self.login()
        if login is not None and login.password is None:
            raise SourceError(f"{KEY} has no password: set {variable(settings.credentials, 'password')}")
        return _Shelly(settings, login) if settings.kind == "shelly" else _Tasmota(settings, login)


class _Plug(ABC):
    """One meter of one plug."""

    def __init__(self, client: HttpClient, address: str, channel: int, what: str) -> None:
        self._client = client
        self._channel = channel
        self.device = f"{host(address)}/{channel}"
        self.what = f"{what} {self.device}"

    @abstractmethod
    def read(self) -> tuple[float, float | None]:
        """Return the power in W, and the energy counter in J if the plug has one.

        Raises:
            SourceError: the plug gives no power.
        """

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _client(settings: SmartPlugSettings, auth: AuthBase | None) -> HttpClient:
    return HttpClient(settings.address, auth, settings.verify, verify_key=f"{KEY}.verify")


class _Shelly(_Plug):
    """A relay with a meter (`Switch`), or a meter alone (`PM1`)."""

    def __init__(self, settings: SmartPlugSettings, login: Credentials | None) -> None:
        auth = HTTPDigestAuth(plain(login.username) or DEFAULT_USER, plain(login.password) or "") if login else None
        super().__init__(_client(settings, auth), settings.address, settings.channel, "Shelly plug")
        self._component: str | None = None

    def read(self) -> tuple[float, float | None]:
        status = self._status()
        if errors := status.get("errors"):
            listed = errors if isinstance(errors, list) else [errors]
            raise SourceError(f"{self.what} reports {shortened(', '.join(map(str, listed)))}")
        if "apower" not in status:
            raise SourceError(f"{self.what} has no power meter: it gives no apower")
        watts = sanity.power_w(status["apower"], self.what)
        energy = status.get("aenergy")
        total_wh = sanity.number(energy.get("total")) if isinstance(energy, dict) else None
        return watts, None if total_wh is None else total_wh * 3600

    def _status(self) -> dict[str, Any]:
        missing = None
        for component in [self._component] if self._component else ["Switch", "PM1"]:
            try:
                status = self._client.json(f"/rpc/{component}.GetStatus?id={self._channel}")
            except StatusError as error:
                # 404: no such component; 400 or 500: no such channel of this component.
                if error.status not in (400, 404, 500):
                    raise
                missing = error.status
                continue
            self._component = component
            return status
        raise SourceError(
            f"{self.what} has no Switch or PM1 of this number (HTTP {missing}): check {KEY}.channel, and that this is "
            "a Shelly of the second generation or newer"
        )


class _Tasmota(_Plug):
    """A device with Tasmota's firmware; the channel selects one of several meters."""

    def __init__(self, settings: SmartPlugSettings, login: Credentials | None) -> None:
        self._user = (plain(login.username) if login else None) or DEFAULT_USER
        self._password = plain(login.password) if login else None
        # As bytes, which HTTPBasicAuth leaves unchanged: names and passwords are not always Latin-1.
        auth = HTTPBasicAuth(self._user.encode(), self._password.encode()) if self._password else None
        super().__init__(_client(settings, auth), settings.address, settings.channel, "Tasmota plug")
        self._command = "Status%208"
        self._in_query = False

    def read(self) -> tuple[float, float | None]:
        energy = self._energy()
        powers = energy.get("Power")
        watts = sanity.power_w(self._pick(powers), self.what)
        total = energy.get("Total")
        if isinstance(total, list):
            total = self._pick(total)
        elif isinstance(powers, list):
            total = None  # the sum over all its meters
        total_kwh = sanity.number(total)
        return watts, None if total_kwh is None else total_kwh * 3.6e6

    def _pick(self, values: Any) -> Any:
        meters = values if isinstance(values, list) else [values]
        if self._channel >= len(meters):
            raise SourceError(f"{self.what} has {len(meters)} meter(s): write a smaller {KEY}.channel, from 0 on")
        return meters[self._channel]

    def _energy(self) -> dict[str, Any]:
        for command in dict.fromkeys([self._command, "Status%208", "Status%2010"]):
            answer = self._ask(command)
            sensors = answer.get("StatusSNS")
            energy = sensors.get("ENERGY") if isinstance(sensors, dict) else answer.get("StatusPWR")
            if isinstance(energy, dict):
                self._command = command
                return energy
        raise SourceError(f"{self.what} has no power meter: Status 8 and Status 10 give no ENERGY")

    def _ask(self, command: str) -> dict[str, Any]:
        """Send a command; old firmware accepts name and password only in the query."""
        answer = self._send(command)
        if answer is None and self._password and not self._in_query:
            # At level DEBUG urllib3 logs paths with their query.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
            self._in_query = True
            answer = self._send(command)
            self._in_query = answer is not None
        if answer is None:
            raise SourceError(f"{self.what} refuses the user name and password, or asks for them")
        return answer

    def _send(self, command: str) -> dict[str, Any] | None:
        """Return the answer; None if the device asks for a name and password."""
        login = f"user={quote(self._user, safe='')}&password={quote(self._password or '', safe='')}&"
        try:
            answer = self._client.json(f"/cm?{login if self._in_query else ''}cmnd={command}")
        except StatusError as error:
            if error.status != 401:
                raise
            return None
        return None if "WARNING" in answer else answer


class _PlugChannel(SensorChannel):
    """The present power, and the energy since the plug's counter was last reset."""

    def __init__(self, plug: _Plug, period_s: float, counter: sanity.GrowingCounter) -> None:
        super().__init__("smart-plug", plug.device, "node", "metered", period_s)
        self.still_limit_s = STILL_LIMIT_S
        self._plug = plug
        self._counter = counter

    def read(self) -> PowerSample:
        (watts, energy_j), timestamp_ns, latency_us = timed(self._plug.read)
        counter_j = self._counter.add(energy_j, watts, timestamp_ns)
        return PowerSample(timestamp_ns, latency_us, power_instant_w=watts, energy_counter_j=counter_j)
