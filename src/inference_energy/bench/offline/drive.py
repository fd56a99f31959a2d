"""Runs an engine through virtual time: requests come in, steps follow each other, answers go out."""

import heapq
from collections.abc import Callable

from inference_energy.bench.truth.engine import Engine
from inference_energy.bench.truth.request import Request

Arrivals = list[tuple[int, int, Request]]
"""A heap of (time at the server [ns], order, request)."""


def serve(engine: Engine, arrivals: Arrivals, until_ns: int, finished: Callable[[Request], None] | None = None) -> None:
    """Serve until all requests are answered, or until a time.

    A step that is under way then is completed, so the engine's clock may end up a step later; where everything was
    answered before, it stands at the last answer.

    Args:
        engine: where its clock stands is now.
        arrivals: requests to come; those served are taken off. `finished` may push more.
        until_ns: when to stop.
        finished: called with each request that has got its last token.
    """
    add, begin, complete = engine.add, engine.begin, engine.complete
    pop = heapq.heappop
    while engine.now_ns < until_ns:
        if not engine.has_work:
            if not arrivals:
                return
            if arrivals[0][0] > engine.now_ns:
                engine.rest(min(arrivals[0][0], until_ns))
                continue
        while arrivals and arrivals[0][0] <= engine.now_ns:
            add(pop(arrivals)[2])
        begin()
        for request in complete():
            if finished is not None and request.generated >= request.output_tokens:
                finished(request)
