"""The whole machine's power as its management controller (BMC) reads it, through `ipmitool dcmi power reading`.

The tool writes `Instantaneous power reading: 312 Watts` and, further down, the BMC's clock and whether its power
measurement is active (Intel, Data Center Manageability Interface Specification 1.5, "Get Power Reading"; ipmitool(1)).
Over the network the password goes to ipmitool in its variable IPMI_PASSWORD (-E): nothing secret is on a command line.
"""

import contextlib
import re
import time
from datetime import UTC, datetime

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError, timed
from inference_energy.acquire.power.credentials import plain, variable
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.meter import MeterSource
from inference_energy.acquire.power.sources.tools import ToolOutput, run_tool
from inference_energy.config.power import IpmiSettings

KEY = "power.ipmi"
ANSWER_TIMEOUT_S = 5.0
UPDATE_S = 1.0
"""The BMC's clock shows whole seconds, so a new reading of a BMC that dates them shows within one."""
LOOK_AGAIN_S = 0.25

_INSTALL = f"install the package ipmitool, or write {KEY}.command"
_HINTS = (
    ("Permission denied", "this user may not use the BMC: run as root, or give it read and write access to /dev/ipmi0"),
    (
        "Could not open device",
        "this machine shows no BMC: load the driver (modprobe ipmi_si ipmi_devintf), or write the BMC's address in "
        f"{KEY}.host; a virtual machine has none",
    ),
    ("Address lookup", f"the BMC's address is not known: check {KEY}.host"),
    (
        "Unable to establish",
        f"the BMC does not let ipmitool in: check {KEY}.host, user and password, and that IPMI over LAN is switched on",
    ),
    ("Invalid command", "this BMC does not know DCMI: use redfish"),
)
_POWER = re.compile(r"Instantaneous power reading:\s*(\d{1,9})\s*Watts")
_STATE = re.compile(r"Power reading state is:\s*(\w{1,40})")
_CLOCK = re.compile(r"IPMI timestamp:\s*(\S.{0,80}?)\s*(?:Sampling period:.*)?")
LONGEST_LINE = 300
"""Characters of a line of the answer."""
_CLOCK_FORMATS = ("%m/%d/%y %H:%M:%S %Z", "%a %b %d %H:%M:%S %Y")
"""Of ipmitool 1.8.19 (which lacks the end of the line after it) and before, in the locale C."""


class IpmiSource(MeterSource[IpmiSettings]):
    """One BMC.

    Args:
        settings: which; None where none is set up. Without a host it is that of this machine.
    """

    name = "ipmi"
    grade = "sampled"
    key = KEY
    setup_hint = "{} for this machine's BMC, or its host"

    def find_devices(self) -> tuple[str, list[str]]:
        """Read the BMC once."""
        bmc = self._bmc()
        watts = bmc.read()[0]
        return f"{bmc.what}, now at {watts:g} W", [bmc.device]

    def channels(self) -> list[SensorChannel]:
        """One channel, for the whole machine."""
        return [_NodeChannel(self._bmc(), self.settings.period_s)]

    def _bmc(self) -> "_Bmc":
        return _Bmc(self.settings, self._user_and_password() if self.settings.host else None)

    def _user_and_password(self) -> tuple[str, str]:
        login = self.login()
        user, password = (plain(login.username), plain(login.password)) if login else (None, None)
        if not user or not password:
            settings = self.settings
            where = f"set {variable(settings.credentials, 'username')} and {variable(settings.credentials, 'password')}"
            if settings.credentials_file is not None:
                where = f"write them in {settings.credentials_file}"
            raise SourceError(f"BMC {settings.host} needs a user name and a password: {where}")
        return user, password


