"""A section of facts in which what cannot be had is null and its reason stands beside it."""

from collections.abc import Callable
from typing import Any


class MissingFactError(Exception):
    """This fact cannot be had here; the message says why, without a path or a name of this machine's user."""


class Facts:
    """Collects facts under a dotted prefix.

    `values` is the section as it is written, in the order of the calls. `missing` maps the dotted key of each null to
    its reason.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def add(self, key: str, get: Callable[[], Any]) -> None:
        """Ask for one fact; `get` raises MissingFactError or OSError where it has none."""
        try:
            self.values[key] = get()
        except MissingFactError as error:
            self.lack(key, str(error))
        except OSError as error:
            self.lack(key, f"the system does not show it: {error.strerror or type(error).__name__}")

    def lack(self, key: str, reason: str) -> None:
        """Put null, with its reason."""
        self.values[key] = None
        self.missing[f"{self._prefix}.{key}"] = reason
