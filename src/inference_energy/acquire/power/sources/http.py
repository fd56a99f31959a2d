"""HTTP client for metering devices: short, bounded requests whose errors carry nothing secret.

Exceptions of the HTTP library hold the URL and the headers, so none leaves this module. Callers get a new
`SourceError`, raised outside the handler, that names the scheme, host and path.
"""

import http.client
import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as HttpTimeoutError

from inference_energy.acquire.power.base import SourceError
from inference_energy.contracts.outside import decode_json

TIMEOUT_S = 4.0
CONNECT_TIMEOUT_S = 2.0
LONGEST_ANSWER_BYTES = 16 << 20
UNREACHABLE = "the device cannot be reached: it is off, refuses the connection, or its name is not known"


class StatusError(SourceError):
    """The device answered with a status other than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Requests to one device. Proxies and .netrc are ignored, since meters are on the machine's own network.

    Args:
        base_url: scheme, host and port.
        auth: the authentication of the requests.
        verify: whether to check the certificate; a path is the CA file to check it against.
        timeout_s: the longest time of one call, including its repetition.
        verify_key: the setting to name when the certificate is not trusted, if there is one.
        hide: takes the login out of a device's own links.
    """

    def __init__(
        self,
        base_url: str,
        auth: AuthBase | None = None,
        verify: bool | str = True,
        timeout_s: float = TIMEOUT_S,
        verify_key: str | None = None,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._verify = verify
        self._timeout_s = timeout_s
        self._verify_key = verify_key
        self._hide = hide
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = auth
        self._session.headers["Accept-Encoding"] = "identity"
        if verify is False:
            # The source's state has this warning; urllib3 would repeat it at each read.
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")

    def json(self, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a JSON object.

        Raises:
            StatusError: the status is not 200.
            SourceError: there is no answer, or it is not a JSON object.
        """
        return json_object(self.request("GET", path, headers), self.address(path))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """GET a body; raise the same errors as `json`, except for its content."""
        return require_ok(self.request("GET", path, headers), self.address(path)).body

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
        until_s: float = math.inf,
    ) -> HttpResponse:
        """Send one request, with `content` as JSON, and read the whole response by `until_s` on the monotonic clock.

        Raises:
            SourceError: no response came in time; the message says why.
        """
        if not path.startswith("/"):
            # A device's own links must not lead the credentials to another host.
            raise SourceError(f"{self.address('')} gave a link that is not a path")
        until_s = min(until_s, time.monotonic() + self._timeout_s)
        result = self._attempt(method, path, headers, content, until_s)
        if result is None:
            # The device may just have closed a connection that was kept open: try once more, on a new one.
            result = self._attempt(method, path, headers, content, until_s)
        if isinstance(result, HttpResponse):
            return result
        raise SourceError(f"{self.address(path)}: {result or UNREACHABLE}")

    def address(self, path: str) -> str:
        """Return the URL of a path without its query, which may hold secrets."""
        return self._base_url + self._hide(path.partition("?")[0])

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _attempt(
        self, method: str, path: str, headers: Mapping[str, str] | None, content: Any, until_s: float
    ) -> HttpResponse | str | None:
        """Return the response, or why there is none; None if the connection broke or was refused."""
        left_s = max(0.1, until_s - time.monotonic())
        try:
            with self._session.request(
                method,
                self._base_url + path,
                headers=dict(headers or {}),
                json=content,
                timeout=(min(CONNECT_TIMEOUT_S, left_s), left_s),
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                # read1, because read waits for the full size, however slowly the bytes come.
                while chunk := response.raw.read1(1 << 16, decode_content=True):
                    body += chunk
                    if time.monotonic() > until_s:
                        return f"no whole answer within {self._timeout_s:g} s"
                    if len(body) > LONGEST_ANSWER_BYTES:
                        return f"the answer is longer than {LONGEST_ANSWER_BYTES >> 20} MiB"
                return HttpResponse(response.status_code, response.headers, bytes(body))
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                return "no TLS connection comes about: check that the device listens for https:// there"
            key = f", or set {self._verify_key} to its CA file" if self._verify_key else ""
            return f"the device's TLS certificate is not trusted: check the address{key}"
        except (requests.exceptions.Timeout, HttpTimeoutError):
            return f"no answer within {self._timeout_s:g} s"
        except requests.exceptions.ConnectionError:
            return None
        except requests.exceptions.InvalidURL:
            return "this is no address"
        except ValueError:
            return "the user name, password or token has characters that HTTP cannot carry"
        except (requests.RequestException, HTTPError, http.client.HTTPException):
            return "the answer is cut off or is no HTTP"
        except OSError:
            return f"the CA file {self._verify} cannot be read" if isinstance(self._verify, str) else None
        except Exception as error:  # such as the KeyError of requests at an incomplete digest challenge
            return f"the answer cannot be understood ({type(error).__name__})"


def require_ok(response: HttpResponse, address: str) -> HttpResponse:
    """Return the response if its status is 200.

    Raises:
        StatusError: the status is another.
    """
    if response.status != 200:
        raise StatusError(f"{address}: {status_text(response.status)}", response.status)
    return response


def json_object(response: HttpResponse, address: str) -> dict[str, Any]:
    """Return the JSON object that a response holds.

    Raises:
        StatusError: the status is not 200.
        SourceError: the body is not a JSON object.
    """
    document = None
    require_ok(response, address)
    # Raised outside: the exception would carry the body.
    with suppress(ValueError):
        document = decode_json(response.body)
    if not isinstance(document, dict):
        raise SourceError(f"{address} does not answer with a JSON object")
    return document


def status_text(status: int) -> str:
    """Return a sentence that explains a status to the user."""
    if status in (401, 403):
        return f"the device refuses the credentials, or asks for some (HTTP {status})"
    if 300 <= status < 400:
        return f"the device redirects (HTTP {status}): write the address that it redirects to, mostly https://"
    return f"the device answers with HTTP {status}"


def unverified_warning(url: str, verify: bool | str, key: str) -> str:
    """Return the end of a sentence that warns of an unchecked certificate; empty if it is checked, or without TLS."""
    if verify is not False or not url.startswith("https://"):
        return ""
    return f"; the device's certificate is not checked: set {key} to its CA file"


def host(url: str) -> str:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
