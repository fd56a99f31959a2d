"""The line that vLLM logs every ten seconds."""

import asyncio
import logging

from inference_energy.bench.live.metrics import EngineMetrics
from inference_energy.bench.truth.engine import Engine

INTERVAL_S = 10.0


async def log_stats(log: logging.Logger, metrics: EngineMetrics, engine: Engine) -> None:
    """Log throughput and state while there is any; runs until it is cancelled."""
    before = (0, 0)
    while True:
        await asyncio.sleep(INTERVAL_S)
        now = (metrics.prompt_tokens, metrics.generated_tokens)
        if now == before and not engine.has_work:
            continue
        prompt, generated = ((after - earlier) / INTERVAL_S for after, earlier in zip(now, before, strict=True))
        before = now
        blocks = engine.blocks
        log.info(
            "Engine 000: Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, "
            "Running: %d reqs, Waiting: %d reqs, GPU KV cache usage: %.1f%%, Prefix cache hit rate: %.1f%%",
            prompt,
            generated,
            len(engine.running),
            len(engine.waiting),
            100 * blocks.used / blocks.total,
            100 * blocks.hits / max(1, blocks.queries),
        )
