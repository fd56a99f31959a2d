"""Scenarios of the trials: six loads, and the node that each is sent to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.bench.config import Node
from inference_energy.bench.offline.plan import BenchCell, SessionPlan
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.plan.distributions import generator

MACHINE, SESSION, SERVER = "bench", "trial", "virtual"
TRIM_START_S = 8.0
POOL = 512
"""Number of prompts of a closed loop, which are sent again when they are used up."""
GAIN_STD = 0.01
OFFSET_STD_W = 0.3
"""Each trial draws another card. How much H100s differ has not been measured, so this is assumed (other cards were off
by 5 % and more: Yang, Adamek, Armour, SC24)."""


@dataclass(frozen=True)
class LoadWindow:
    """One cell of a scenario.

    `cv` is the coefficient of variation of the gaps (1: Poisson; gamma-distributed). `prefixes` groups of prompts share
    `prefix_tokens` tokens each.
    """

    name: str
    kind: str
    duration_s: float
    rate_qps: float | None = None
    users: int | None = None
    cv: float = 1.0
    prompt: int = 256
    prompt_std: int = 64
    output: int = 256
    output_std: int = 0
    prefixes: int = 0
    prefix_tokens: int = 0

    def arrival(self) -> dict[str, Any]:
        """Return the arrival as in the configuration."""
        if self.users is not None:
            return {"process": "closed", "concurrency": self.users}
        if self.cv == 1.0:
            return {"process": "poisson", "rate_qps": self.rate_qps}
        return {"process": "gamma", "rate_qps": self.rate_qps, "cv": self.cv}


@dataclass(frozen=True)
class Scenario:
    """A node and its load; figures of the first steady window are compared."""

    name: str
    text: str
    windows: tuple[LoadWindow, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def reported(self) -> str:
        """The window whose figures are compared."""
        return next(window.name for window in self.windows if window.kind == "steady")

    def node(self, seed: int) -> Node:
        """The node of one trial: another card each time."""
        sensors = {"nvml": {"gain_std": GAIN_STD, "offset_std_w": OFFSET_STD_W}}
        return Node.parse({"seed": seed, "sensors": sensors, **self.settings})

    def plan(self, seed: int) -> SessionPlan:
        """The session of one trial: other arrivals and prompts each time."""
        rows: list[dict[str, Any]] = []
        prompts: list[dict[str, Any]] = []
        for window in self.windows:
            _draw(window, seed, rows, prompts)
        cells = tuple(
            BenchCell(s.name, s.kind, s.duration_s, self.name, s.arrival(), prefix_reuse=s.prefixes > 0)
            for s in self.windows
        )
        frame = pd.DataFrame(rows, columns=SCHEDULE.names)
        contents = pd.DataFrame(prompts, columns=PROMPTS.names, dtype=object) if prompts else None
        return SessionPlan(SESSION, MACHINE, SERVER, cells, frame, contents, launch_s=10.0, settle_s=20.0)


def _draw(window: LoadWindow, seed: int, rows: list[dict[str, Any]], prompts: list[dict[str, Any]]) -> None:
    """Append a window's requests, and their contents where prefixes are shared."""
    random = generator(seed, window.name, "bench")
    arrivals: list[int | None]
    if window.rate_qps is None:
        arrivals = [None] * POOL
    else:
        shape, count = 1.0 / window.cv**2, int(window.rate_qps * window.duration_s * 2) + 100
        times_s = np.cumsum(random.gamma(shape, 1.0 / (window.rate_qps * shape), count))
        arrivals = [round(float(at_s) * 1e9) for at_s in times_s[times_s < window.duration_s]]
    lengths = np.clip(np.rint(random.normal(window.prompt, window.prompt_std, len(arrivals))), 1, None)
    heads = [random.integers(1000, 100_000, window.prefix_tokens).tolist() for _ in range(window.prefixes)]
    answers = np.clip(np.rint(random.normal(window.output, window.output_std, len(arrivals))), 1, None)
    for arrival_ns, length, answer in zip(
        arrivals, lengths.astype(int).tolist(), answers.astype(int).tolist(), strict=True
    ):
        number = len(rows)
        if heads:
            head = heads[int(random.integers(len(heads)))]
            tokens = [*head, *random.integers(1000, 100_000, length).tolist()]
            prompts.append({"prompt_id": number, "workload": "prefix", "token_ids": tokens, "text": None})
        rows.append(
            {
                "request_id": number,
                "cell": window.name,
                "arrival_ns": arrival_ns,
                "prompt_id": number,
                "prompt_tokens": length + window.prefix_tokens,
                "max_tokens": answer,
            }
        )


DESIGNED = (
    LoadWindow("prefill-2", "prefill", 48.0, users=2, prompt=2048, prompt_std=0, output=1),
    LoadWindow("prefill-16", "prefill", 48.0, users=16, prompt=2048, prompt_std=0, output=1),
    LoadWindow("decode-8", "decode", 48.0, users=8, prompt=16, prompt_std=0, output=512, output_std=128),
    LoadWindow("decode-64", "decode", 48.0, users=64, prompt=16, prompt_std=0, output=512, output_std=128),
)
"""Windows that only the fit uses: prompts alone and answers alone, at two sizes of batch. Answers differ in length:
users whose answers are all alike stay in step, and then tokens are not spread evenly over a request's time."""


def _session(load: LoadWindow, other: LoadWindow) -> tuple[LoadWindow, ...]:
    """Warm-up, the reported window, a second load, and the designed windows."""
    warmup = LoadWindow("warmup", "warmup", 10.0, load.rate_qps, load.users, load.cv, load.prompt, load.prompt_std)
    return (warmup, load, other, *DESIGNED)


SCENARIOS = (
    Scenario(
        "low load",
        "H100, Llama-3.1-8B shape, Poisson 1/s, 256/256",
        _session(LoadWindow("load", "steady", 98.0, 1.0), LoadWindow("other", "steady", 98.0, 8.0)),
    ),
    Scenario(
        "saturation",
        "H100, Llama-3.1-8B shape, closed loop of 192 users, 256/256, answers with a standard deviation of 64",
        _session(
            LoadWindow("load", "steady", 98.0, users=192, output_std=64), LoadWindow("other", "steady", 98.0, 12.0)
        ),
    ),
    Scenario(
        "bursty",
        "H100, Llama-3.1-8B shape, gamma arrivals with a coefficient of variation of 3, 6/s, 256/256",
        _session(LoadWindow("load", "steady", 188.0, 6.0, cv=3.0), LoadWindow("other", "steady", 98.0, 16.0)),
    ),
    Scenario(
        "long context",
        "H100, Llama-3.1-8B shape, Poisson 3/s, 3000/200",
        _session(
            LoadWindow("load", "steady", 98.0, 3.0, prompt=3000, prompt_std=600, output=200),
            LoadWindow("other", "steady", 98.0, 8.0),
        ),
    ),
    Scenario(
        "prefix-cached",
        "H100, Llama-3.1-8B shape, Poisson 8/s, 8 prefixes of 1024 tokens before 128 own ones, 256 generated",
        _session(
            LoadWindow("load", "steady", 98.0, 8.0, prompt=128, prompt_std=32, prefixes=8, prefix_tokens=1024),
            LoadWindow("other", "steady", 98.0, 16.0),
        ),
    ),
    Scenario(
        "two GPUs",
        "2 x H100 (TP 2), Qwen3-14B shape, Poisson 6/s, 256/256",
        _session(LoadWindow("load", "steady", 98.0, 6.0), LoadWindow("other", "steady", 98.0, 16.0)),
        {"model": "qwen3-14b", "tensor_parallel": 2},
    ),
)
