"""The worker's side of its pipes: orders come in as JSON lines on standard input, events go out on standard output."""

import asyncio
import json
import os
import select
from typing import Any

STDIN, STDOUT = 0, 1


class Orders:
    """The orders from the parent, in the running event loop.

    Orders: `run` (`cell`, `start_ns`), `stop` (end the cell at once, cutting off what is in flight), `end`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._rest = b""
        os.set_blocking(STDIN, False)
        self._loop.add_reader(STDIN, self._read)

    async def next(self) -> dict[str, Any] | None:
        """The next order; None, and from then on always, once the parent is gone."""
        order = await self._orders.get()
        if order is None:
            self._orders.put_nowait(None)
        return order

    def hang_up(self) -> None:
        """Behave as if the parent were gone."""
        self._loop.remove_reader(STDIN)
        self._orders.put_nowait(None)

    def _read(self) -> None:
        try:
            data = os.read(STDIN, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._orders.put_nowait(json.loads(line))


def say(event: str, **facts: Any) -> None:
    """Write one event; waits for a parent that is slow to read, and is lost where there is none."""
    line = _line(event, facts)
    try:
        while line:
            line = line[os.write(STDOUT, line) :]
    except OSError:
        return


def say_if_room(event: str, **facts: Any) -> None:
    """Write one event that may be lost: a parent that does not read must not stop the load."""
    line = _line(event, facts)
    writable = select.poll()
    writable.register(STDOUT, select.POLLOUT)
    # A pipe is writable when so many bytes fit that a line not longer than these is written whole or not at all.
    if len(line) <= select.PIPE_BUF and writable.poll(0):
        say(event, **facts)


def _line(event: str, facts: dict[str, Any]) -> bytes:
    return (json.dumps({"event": event, **facts}) + "\n").encode()
