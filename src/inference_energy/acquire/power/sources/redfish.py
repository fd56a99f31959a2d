"""Power of the whole machine from its baseboard management controller (BMC), by Redfish.

Each chassis gives one of: `EnvironmentMetrics` (`PowerWatts.Reading`, `EnergykWh.Reading` or `EnergyJoules.Reading`),
the older `Power` (`PowerControl[].PowerConsumedWatts`), or the sum of `InputPowerWatts.Reading` over the power supplies
of `PowerSubsystem`. Source: DMTF DSP0268, Redfish Data Model Specification.

A BMC is no calibrated meter, and updates its reading every one to several seconds without a timestamp, so the grade is
`sampled`. A chassis within another, such as a GPU tray, is measured by the outer one too: the two must not be added.

Login is by HTTP basic authentication, or by a session if the BMC refuses that. Basic authentication leaves nothing
behind when the sampler is killed; a BMC has few sessions, so one is opened only if it must be, and closed at the end.
Source: DMTF DSP0266, Redfish Specification, "Authentication".
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from requests.auth import HTTPBasicAuth

from inference_energy.acquire.power.base import PowerSample, SensorChannel, SourceError, timed
from inference_energy.acquire.power.credentials import Credentials, plain, secrets, variable
from inference_energy.acquire.power.sources import sanity
from inference_energy.acquire.power.sources.http import HttpClient, HttpResponse, StatusError, json_object, status_text
from inference_energy.acquire.power.sources.meter import MeterSource
from inference_energy.config.power import RedfishSettings
from inference_energy.contracts.plausible_power import BOARD_FACTOR, stated_limit_w
from inference_energy.contracts.redaction import Redaction

SESSIONS = "/redfish/v1/SessionService/Sessions"
REFUSED_S = 300.0
"""After refused credentials nothing is asked for this long: repeated attempts lock the account of many BMCs."""


class Refusal:
    """The time of a BMC's last refusal of the credentials, shared by all connections to it."""

    def __init__(self) -> None:
        self._until_s = 0.0

    def note(self) -> None:
        """Note a refusal now."""
        self._until_s = time.monotonic() + REFUSED_S

    def holds(self) -> bool:
        """Return whether it is too early to try again."""
        return time.monotonic() < self._until_s


class Bmc:
    """One connection to one BMC; not for several threads at once.

    Args:
        endpoint: scheme, host and port.
        login: user and password, or a token.
        verify: whether, or with which CA file, the certificate is checked.
        verify_key: the setting to name where it is not trusted.
        refusal: shared by all connections to this BMC.
    """

    def __init__(
        self, endpoint: str, login: Credentials, verify: bool | str, verify_key: str, refusal: Refusal
    ) -> None:
        self._login = login
        user, password = plain(login.username), plain(login.password)
        basic = HTTPBasicAuth(user.encode(), password.encode()) if user and password and not login.token else None
        hide = Redaction(secrets(login), name="login")
        self._client = HttpClient(endpoint, basic, verify, verify_key=verify_key, hide=hide)
        self._login_client = HttpClient(endpoint, None, verify, verify_key=verify_key, hide=hide)
        self._token = plain(login.token)
        self._session_path: str | None = None
        self._refusal = refusal
        self._until_s = math.inf
        self.unreachable = False
        """Whether the last request got no answer, or the credentials were refused: asking for more makes no sense."""

    def json(self, path: str) -> dict[str, Any]:
        """GET a resource, which is a JSON object.

        Raises:
            StatusError: another status than 200.
            SourceError: no answer, refused credentials, or something else than an object.
        """
        self.unreachable = True
        answer = self._get(path)
        self.unreachable = answer.status in (401, 403)
        return json_object(answer, self._client.address(path))

    def hurry(self, seconds: float) -> None:
        """Limit the total time of all following requests, until the next call."""
        self._until_s = time.monotonic() + seconds

    def close(self) -> None:
        """Log out, if logged in, and close the connections."""
        self._log_out()
        self._client.close()
        self._login_client.close()

    def _get(self, path: str) -> HttpResponse:
        if self._refusal.holds():
            raise SourceError(f"{self._client.address(path)}: {status_text(401)}; asked again after {REFUSED_S:g} s")
        answer = self._send(path)
        if answer.status == 401 and self._log_in():
            answer = self._send(path)
        if answer.status == 401:
            self._refusal.note()
        return answer

    def _send(self, path: str) -> HttpResponse:
        if self._token is None:
            return self._client.request("GET", path, until_s=self._until_s)
        return self._login_client.request("GET", path, {"X-Auth-Token": self._token}, until_s=self._until_s)

    def _log_in(self) -> bool:
        """Open a session; whether it worked. A token that the user gave cannot be renewed."""
        user, password = plain(self._login.username), plain(self._login.password)
        if not user or not password:
            return False
        self._token = self._session_path = None
        content = {"UserName": user, "Password": password}
        answer = self._login_client.request("POST", SESSIONS, content=content, until_s=self._until_s)
        token = answer.headers.get("X-Auth-Token")
        if answer.status not in (200, 201) or not token:
            return False
        self._token = token
        # An absolute URL in some BMCs: its path is enough.
        location = answer.headers.get("Location", "")
        self._session_path = location[start:] if (start := location.find("/redfish/")) >= 0 else None
        return True

    def _log_out(self) -> None:
        if self._session_path is None or self._token is None:
            return
        with suppress(SourceError):  # the BMC ends idle sessions itself
            self._login_client.request("DELETE", self._session_path, {"X-Auth-Token": self._token})
        self._token = self._session_path = None


