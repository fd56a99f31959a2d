"""Settings of the load client: names, types and defaults, stated once.

`config.load` takes the defaults from here and adds bounds and descriptions for users. The load processes decode these
classes from JSON, so that they need no pydantic: it takes 11 MB of a process that is to stay out of the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Api = Literal["completions", "chat"]
History = Literal["actual", "planned"]
TransportName = Literal["auto", "plain", "aiohttp"]

KEEP_ALIVE_S = 4.0
"""Uvicorn closes idle connections after 5 s; one reused later would fail."""


@dataclass(frozen=True)
class ClientSettings:
    """How a client sends requests; times in s.

    Attributes:
        request_timeout_s: a request that takes longer has failed.
        connect_timeout_s: a request whose connection takes longer has failed.
        transport: `auto` is `plain`, also for https://: it costs less and is later by less; see
            docs/validation/load.md.
        api_key: sent as a bearer token; never shown, never written to a file.
        ca_file: certificates to trust instead of the system's.
        verify: whether the server's certificate is checked.
        connections: most connections to an endpoint; None: no limit.
        keep_alive_s: an idle connection is closed after this time instead of being used again.
        max_answer_mib: a request whose answer is larger, unpacked, has failed.
    """

    request_timeout_s: float = 300
    connect_timeout_s: float = 30.0
    transport: TransportName = "auto"
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    verify: bool = True
    connections: int | None = None
    keep_alive_s: float = KEEP_ALIVE_S
    max_answer_mib: int = 64


@dataclass(frozen=True, eq=False)
class WorkloadSettings:
    """The settings of a workload that its schedule and prompts do not hold.

    Attributes:
        api: `completions` sends `prompt` to /v1/completions, `chat` sends `messages` to /v1/chat/completions.
        stream: whether tokens are sent as they come.
        ignore_eos: generate exactly the number of tokens asked for.
        prefix_reuse: whether the server may reuse the prefix of a prompt sent before.
        history: `actual`: later turns need the text of the answers before them, so answers of conversations are kept.
        keep_answers: keep the text of every answer.
        chunk_times: tell the observer of every chunk of an answer.
        parameters: further fields of the body. A null leaves out a field that the client would send (`temperature`).
    """

    api: Api = "completions"
    stream: bool = True
    ignore_eos: bool = False
    prefix_reuse: bool = False
    history: History = "actual"
    keep_answers: bool = False
    chunk_times: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
