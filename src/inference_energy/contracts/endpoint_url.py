"""The URL of an endpoint as users write it: what it must be, and where a redirect may lead."""

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import SplitResult, urljoin, urlsplit

LONGEST_CHARACTERS = 2000
"""Longer than any URL that servers and proxies take (most stop at 8,000 bytes for the whole request line)."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NOT_IN_URLS = re.compile(r'[^!-~]|[<>"\\^`{|}]')
_EXAMPLE = "http://127.0.0.1:8000"


def checked_endpoint(endpoint: str) -> str:
    """Return the base URL of an endpoint, without a trailing slash or `/v1`, which users may write as well.

    Raises:
        ValueError: it cannot be one. The message says what to write, and shows no login and no query.
    """
    if not endpoint:
        raise ValueError(f"it is empty; write one like {_EXAMPLE}")
    if len(endpoint) > LONGEST_CHARACTERS:
        raise ValueError(f"it has {len(endpoint):,} characters; write one like {_EXAMPLE}")
    if "@" in endpoint:
        raise ValueError("a URL must hold no login and no @; give the API key in its environment variable")
    if "?" in endpoint or "#" in endpoint:
        raise ValueError("a URL must end with its path; leave out what follows ? or #")
    if unfit := _NOT_IN_URLS.search(endpoint):
        kind = "a blank" if unfit[0].isspace() else f"the character {unfit[0]!a}"
        where = " at its end" if unfit[0].isspace() and endpoint.rstrip() == endpoint[: unfit.start()] else ""
        raise ValueError(f"{endpoint[:200]!a} holds {kind}{where}, which a URL cannot; write one like {_EXAMPLE}")
    try:
        url = urlsplit(endpoint)
    except ValueError as error:
        raise ValueError(f"{endpoint[:200]} is no URL; write one like {_EXAMPLE}") from error
    if _is_bare_ipv6(url.netloc):
        raise ValueError(f"{endpoint} needs brackets around its IPv6 address, as in http://[::1]:8000")
    try:
        port = url.port
    except ValueError:
        port = 0
    shown = endpoint[:200]
    if url.scheme not in ("http", "https") and "://" in endpoint:
        raise ValueError(f"{shown} is neither http:// nor https://; write one like {_EXAMPLE}")
    if url.scheme not in ("http", "https") or not _is_host(url):
        raise ValueError(f"{shown} is no URL; write one like {_EXAMPLE}")
    if port == 0 or url.netloc.endswith(":"):
        raise ValueError(f"{shown} names no port from 1 to 65535; write one like {_EXAMPLE}")
    return endpoint.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_bare_ipv6(netloc: str) -> bool:
    """Return whether this is an IPv6 address without brackets, perhaps with a port."""
    for text in (netloc, netloc.rpartition(":")[0]):
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            continue
        return True
    return False


def _is_host(url: SplitResult) -> bool:
    host = url.hostname or ""
    if "[" in url.netloc:
        try:
            return isinstance(ipaddress.ip_address(host), ipaddress.IPv6Address)
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels))


def redirect_target(url: str, location: str, hide: Callable[[str], str] = str) -> str:
    """Return where a redirect leads, if that is the same server: scheme, host and port.

    A request to another one would carry the API key and the prompts there, and measure another server.

    Args:
        url: of the request.
        location: the answer's header of that name.
        hide: replaces secrets in the message.

    Raises:
        ValueError: it leads elsewhere, or nowhere. The message names the target, without a login.
    """
    shown = shown_location(location, hide)
    try:
        target = urljoin(url, location)
        there, here = urlsplit(target), urlsplit(url)
        same = (there.scheme, there.hostname, _port(there)) == (here.scheme, here.hostname, _port(here))
    except ValueError as error:
        raise ValueError(f"redirected to {shown!r}, which is no URL") from error
    if _NOT_IN_URLS.search(target) or len(target) > LONGEST_CHARACTERS:
        raise ValueError(f"redirected to {shown!r}, which is no URL")
    if not same or there.username is not None or there.password is not None:
        raise ValueError(f"redirected to {shown}, another server, where neither API key nor prompts are sent")
    return target.partition("#")[0]


def shown_location(location: str, hide: Callable[[str], str] = str) -> str:
    """Return a Location for a message: short, printable, and without the login that it may hold."""
    printable = re.sub(r"[^ -~]", "\ufffd", hide(location[:LONGEST_CHARACTERS]))
    return re.sub(r"//[^/?#]*@", "//(login)@", printable)[:200]


def _port(url: SplitResult) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)
