"""What an endpoint wants of whoever asks: an API key, and how its certificate is checked."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from inference_energy.acquire.load.api_key import api_key_env
from inference_energy.errors import InputError


@dataclass(frozen=True, slots=True)
class Access:
    """How questions that are no load, such as /v1/models and /metrics, are asked; the load client has its own way.

    Attributes:
        key_env: the environment variable with the API key; None: no key is sent.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
    """

    key_env: str | None = None
    ca_file: str | None = None
    verify: bool = True

    @classmethod
    def of(cls, client: Mapping[str, Any], *, attached: bool, setting: str = "client.api_key_env") -> Self:
        """That of the section `client`; arguments as of `api_key_env`.

        Raises:
            InputError: the environment variable that was named is not set.
        """
        named = api_key_env(client.get("api_key_env"), attached=attached, setting=setting)
        return cls(named, client.get("ca_file"), bool(client.get("verify", True)))

    def session(self, **connector: Any) -> aiohttp.ClientSession:
        """A session that asks so, to be closed; `connector` has further arguments of `aiohttp.TCPConnector`.

        Raises:
            InputError: the certificates cannot be read.
        """
        key = os.environ.get(self.key_env) if self.key_env else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls(), **connector), headers=headers)

    def _tls(self) -> ssl.SSLContext | bool:
        if not self.verify or self.ca_file is None:
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise InputError(f"client.ca_file: {self.ca_file} cannot be used: {error}") from error