KEY = "power.redfish"
CHASSIS = "/redfish/v1/Chassis"
LONGEST_READ_S = 4.0
LONGEST_SEARCH_S = 120.0
MOST_MEMBERS = 256
"""Members of a collection that are looked at: a rack of GPU machines has some tens of chassis."""
STILL_LIMIT_S = 600.0
"""A BMC gives whole watts, which some smooth and update every ten seconds."""
_PARTS = ("CPU", "Memory", "GPU", "Accelerator", "ASIC", "FPGA", "StorageDevice", "NetworkingDevice", "Fan")
"""Physical contexts of a `PowerControl` that covers only a part of the chassis."""


@dataclass(frozen=True, slots=True)
class Chassis:
    """A chassis that gives its power.

    `within` is the id of the chassis around it that gives power too, None for an outermost one. `limit_w` is its
    plausibility limit, None where it does not state the most that it can draw (`MaxPowerWatts`). `read` returns the
    power in W and the energy counter in J, or None for the latter.
    """

    id: str
    within: str | None
    how: str
    limit_w: float | None
    read: Callable[[Bmc], tuple[float, float | None]]


class RedfishSource(MeterSource[RedfishSettings]):
    """The chassis of one BMC: those that are named, or the outermost ones that give power.

    Args:
        settings: which BMC; None where none is set up.
    """

    name = "redfish"
    grade = "sampled"
    key = KEY
    setup_hint = "the BMC's endpoint, such as https://192.0.2.7"

    def __init__(self, settings: RedfishSettings | None) -> None:
        super().__init__(settings)
        self._chassis: list[Chassis] = []
        self._counters: dict[str, sanity.GrowingCounter] = {}
        self._refusal = Refusal()

    def find_devices(self) -> tuple[str, list[str]]:
        """Log in, and name the chassis that give power."""
        settings, bmc = self.settings, self._bmc()
        bmc.hurry(LONGEST_SEARCH_S)
        try:
            taken, left_out = find_chassis(bmc, settings.chassis)
        finally:
            bmc.close()
        reason = ", ".join(f"{chassis.id} by {chassis.how}" for chassis in taken)
        if left_out:
            inner = ", ".join(f"{name} (in {outer})" for name, outer in left_out.items())
            reason += f"; left out because another holds them: {inner}"
        if settings.endpoint.startswith("http://"):
            reason += "; user and password go over the network in the clear: write https://"
        elif settings.verify is False:
            reason += f"; the BMC's certificate is not checked: set {KEY}.verify to its CA file"
        return reason, [chassis.id for chassis in taken]

    def channels(self) -> list[SensorChannel]:
        """Open one channel per chassis, each with a connection of its own."""
        settings = self.settings
        bmcs = [self._open()]
        bmcs[0].hurry(LONGEST_SEARCH_S)
        try:
            self._chassis, _ = find_chassis(bmcs[0], settings.chassis)
        except SourceError:
            self.close()
            raise
        bmcs += [self._open() for _ in self._chassis[1:]]
        return [
            _ChassisChannel(bmc, chassis, settings.period_s, self._counter(chassis.id))
            for bmc, chassis in zip(bmcs, self._chassis, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Add how each chassis is read, and which chassis contains it."""
        return {
            **super().describe(),
            "chassis": {
                self.hide(chassis.id): {"how": chassis.how, "within": chassis.within and self.hide(chassis.within)}
                for chassis in self._chassis
            },
        }

    def _counter(self, name: str) -> sanity.GrowingCounter:
        return self._counters.setdefault(name, sanity.GrowingCounter(f"the energy counter of chassis {name}"))

    def _open(self) -> Bmc:
        """Return a connection that is closed with the source."""
        bmc = self._bmc()
        self._connections.append(bmc)
        return bmc

    def _bmc(self) -> Bmc:
        settings, login = self.settings, self.login()
        if login is None or not (plain(login.token) or (plain(login.username) and plain(login.password))):
            names = " and ".join(variable(settings.credentials, field) for field in ("username", "password"))
            raise SourceError(f"{KEY} has no user and password: set {names}, or write them to credentials_file")
        return Bmc(settings.endpoint, login, settings.verify, f"{KEY}.verify", self._refusal)


def find_chassis(bmc: Bmc, names: list[str] | None) -> tuple[list[Chassis], dict[str, str]]:
    """Return the chassis to log, and the ids of those left out, each with the id of the logged chassis around it.

    Raises:
        SourceError: a named one is missing or gives no power, or none gives any.
    """
    tree = _Tree(bmc)
    for name in names or []:
        if name not in tree.paths:
            raise SourceError(f"{KEY}.chassis names {name!r}: the BMC has {', '.join(tree.paths)}")
    around = {name: tree.around(name) for name in names or tree.paths}
    chosen: dict[str, Chassis] = {}
    inner: dict[str, str] = {}
    # From the outside in: a BMC of a GPU machine has tens of chassis, and each question takes it long.
    for name in sorted(around, key=lambda name: len(around[name])):
        within = next((outer for outer in around[name] if outer in chosen), None)
        if within is not None and not names:
            inner[name] = within
            continue
        meter = _meter(bmc, tree.paths[name], tree.document(name))
        if meter is not None:
            most_w = sanity.number(tree.document(name).get("MaxPowerWatts"))
            limit_w = stated_limit_w([most_w], BOARD_FACTOR, sanity.HIGHEST_POWER_W)
            how, read = meter
            chosen[name] = Chassis(name, within, how, limit_w, read)
        elif names:
            raise SourceError(f"chassis {name} gives no power now: leave it out of {KEY}.chassis, or switch it on")
    if not chosen:
        raise SourceError(f"none of the chassis {', '.join(tree.paths)} gives its power now")
    return list(chosen.values()), inner


class _Tree:
    """The chassis of a BMC by id, and which is within which; each is asked for once."""

    def __init__(self, bmc: Bmc) -> None:
        self._bmc = bmc
        self._documents: dict[str, dict[str, Any]] = {}
        self.paths = {_last(path): path for path in _links(bmc.json(CHASSIS).get("Members"))}

    def document(self, name: str) -> dict[str, Any]:
        """The chassis' own resource."""
        if name not in self._documents:
            self._documents[name] = self._bmc.json(self.paths[name])
        return self._documents[name]

    def around(self, name: str) -> list[str]:
        """The chassis that hold this one, the nearest first."""
        outer: list[str] = []
        while True:
            links = self.document(outer[-1] if outer else name).get("Links")
            holders = _links([links.get("ContainedBy")]) if isinstance(links, dict) else []
            if not holders or (holder := _last(holders[0])) not in self.paths or holder in (name, *outer):
                return outer
            outer.append(holder)


def _meter(bmc: Bmc, path: str, document: Any) -> tuple[str, Callable[[Bmc], tuple[float, float | None]]] | None:
    """Return how a chassis is read: the first way that gives a power now."""

    def environment(bmc: Bmc) -> tuple[float, float | None]:
        metrics = bmc.json(_link(document, "EnvironmentMetrics") or f"{path}/EnvironmentMetrics")
        watts = sanity.power_w(_reading(metrics, "PowerWatts"), f"PowerWatts of {path}")
        joules, kwh = _reading(metrics, "EnergyJoules"), _reading(metrics, "EnergykWh")
        return watts, joules if joules is not None else None if kwh is None else kwh * 3.6e6

    def control(bmc: Bmc) -> tuple[float, float | None]:
        controls = bmc.json(_link(document, "Power") or f"{path}/Power").get("PowerControl")
        entries = [entry for entry in controls if isinstance(entry, dict)] if isinstance(controls, list) else []
        for entry in entries:
            # A GPU tray's only entry may say GPU and is the tray's all the same.
            if len(entries) == 1 or entry.get("PhysicalContext") not in _PARTS:
                return sanity.power_w(entry.get("PowerConsumedWatts"), f"PowerConsumedWatts of {path}"), None
        raise SourceError(f"{path} has no PowerControl of the whole chassis")

    supplies: list[str] = []

    def inputs(bmc: Bmc) -> tuple[float, float | None]:
        readings = [sanity.number(_reading(bmc.json(supply), "InputPowerWatts")) for supply in supplies]
        if None in readings or not readings:
            raise SourceError(f"not every power supply of {path} gives its InputPowerWatts")
        total_w = sum(reading for reading in readings if reading is not None)
        return sanity.power_w(total_w, f"InputPowerWatts of {path}"), None

    ways = [("EnvironmentMetrics", environment), ("PowerControl", control), ("power supplies", inputs)]
    names = ("EnvironmentMetrics", "Power", "PowerSubsystem")
    linked = [way for name, way in zip(names, ways, strict=True) if _link(document, name)]
    for how, read in linked or ways[:2]:
        try:
            if read is inputs:
                supplies += _supplies(bmc, document)
            read(bmc)
        except StatusError as error:
            if error.status != 404:
                raise
        except SourceError:
            if bmc.unreachable:
                raise
        else:
            return how, read
    return None


def _supplies(bmc: Bmc, document: Any) -> list[str]:
    """The metrics of the power supplies that give their input power."""
    paths = []
    for subsystem in _links([document.get("PowerSubsystem")]):
        for group in _links([bmc.json(subsystem).get("PowerSupplies")]):
            for supply in _links(bmc.json(group).get("Members")):
                for metrics in _links([bmc.json(supply).get("Metrics")]):
                    # An empty bay or a supply without a meter gives none.
                    if sanity.number(_reading(bmc.json(metrics), "InputPowerWatts")) is not None:
                        paths.append(metrics)
    return paths


def _link(document: Any, name: str) -> str | None:
    return next(iter(_links([document.get(name)])), None)


def _links(entries: Any) -> list[str]:
    listed = entries[:MOST_MEMBERS] if isinstance(entries, list) else []
    links = [entry.get("@odata.id") for entry in listed if isinstance(entry, dict)]
    # Nothing that could lead to another host.
    return [link.partition("#")[0].rstrip("/") for link in links if isinstance(link, str) and link[:9] == "/redfish/"]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _reading(document: Any, name: str) -> float | None:
    part = document.get(name)
    return sanity.number(part.get("Reading")) if isinstance(part, dict) else None


class _ChassisChannel(SensorChannel):
    """Power of one chassis, and its energy counter where it has one."""

    def __init__(self, bmc: Bmc, chassis: Chassis, period_s: float, counter: sanity.GrowingCounter) -> None:
        super().__init__("redfish", chassis.id, "node", "sampled", period_s)
        self.still_limit_s = STILL_LIMIT_S
        self._bmc = bmc
        self.limit_w = chassis.limit_w
        self._chassis = chassis
        self._counter = counter

    def read(self) -> PowerSample:
        self._bmc.hurry(LONGEST_READ_S)
        (watts, energy_j), timestamp_ns, latency_us = timed(lambda: self._chassis.read(self._bmc))
        counter_j = self._counter.add(energy_j, watts, timestamp_ns)
        return PowerSample(timestamp_ns, latency_us, power_instant_w=watts, energy_counter_j=counter_j)
