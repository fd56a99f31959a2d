"""Calibration of the bench's H100: measured figures with their sources, residuals, and the fit of the constants.

Each reference is simulated as it was measured: a published row as a closed loop with as many users as its batch
(prompts of 250 tokens, answers of 350 to 650, which is an assumption: the source gives neither), a measured window with
its own load. The constants minimize relative errors by least squares (soft L1).
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from inference_energy.bench.config import VLLM_0_11, EngineSettings
from inference_energy.bench.hardware import H100, SHAPES, Device
from inference_energy.bench.offline.client import RequestArrivals, serve
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest
from inference_energy.bench.truth.step import StepPhysics

PUBLISHED = "ML.ENERGY Leaderboard v3, task lm-arena-chat, vLLM 0.11.1, H100"
WINDOWS = "one H100 80GB HBM3, vLLM 0.25.1, Llama-3.1-8B shape with dummy weights, windows with their ramps"
FIRST_RUN = "docs/validation/first-gpu-run.md: H100 80GB HBM3, vLLM 0.25.1, Llama-3.1-8B shape with dummy weights"

PROMPT_TOKENS = 250
OUTPUT_TOKENS = (350, 650)
ROUNDS = 4
TURNAROUND_NS = 500_000
RAMP_S = 8.0
FOREVER_NS = 10**15
WARM_C = 57.0
FITTED = (
    "memory_share",
    "flop_share",
    "exposed_share",
    "busy_w",
    "gap_w",
    "byte_j",
    "flop_j",
    "thin_flop_j",
    "reduce_latency_s",
)
_HOSTS = ("step_host_s", "sequence_host_s")
_LOWEST = (0.5, 0.4, 0.0, 150.0, 125.0, 20e-12, 0.2e-12, 0.2e-12, 6e-6, 0.0, 0.0, 0.0, 0.0)
_HIGHEST = (0.95, 0.95, 1.0, 450.0, 300.0, 200e-12, 1.2e-12, 3e-12, 60e-6, 3e-3, 5e-5, 8e-3, 1e-4)


@dataclass(frozen=True)
class PublishedRow:
    """One published figure: J per output token of a steady closed loop."""

    model: str
    tensor_parallel: int
    batch: int
    energy_per_token_j: float


PUBLISHED_ROWS = tuple(
    PublishedRow(model, parts, batch, energy_j)
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


@dataclass(frozen=True)
class Comparison:
    """One reference beside the bench: mean power [W] of all GPUs (None where not published) and J a token."""

    name: str
    source: str
    power_w: float | None
    energy_per_token_j: float
    bench_power_w: float
    bench_energy_per_token_j: float

    @property
    def power_error(self) -> float | None:
        """Relative error of the bench's power."""
        return None if self.power_w is None else self.bench_power_w / self.power_w - 1

    @property
    def energy_error(self) -> float:
        """Relative error of the bench's energy per token."""
        return self.bench_energy_per_token_j / self.energy_per_token_j - 1


def compare(
    device: Device = H100, old: EngineSettings = VLLM_0_11, new: EngineSettings | None = None
) -> list[Comparison]:
    """Compare every reference with the bench.

    Args:
        device: the constants.
        old: engine of the published rows.
        new: engine of the measured windows; None for the bench's default.
    """
    new = new or EngineSettings()
    rows = [
        Comparison(
            f"{row.model} x{row.tensor_parallel}, batch {row.batch}",
            PUBLISHED,
            None,
            row.energy_per_token_j,
            *_row(device, row, old),
        )
        for row in PUBLISHED_ROWS
    ]
    for window in MEASURED:
        power_w, tokens_per_s = _window(device, window, new)
        rows.append(
            Comparison(
                window.name,
                window.source,
                window.power_w,
                window.energy_per_token_j,
                power_w,
                power_w / tokens_per_s,
            )
        )
    return rows


