"""How requests are sent, and what they ask besides their prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

KEEP_ALIVE_S = 4.0
"""Uvicorn closes idle connections after 5 s; one reused later would fail."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Settings of the client; times in s.

    Attributes:
        request_timeout_s: a request that takes longer has failed.
        connect_timeout_s: so has one whose connection takes longer.
        transport: `auto` is plain, also for https://: it costs less and is later by less; see docs/validation/load.md.
        api_key: sent as a bearer token; never shown.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
        connections: most connections to an endpoint; None: no limit.
        keep_alive_s: an idle connection is reused for at most so long.
    """

    request_timeout_s: float = 300.0
    connect_timeout_s: float = 30.0
    transport: Literal["auto", "plain", "aiohttp"] = "auto"
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    verify: bool = True
    connections: int | None = None
    keep_alive_s: float = KEEP_ALIVE_S


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadSettings:
    """What a workload's requests have in common.

    Attributes:
        api: `completions` asks /v1/completions with `prompt`, `chat` /v1/chat/completions with `messages`.
        stream: whether tokens are sent as they come.
        ignore_eos: generate exactly as many tokens as asked for.
        history: `actual`: later turns need the text of the answers before them, so answers of conversations are kept.
        keep_answers: keep the text of every answer.
        chunk_times: tell the observer of every arrival.
        parameters: further fields of the body. A null leaves out what the client would send (`temperature`).
    """

    api: Literal["completions", "chat"] = "completions"
    stream: bool = True
    ignore_eos: bool = False
    history: Literal["actual", "planned"] = "actual"
    keep_answers: bool = False
    chunk_times: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
