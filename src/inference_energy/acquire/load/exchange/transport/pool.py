"""Idle connections to one endpoint, to be used again."""

import time
from collections import deque
from typing import Generic, Protocol, TypeVar


class Idle(Protocol):
    """A connection that may wait in a pool."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be used; the peer may close it at any time."""

    def abort(self) -> None:
        """Close it at once."""


T = TypeVar("T", bound=Idle)


class Pool(Generic[T]):
    """Last in, first out, so that under little load the same few connections stay warm and the others end.

    Args:
        keep_alive_s: a connection idle for longer is closed, not used: the server may be about to close it.
    """

    def __init__(self, keep_alive_s: float) -> None:
        self._keep_alive_ns = round(keep_alive_s * 1e9)
        self._idle: deque[tuple[int, T]] = deque()

    def put(self, connection: T) -> None:
        """A connection is free."""
        self._idle.append((time.monotonic_ns(), connection))

    def take(self) -> T | None:
        """The connection used last, if there is one to be used again; those idle for too long are closed."""
        idle = self._idle
        oldest_ns = time.monotonic_ns() - self._keep_alive_ns
        while idle and idle[0][0] < oldest_ns:
            idle.popleft()[1].abort()
        while idle:
            connection = idle.pop()[1]
            if connection.is_open:
                return connection
        return None

    def close(self) -> None:
        """Close all of them."""
        while self._idle:
            self._idle.pop()[1].abort()