def fit(max_evaluations: int = 40) -> tuple[Device, EngineSettings, EngineSettings]:
    """Fit the constants: the device, the old engine and the new one (about a minute)."""
    low, high = np.array(_LOWEST), np.array(_HIGHEST)
    start = np.array(
        [
            *(getattr(H100, name) for name in FITTED),
            *(getattr(engine, name) for engine in (EngineSettings(), VLLM_0_11) for name in _HOSTS),
        ]
    )

    def residuals(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        comparisons = compare(*_constants(low + (high - low) * scaled))
        return np.array([error * weight for row in comparisons for error, weight in _weighted(row)])

    solved = least_squares(
        residuals,
        np.clip((start - low) / (high - low), 1e-3, 1 - 1e-3),
        bounds=(0, 1),
        diff_step=np.full(len(low), 1e-2),
        max_nfev=max_evaluations,
        loss="soft_l1",
        f_scale=0.1,
    )
    return _constants(low + (high - low) * solved.x)


def _constants(values: NDArray[np.float64]) -> tuple[Device, EngineSettings, EngineSettings]:
    numbers = [float(value) for value in values]
    count = len(FITTED)
    device = H100.model_copy(update=dict(zip(FITTED, numbers[:count], strict=True)))
    new = EngineSettings(**dict(zip(_HOSTS, numbers[count : count + 2], strict=True)))
    old = EngineSettings(**dict(zip(_HOSTS, numbers[count + 2 :], strict=True)))
    return device, old, new


def _weighted(row: Comparison) -> list[tuple[float, float]]:
    """Log errors with their weights: the published batches 8, 64 and 256 of the 8B model count most."""
    energy = float(np.log1p(row.energy_error))
    if row.power_error is not None:
        return [(float(np.log1p(row.power_error)), 2.0), (energy, 1.5)]
    if not row.name.startswith("llama-3.1-8b"):
        return [(energy, 0.5)]
    return [(energy, 2.0 if row.name.endswith((" 8", " 64", " 256")) else 1.0)]


def _row(device: Device, row: PublishedRow, settings: EngineSettings) -> tuple[float, float]:
    """Power of all GPUs and energy per token of a steady closed loop."""
    engine = _engine(device, row.model, settings.model_copy(update={"max_num_seqs": row.batch}), row.tensor_parallel)
    random = np.random.default_rng(1)
    # The first answers have all lengths, so that the users do not stay in step.
    first = random.integers(1, OUTPUT_TOKENS[1], row.batch)
    later = random.integers(*OUTPUT_TOKENS, ROUNDS * row.batch)
    lengths = [int(n) for n in np.concatenate((first, later))]
    _closed_loop(
        engine, row.batch, lambda i: BenchRequest(i, PROMPT_TOKENS, lengths[i]), ROUNDS * row.batch, FOREVER_NS
    )
    power_w, sampled_per_s, _ = _means(engine, round(engine.now_ns * 0.3), round(engine.now_ns * 0.75))
    return power_w * row.tensor_parallel, power_w * row.tensor_parallel / sampled_per_s


def _window(device: Device, window: MeasuredWindow, settings: EngineSettings) -> tuple[float, float]:
    """Mean power and tokens/s of a measured window."""
    engine = _engine(device, "llama-3.1-8b", settings, 1)
    random = np.random.default_rng(5)

    def make(number: int) -> BenchRequest:
        prompt = max(1, round(random.normal(window.prompt, window.prompt_std)))
        return BenchRequest(number, prompt, window.output)

    if window.users is None:
        count = window.requests or 0
        times_s = np.sort(random.uniform(0, window.sent_s, count))
        arrivals = [(round(float(at_s) * 1e9), i, make(i)) for i, at_s in enumerate(times_s)]
        serve(engine, arrivals, FOREVER_NS)
        start_ns = 0 if window.whole else round(RAMP_S * 1e9)
        end_ns = engine.now_ns if window.whole else start_ns + round(window.duration_s * 1e9)
    else:
        until_ns = FOREVER_NS if window.whole else round((window.duration_s + RAMP_S) * 1e9)
        _closed_loop(engine, window.users, make, window.requests, until_ns)
        start_ns, end_ns = 0 if window.whole else round(RAMP_S * 1e9), engine.now_ns
    power_w, sampled_per_s, prompts_per_s = _means(engine, start_ns, end_ns)
    return power_w, prompts_per_s if window.output == 1 else sampled_per_s


def _engine(device: Device, model: str, settings: EngineSettings, tensor_parallel: int) -> BenchEngine:
    engine = BenchEngine(StepPhysics(device, SHAPES[model], settings, tensor_parallel))
    engine.thermal.temperature_c = WARM_C
    return engine


def _closed_loop(
    engine: BenchEngine, users: int, make: Callable[[int], BenchRequest], requests: int | None, until_ns: int
) -> None:
    """Serve users who each send the next request when the last has ended, `requests` in all."""
    arrivals: RequestArrivals = [(user * 200_000, user, make(user)) for user in range(users)]
    sent = users

    def send_next(_: BenchRequest) -> None:
        nonlocal sent
        if requests is None or sent < requests:
            heapq.heappush(arrivals, (engine.now_ns + TURNAROUND_NS, sent, make(sent)))
            sent += 1

    serve(engine, arrivals, until_ns, send_next)


def _means(engine: BenchEngine, start_ns: int, end_ns: int) -> tuple[float, float, float]:
    """Power of one GPU, sampled tokens/s and prompt tokens/s between two times."""
    log = engine.segments
    starts_ns, ends_ns = log.integers("start_ns"), log.integers("end_ns")
    length_s = (end_ns - start_ns) / 1e9
    overlap_s = np.clip(np.minimum(ends_ns, end_ns) - np.maximum(starts_ns, start_ns), 0, None) / 1e9
    inside = (ends_ns > start_ns) & (ends_ns <= end_ns)
    return (
        float((log.floats("gpu_w") * overlap_s).sum()) / length_s,
        float(log.integers("samples")[inside].sum()) / length_s,
        float(log.integers("prompts")[inside].sum()) / length_s,
    )


def table(comparisons: list[Comparison]) -> str:
    """A Markdown table of the comparisons, with the source of each group above it."""
    lines = []
    for source in (PUBLISHED, WINDOWS, FIRST_RUN):
        lines += [f"{source}:", "", "| | measured W | bench W | measured J/token | bench J/token | difference |"]
        lines.append("|---|---|---|---|---|---|")
        for row in comparisons:
            if row.source == source:
                power = "" if row.power_w is None else f"{row.power_w:.0f}"
                lines.append(
                    f"| {row.name} | {power} | {row.bench_power_w:.0f} | {row.energy_per_token_j:.4g} | "
                    f"{row.bench_energy_per_token_j:.4g} | {100 * row.energy_error:+.1f} % |"
                )
        lines.append("")
    return "\n".join(lines)
