"""How far the bench's H100 is from measured figures, and the fit that its constants come from.

Each reference is simulated as it was measured: a published row as a closed loop of as many users as its batch (prompts
of 250 tokens, answers of 350 to 650, which is an assumption: the source gives neither), a measured window with its own
load. The constants minimise relative errors by least squares (soft L1).
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from inference_energy.bench.offline.drive import Arrivals, serve
from inference_energy.bench.parts.catalogue import H100
from inference_energy.bench.parts.devices import Device
from inference_energy.bench.parts.engine import VLLM_0_11, EngineSettings
from inference_energy.bench.parts.shapes import SHAPES
from inference_energy.bench.truth.engine import Engine
from inference_energy.bench.truth.request import Request
from inference_energy.bench.truth.step import StepPhysics
from inference_energy.validation.references import FIRST_RUN, MEASURED, PUBLISHED, ROWS, WINDOWS, MeasuredWindow, Row

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
    """Every reference beside the bench.

    Args:
        device: the constants.
        old: the engine of the published rows.
        new: the engine of the measured windows; None: the bench's default.
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
        for row in ROWS
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
    """Fit the constants anew: the device, the old engine and the new one (about a minute)."""
    low, high = np.array(_LOWEST), np.array(_HIGHEST)
    start = np.array(
        [
            *(getattr(H100, name) for name in FITTED),
            *(getattr(engine, name) for engine in (EngineSettings(), VLLM_0_11) for name in _HOSTS),
        ]
    )

    def residuals(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        found = compare(*_constants(low + (high - low) * scaled))
        return np.array([error * weight for row in found for error, weight in _weighted(row)])

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


def _row(device: Device, row: Row, settings: EngineSettings) -> tuple[float, float]:
    """Power of all GPUs and energy per token of a steady closed loop."""
    engine = _engine(device, row.model, settings.model_copy(update={"max_num_seqs": row.batch}), row.tensor_parallel)
    random = np.random.default_rng(1)
    # The first answers have all lengths, so that the users do not move in step.
    first = random.integers(1, OUTPUT_TOKENS[1], row.batch)
    later = random.integers(*OUTPUT_TOKENS, ROUNDS * row.batch)
    lengths = [int(n) for n in np.concatenate((first, later))]
    _closed_loop(engine, row.batch, lambda i: Request(i, PROMPT_TOKENS, lengths[i]), ROUNDS * row.batch, FOREVER_NS)
    power_w, sampled_per_s, _ = _means(engine, round(engine.now_ns * 0.3), round(engine.now_ns * 0.75))
    return power_w * row.tensor_parallel, power_w * row.tensor_parallel / sampled_per_s


def _window(device: Device, window: MeasuredWindow, settings: EngineSettings) -> tuple[float, float]:
    """Mean power and tokens/s of a measured window."""
    engine = _engine(device, "llama-3.1-8b", settings, 1)
    random = np.random.default_rng(5)

    def make(number: int) -> Request:
        prompt = max(1, round(random.normal(window.prompt, window.prompt_std)))
        return Request(number, prompt, window.output)

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


def _engine(device: Device, model: str, settings: EngineSettings, tensor_parallel: int) -> Engine:
    engine = Engine(StepPhysics(device, SHAPES[model], settings, tensor_parallel))
    engine.thermal.temperature_c = WARM_C
    return engine


def _closed_loop(
    engine: Engine, users: int, make: Callable[[int], Request], requests: int | None, until_ns: int
) -> None:
    """Users who each send the next request when the last has ended, `requests` in all."""
    arrivals: Arrivals = [(user * 200_000, user, make(user)) for user in range(users)]
    sent = users

    def again(_: Request) -> None:
        nonlocal sent
        if requests is None or sent < requests:
            heapq.heappush(arrivals, (engine.now_ns + TURNAROUND_NS, sent, make(sent)))
            sent += 1

    serve(engine, arrivals, until_ns, again)


def _means(engine: Engine, start_ns: int, end_ns: int) -> tuple[float, float, float]:
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
