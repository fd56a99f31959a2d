"""Measured figures that the bench is calibrated to, with their sources."""

from dataclasses import dataclass

PUBLISHED = "ML.ENERGY Leaderboard v3, task lm-arena-chat, vLLM 0.11.1, H100"
WINDOWS = "one H100 80GB HBM3, vLLM 0.25.1, Llama-3.1-8B shape with dummy weights, windows with their ramps"
FIRST_RUN = "docs/validation/first-gpu-run.md: H100 80GB HBM3, vLLM 0.25.1, Llama-3.1-8B shape with dummy weights"


@dataclass(frozen=True)
class Row:
    """One published figure: J per output token of a steady closed loop."""

    model: str
    tensor_parallel: int
    batch: int
    energy_per_token_j: float


ROWS = tuple(
    Row(model, parts, batch, energy_j)
    for model, parts, batches in (
        (
            "llama-3.1-8b",
            1,
            {8: 0.455, 16: 0.263, 32: 0.165, 64: 0.119, 128: 0.095, 256: 0.077, 512: 0.070},
        ),
        ("qwen3-14b", 1, {8: 0.706, 16: 0.398, 32: 0.244, 64: 0.167, 128: 0.128, 256: 0.112}),
        ("llama-3.1-70b", 4, {8: 3.76, 16: 2.09, 32: 1.21, 64: 0.797, 128: 0.563, 256: 0.479, 512: 0.421}),
    )
    for batch, energy_j in batches.items()
)


@dataclass(frozen=True)
class MeasuredWindow:
    """One measured window of the 8B shape.

    `requests` sent as a Poisson process over `sent_s`, or by `users` in a closed loop; prompts of `prompt` tokens with
    standard deviation `prompt_std` and `output` tokens each. `whole`: the window is all of the load with its ramps;
    else a steady stretch of `duration_s`. `tokens_per_s` counts prompt tokens where `output` is 1, generated ones
    else. Where a source does not say how long requests were sent, or by how many users, it is inferred from its window
    and token counts.
    """

    name: str
    source: str
    prompt: int
    prompt_std: int
    output: int
    power_w: float
    tokens_per_s: float
    users: int | None = None
    sent_s: float = 0.0
    requests: int | None = None
    whole: bool = False
    duration_s: float = 0.0

    @property
    def energy_per_token_j(self) -> float:
        """J for each counted token."""
        return self.power_w / self.tokens_per_s


MEASURED = (
    MeasuredWindow("4/s", WINDOWS, 256, 64, 256, 455, 22016 / 27.1, sent_s=25, requests=86, whole=True),
    MeasuredWindow("16/s", WINDOWS, 256, 64, 256, 556, 117760 / 32.0, sent_s=30, requests=460, whole=True),
    MeasuredWindow("48/s", WINDOWS, 256, 64, 256, 658, 556288 / 50.7, sent_s=45, requests=2173, whole=True),
    MeasuredWindow("prefill 2000/1", WINDOWS, 2000, 0, 1, 677, 998187 / 25.2, users=16, whole=True, requests=499),
    MeasuredWindow("decode 16/512", WINDOWS, 16, 0, 512, 486, 102400 / 33.7, users=24, whole=True, requests=200),
    MeasuredWindow("Poisson 4/s", FIRST_RUN, 256, 64, 256, 474, 75639 / 72, sent_s=82, requests=337, duration_s=72),
    MeasuredWindow("Poisson 16/s", FIRST_RUN, 256, 64, 256, 564, 302530 / 72, sent_s=82, requests=1346, duration_s=72),
    MeasuredWindow("Poisson 24/s", FIRST_RUN, 256, 64, 256, 622, 453857 / 72, sent_s=82, requests=2019, duration_s=72),
    MeasuredWindow("prefill 2048/1, 16 users", FIRST_RUN, 2048, 0, 1, 698, 589824 / 14, users=16, duration_s=14),
    MeasuredWindow("prefill 512/1, 2 users", FIRST_RUN, 512, 0, 1, 675, 466944 / 14, users=2, duration_s=14),
    MeasuredWindow("decode 16/512, 8 users", FIRST_RUN, 16, 0, 512, 467, 16777 / 14, users=8, duration_s=14),
    MeasuredWindow("decode 16/512, 32 users", FIRST_RUN, 16, 0, 512, 527, 97231 / 22, users=32, duration_s=22),
    MeasuredWindow("decode 16/512, 64 users", FIRST_RUN, 16, 0, 512, 606, 111469 / 14, users=64, duration_s=14),
)
