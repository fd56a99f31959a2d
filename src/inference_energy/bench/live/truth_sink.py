"""Who is told what the server does; on its own so that a server without a record needs no library for files."""

from collections.abc import Mapping
from typing import Any

from inference_energy.bench.live.job import Job


class TruthSink:
    """Takes what happens and keeps nothing; `live.truth.TruthLog` keeps it."""

    def start(self) -> None:
        """Begin to write, in the running event loop."""

    def flush(self) -> None:
        """Write what is new."""

    def sent(self, request_id: int, token: int, due_ns: int, sent_ns: int) -> None:
        """A token was sent: the `token`-th of a request, counted from 1, made at `due_ns`, written at `sent_ns`."""

    def ended(self, job: Job) -> None:
        """A request has left the engine, with its outcome set."""

    def close(self, further: Mapping[str, Any]) -> None:
        """Write the rest."""
