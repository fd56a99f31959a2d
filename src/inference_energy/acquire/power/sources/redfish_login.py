"""A BMC that is logged in to: HTTP basic authentication, or a session where the BMC refuses that.

Basic authentication leaves nothing behind when the sampler is killed; a BMC has few sessions, so one is opened only
where it must be, and closed at the end. Source: DMTF DSP0266, Redfish Specification, "Authentication".
"""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from requests.auth import HTTPBasicAuth

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.credentials import Credentials, plain
from inference_energy.acquire.power.sources.http import Answer, HttpClient, decoded, status_text

SESSIONS = "/redfish/v1/SessionService/Sessions"
REFUSED_S = 300.0
"""After refused credentials nothing is asked for this long: repeated attempts lock the account of many BMCs."""


class Refusal:
    """When a BMC last refused the credentials; one for all connections to it."""

    def __init__(self) -> None:
        self._until_s = 0.0

    def note(self) -> None:
        """It refused them now."""
        self._until_s = time.monotonic() + REFUSED_S

    def holds(self) -> bool:
        """Whether it is too early to try again."""
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
        self, endpoint: str, login: Credentials, verify: bool | Path, verify_key: str, refusal: Refusal
    ) -> None:
        self._login = login
        user, password = plain(login.username), plain(login.password)
        basic = HTTPBasicAuth(user.encode(), password.encode()) if user and password and not login.token else None
        self._client = HttpClient(endpoint, basic, verify, verify_key=verify_key)
        self._login_client = HttpClient(endpoint, None, verify, verify_key=verify_key)
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
        return decoded(answer, self._client.where(path))

    def hurry(self, seconds: float) -> None:
        """Let all requests from now on, together, take this long, until told anew."""
        self._until_s = time.monotonic() + seconds

    def close(self) -> None:
        """Log out, if logged in, and close the connections."""
        self._log_out()
        self._client.close()
        self._login_client.close()

    def _get(self, path: str) -> Answer:
        if self._refusal.holds():
            raise SourceError(f"{self._client.where(path)}: {status_text(401)}; asked again after {REFUSED_S:g} s")
        answer = self._send(path)
        if answer.status == 401 and self._log_in():
            answer = self._send(path)
        if answer.status == 401:
            self._refusal.note()
        return answer

    def _send(self, path: str) -> Answer:
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
