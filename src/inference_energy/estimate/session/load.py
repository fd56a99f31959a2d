"""The load of a measured window, in the terms of the estimators.

- batch: mean of the server's gauge of running requests over its scrapes in the window, shared by the copies;
- lengths: means over the requests that ended well in the window; prompts less what the prefix cache held;
- context: mean position of their decode steps, prompt plus half the answer, weighted by the answers' lengths;
- throughput: output tokens/s in the window.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.server_counts import ServerMetrics
from inference_energy.analysis.window_counts import within
from inference_energy.analysis.windows import Window


@dataclass(frozen=True)
class WindowLoad:
    """What an estimator needs to know of a window; None for what the records do not tell."""

    batch: float | None
    input_tokens: float | None
    output_tokens: float | None
    context_tokens: float | None
    throughput: float | None
    ttft_s: float | None

    def as_dict(self) -> dict[str, float | None]:
        """As JSON holds it."""
        return {
            "batch": self.batch,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "context_tokens": self.context_tokens,
            "throughput_tokens_per_s": self.throughput,
            "ttft_s": self.ttft_s,
        }


def load_of(window: Window, requests: pd.DataFrame, metrics: ServerMetrics, load: dict[str, Any]) -> WindowLoad:
    """The load of a window.

    Args:
        window: after trimming.
        requests: the window's rows of requests.parquet.
        metrics: of the session.
        load: the window in steady_load.json.
    """
    throughput = load["figures"]["output_tokens_per_s"]["value"] or None
    means = metrics.block_means("running", np.array([window.start_ns, window.end_ns], dtype=np.int64))
    ok = requests[requests["status"] == "ok"]
    ended = ok[within(ok["last_token_ns"].fillna(ok["end_ns"]), window)]
    ended = ended[ended["completion_tokens"].notna() & ended["prompt_tokens"].notna()]
    batch = None if not means or means[0] <= 0 else means[0]
    if ended.empty:
        return WindowLoad(batch, None, None, None, throughput, None)
    prompts = ended["prompt_tokens"].to_numpy(dtype=np.float64)
    cached = ended["cached_tokens"].fillna(0).to_numpy(dtype=np.float64)
    answers = ended["completion_tokens"].to_numpy(dtype=np.float64)
    waits_s = (ended["first_token_ns"] - ended["sent_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    if answers.sum() <= 0:
        return WindowLoad(batch, float((prompts - cached).mean()), None, None, throughput, None)
    return WindowLoad(
        batch=batch,
        input_tokens=float((prompts - cached).mean()),
        output_tokens=float(answers.mean()),
        context_tokens=float((answers * (prompts + answers / 2)).sum() / answers.sum()),
        throughput=throughput,
        ttft_s=float(waits_s.mean()) if len(waits_s) else None,
    )
