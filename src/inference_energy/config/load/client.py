"""The load client, as users set it: bounds and descriptions; the defaults are those of the client itself."""

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from inference_energy.config.base import MOST_SECONDS, Section
from inference_energy.contracts.load_client import ClientSettings, TransportName
from inference_energy.contracts.outside import MAX_PAGE_MIB, MAX_SERIES, PAGE_TIMEOUT_S


class ClientConfig(Section):
    """The load client."""

    request_timeout_s: float = Field(
        ClientSettings.request_timeout_s,
        gt=0,
        le=MOST_SECONDS,
        description="a request that takes longer has failed [s]",
    )
    drain_s: float = Field(
        60, ge=0, le=MOST_SECONDS, description="after a window, wait this long for requests in flight [s]"
    )
    workers: int = Field(1, ge=1, le=64, description="client processes that share the load")
    transport: TransportName = Field(
        ClientSettings.transport,
        description="auto and plain: the light one; aiohttp: another HTTP client, where the light one fails",
    )
    api_key_env: str | None = Field(
        None,
        description="name of the environment variable with the API key, never the key; null: OPENAI_API_KEY, if it is "
        "set and the server is attached",
    )
    ca_file: str | None = Field(
        ClientSettings.ca_file, min_length=1, description="certificates to trust; null: those of the system"
    )
    verify: bool = Field(ClientSettings.verify, description="check the server's certificate")
    max_page_mib: int = Field(
        MAX_PAGE_MIB, ge=1, le=1024, description="largest page of a server that is read, such as /metrics [MiB]"
    )
    page_timeout_s: float = Field(
        PAGE_TIMEOUT_S, gt=0, le=60, description="longest time of one such page; a slower one failed [s]"
    )
    max_series: int = Field(MAX_SERIES, ge=1, description="largest number of series on /metrics")
    connections: int | None = Field(
        ClientSettings.connections,
        ge=1,
        description="most connections to an endpoint; requests beyond wait, and are late; null: no limit",
    )
    max_answer_mib: int = Field(
        ClientSettings.max_answer_mib,
        ge=1,
        le=1024,
        description="a request whose answer is larger, unpacked, has failed [MiB]",
    )

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            # The message does not repeat it: it may be the key.
            raise ValueError("write the name of an environment variable, such as MY_API_KEY, never the key itself")
        return value

    @model_validator(mode="after")
    def _certificates(self) -> Self:
        if self.ca_file and not self.verify:
            raise ValueError("ca_file: nothing is checked with verify: false; leave one of the two out")
        return self
