"""A server that holds requests until so many are in flight, then answers them all.

    python holding_server.py REQUESTS

Prints its port when it listens.
"""

import asyncio
import resource
import sys

EVENTS = (
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(EVENTS), EVENTS)


class Held(asyncio.Protocol):
    waiting: list[asyncio.Transport] = []  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"POST " not in data:
            return
        self.waiting.append(self.transport)
        if len(self.waiting) == int(sys.argv[1]):
            for transport in self.waiting:
                transport.write(ANSWER)
            self.waiting.clear()


async def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await asyncio.get_running_loop().create_server(Held, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