class _Bmc:
    """One BMC as ipmitool reaches it.

    Args:
        settings: its address and the command.
        login: user name and password of a BMC in the network.
    """

    def __init__(self, settings: IpmiSettings, login: tuple[str, str] | None) -> None:
        self.device = settings.host or "bmc"
        self.what = f"BMC {settings.host}" if settings.host else "this machine's BMC"
        self._secrets: list[str] = []
        self._environment: dict[str, str | None] = {"IPMI_PASSWORD": None, "IPMITOOL_PASSWORD": None}
        network: list[str] = []
        if settings.host is not None and login is not None:
            user, password = login
            self._secrets = [password, user]
            # ipmitool prefers IPMITOOL_PASSWORD, so one of the user's must not get in between.
            self._environment["IPMI_PASSWORD"] = password
            # -N and -R: one repetition after 1 s; the sampler asks again anyway.
            network = ["-I", "lanplus", "-H", settings.host, "-U", user, "-E", "-N", "1", "-R", "1"]
        self._command = [*settings.command, *network, "dcmi", "power", "reading"]

    def read(self) -> tuple[float, str | None]:
        """Read power in W, and the BMC's clock as text.

        Raises:
            SourceError: there is no power in the answer, or none that can be true.
        """
        answer = run_tool(self._command, timeout_s=ANSWER_TIMEOUT_S, install=_INSTALL, environment=self._environment)
        power = _line(_POWER, answer.output)
        if power is None:
            raise SourceError(self._trouble(answer))
        state = _line(_STATE, answer.output)
        if state is not None and state[1] != "activated":
            raise SourceError(f"{self.what} says that its power measurement is {state[1]}: switch it on in the BMC")
        clock = _line(_CLOCK, answer.output)
        return sanity.power_w(float(power[1]), self.what), clock[1] if clock else None

    def _trouble(self, answer: ToolOutput) -> str:
        text = f"{answer.errors} {answer.output}"
        if hint := next((hint for sign, hint in _HINTS if sign in text), None):
            return hint
        # Before the words are cut, since half a password would not be found.
        clean = ToolOutput(answer.code, self._without_secrets(answer.output), self._without_secrets(answer.errors))
        return f"{self.what} gives no power, ipmitool says: {clean.words}"

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "...")
        return text


def _line(pattern: re.Pattern[str], output: str) -> re.Match[str] | None:
    """Return the first line of this form."""
    lines = (line.strip() for line in output.splitlines() if len(line) <= LONGEST_LINE)
    return next(filter(None, map(pattern.fullmatch, lines)), None)


class _NodeChannel(SensorChannel):
    """The BMC's newest power. A reading that carries the BMC's time is given once."""

    def __init__(self, bmc: _Bmc, period_s: float) -> None:
        super().__init__("ipmi", bmc.device, "node", "sampled", period_s)
        self._bmc = bmc
        self._last_clock: str | None = None
        self._clock_runs = True
        self.still_limit_s = None  # whole watts stay the same for minutes in a machine at rest

    def read(self) -> PowerSample:
        until_s = time.monotonic() + UPDATE_S + LOOK_AGAIN_S
        while True:
            (watts, clock), timestamp_ns, latency_us = timed(self._bmc.read)
            held = clock is not None and clock == self._last_clock
            if not held:
                self._clock_runs = True
                break
            if not self._clock_runs:
                break  # its readings carry no time, so a held one cannot be told from a new one
            if time.monotonic() >= until_s:
                self._clock_runs = False
                break
            time.sleep(LOOK_AGAIN_S)
        self._last_clock = clock
        return PowerSample(timestamp_ns, latency_us, driver_timestamp_us=_epoch_us(clock), power_instant_w=watts)


def _epoch_us(clock: str | None) -> int | None:
    """Return the BMC's clock, in the BMC's own time zone, in us; None if it is not set or of another format."""
    for written in _CLOCK_FORMATS:
        with contextlib.suppress(ValueError):
            moment = datetime.strptime(clock or "", written).replace(tzinfo=UTC)
            return round(moment.timestamp() * 1e6)
    return None
