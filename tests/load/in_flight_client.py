"""A client with many requests in flight at once; prints their outcomes and the memory of each.

python in_flight_client.py ENDPOINT REQUESTS
"""

import asyncio
import collections
import json
import resource
import sys
import time

import psutil
import uvloop
from exchange_server import COMPLETIONS, Seen, client_of, planned

from inference_energy.acquire.load.http.request import RequestRecord


class Counting(Seen):
    def __init__(self, expected: int) -> None:
        super().__init__()
        self.left = expected
        self.all_sent = asyncio.Event()

    def sent(self, record: RequestRecord) -> None:
        self.left -= 1
        if not self.left:
            self.all_sent.set()


async def main(endpoint: str, count: int) -> None:
    process = psutil.Process()
    seen = Counting(count)
    async with client_of(endpoint, seen=seen, request_timeout_s=100.0, connect_timeout_s=60.0) as client:
        before = process.memory_info().rss
        began = time.monotonic()
        tasks = [asyncio.create_task(client.send(planned(n), COMPLETIONS, 0, 0)) for n in range(count)]
        highest = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.02)
            highest = max(highest, process.memory_info().rss)
        records = [task.result().record for task in tasks]
    overlap = max(record.sent_ns or 0 for record in records) < min(record.end_ns or 0 for record in records)
    statuses = collections.Counter(f"{record.status} {record.error or ''}" for record in records)
    print(
        json.dumps(
            {
                "statuses": statuses,
                "overlap": overlap,
                "bytes_each": (highest - before) / count,
                "took_s": time.monotonic() - began,
            }
        )
    )


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
uvloop.run(main(sys.argv[1], int(sys.argv[2])))
