"""Each estimator against a value computed by hand, and what takes it away."""

import math
from typing import Any

import numpy as np
import pytest
from tests.estimate.configurations import basis, calibration, cases, experts, gpu, row, shape

from inference_energy.errors import InputError
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.compare import ESTIMATORS, estimator_of
from inference_energy.estimate.estimator import Basis, Values, spelled
from inference_energy.estimate.estimators.ecologits import gpu_count
from inference_energy.estimate.estimators.roofline import prefill_j
from inference_energy.estimate.shapes.precision import WeightPrecision
from inference_energy.estimate.shapes.shape import Attention


def values(name: str, made: Cases, resting: Basis | None = None) -> Values:
    return estimator_of(name).estimate(made, resting or basis())


def point(name: str, made: Cases, resting: Basis | None = None) -> float:
    return float(values(name, made, resting).point[0])


def why(name: str, made: Cases, resting: Basis | None = None) -> str:
    found = values(name, made, resting)
    assert math.isnan(found.point[0])
    return "; ".join(spelled(problem.detail) for problem in found.problems if problem.cases[0])


def test_tdp() -> None:
    # 500 W on 2 GPUs at 1000 tokens/s.
    assert point("tdp", cases(tensor_parallel=2)) == pytest.approx(1.0)


def test_tdp70() -> None:
    found = values("tdp70", cases())
    assert (found.point[0], found.low[0], found.high[0]) == pytest.approx((0.35, 0.165, 0.495))


def test_flops() -> None:
    # 2 * 1e10 FLOP at 1e14 FLOP/s take 0.2 ms; 700 W for so long.
    assert point("flops", cases()) == pytest.approx(0.14)
    assert point("flops", cases(batch=100.0)) == pytest.approx(0.14)
    fp8 = shape(weights=WeightPrecision("fp8", "linear", 8.0, "made"))
    assert point("flops", cases(fp8)) == pytest.approx(0.07)
    # Of 10 billion weights a token meets 2 + 8 * 2/8 billion.
    assert point("flops", cases(experts())) == pytest.approx(0.14 * 0.4)
    assert "node" in why("flops", cases(card=gpu(node_w=None)))


def test_roofline_bound_by_memory() -> None:
    # 2e10 bytes at 1.2e12 bytes/s take 16.67 ms; by 10 tokens, at 350 W.
    assert point("roofline", cases()) == pytest.approx(20 / 1200 / 10 * 350)
    # The GPUs share the step, so their number cancels.
    assert point("roofline", cases(tensor_parallel=4)) == pytest.approx(20 / 1200 / 10 * 350)


def test_roofline_bound_by_compute() -> None:
    # 2e10 * 1000 FLOP at 5e14 FLOP/s take 40 ms, longer than the bytes do.
    assert point("roofline", cases(batch=1000.0)) == pytest.approx(0.040 / 1000 * 350)


def test_roofline_touches_experts() -> None:
    # 4e9 bytes of the rest, 16e9 of experts of which two tokens touch 1 - 0.75^2.
    read = 4e9 + 16e9 * 0.4375
    assert point("roofline", cases(experts(), batch=2.0)) == pytest.approx(read / 1.2e12 / 2 * 350)


def test_prefill_by_data_sheet() -> None:
    low, high = prefill_j(cases())
    flops = 2e10 * 100 + 40_000 * 100**2 / 2
    assert (low[0], high[0]) == pytest.approx((flops / 6e14 * 350, flops / 4e14 * 350))


def test_ecologits() -> None:
    # 10 billion in 16 bit need 24 GB, one GPU: (1.1665e-6 * exp(-0.717184) * 10 + 4.0529e-5) Wh.
    assert point("ecologits", cases()) == pytest.approx(3600 * (1.1665e-5 * math.exp(-0.717184) + 4.0529e-5))
    found = values("ecologits", cases())
    latency_s = 6.785e-3 + 3.119e-4 * 64 + 0.01947
    assert found.beside["server_energy_per_output_token_j"][0] == pytest.approx(latency_s * 1200 / 8 / 64)
    grams = (273 + 5700 / 8) * 1000 * latency_s / (3 * 365 * 86400) / 64
    assert found.beside["embodied_carbon_per_output_token_gco2e"][0] == pytest.approx(grams)


@pytest.mark.parametrize(
    ("billion", "gpus"),
    # 1.2 * 2 bytes each, in cards of 80 GB: 33.3 billion fill one.
    [(8, 1), (33, 1), (34, 2), (70.6, 4), (405.9, 16), (671, 32)],
)
def test_ecologits_counts_gpus_in_powers_of_two(billion: float, gpus: int) -> None:
    assert gpu_count(billion) == gpus


def test_hungry() -> None:
    # A request sees 100 tokens/s; an eighth of a node by 10 requests: 10200 * 0.065 / 80 + 1600 * 0.5 / 80 W, PUE 1.12.
    found = values("hungry", cases())
    assert found.point[0] == pytest.approx(0.01 * (10200 * 0.065 / 80 + 10) * 1.12)
    assert found.low[0] == pytest.approx(0.01 * (10200 * 0.055 / 80 + 10) * 1.12)
    assert found.high[0] == pytest.approx(0.01 * (10200 * 0.075 / 80 + 10) * 1.12)
    assert found.scored[0] == pytest.approx(0.01 * 10200 * 0.065 / 80)
    assert "first token" in found.notes(0)[0]


def test_hungry_waits_for_the_first_token() -> None:
    found = values("hungry", cases(ttft_s=2.0))
    assert found.point[0] == pytest.approx((0.01 + 2 / 200) * (10200 * 0.065 / 80 + 10) * 1.12)
    assert found.notes(0) == []


def test_hungry_knows_two_nodes_only() -> None:
    assert "H100-SXM" in why("hungry", cases(card=gpu("L4")))


def test_scale_is_a_band() -> None:
    # Twice the parameters, half the bandwidth, TDP 1.5 times, two GPUs for one.
    big = shape("big", mlp=18_000_000_000)
    card = gpu(bandwidth_bytes_per_s=1e12, tdp_w=750.0)
    found = values("scale", cases(big, card, tensor_parallel=2), basis(baseline=row(output_j=0.5)))
    fixed = 0.5 * 2 * 2 * 1.5
    assert math.isnan(found.point[0])
    assert found.low[0] == pytest.approx(fixed * 0.90 * 0.75 * 2 * 1.10 * 0.70)
    assert found.high[0] == pytest.approx(fixed * 1.10 * 1.8 * 2 * 1.15 * 1.15)
    assert found.scored[0] == pytest.approx(math.sqrt(found.low[0] * found.high[0]))


def test_scale_towards_a_smaller_model_swaps_the_ends_of_k() -> None:
    half = shape("half", mlp=3_000_000_000)
    found = values("scale", cases(half), basis(baseline=row(output_j=1.0)))
    assert found.low[0] == pytest.approx(0.5 * 1.10**-1 * 0.75 * 0.70)
    assert found.high[0] == pytest.approx(0.5 * 0.90**-1 * 1.8 * 1.15)


def test_scale_starts_from_the_row_of_the_nearest_batch() -> None:
    rows = [row(shape=shape("Llama-3.1-8B"), batch=batch, output_j=8 / batch) for batch in (8.0, 64.0)]
    near, far = (values("scale", cases(batch=batch), basis(*rows)) for batch in (10.0, 60.0))
    assert near.low[0] == pytest.approx(8 * far.low[0])
    assert "baseline" in why("scale", cases(), basis(row()))


def test_lookup_takes_the_nearest_row_as_it_is() -> None:
    rows = [
        row(label="same size", output_j=1.0, batch=8.0),
        row(label="same batch, other size", output_j=2.0, batch=10.0, shape=shape("big", mlp=80_000_000_000)),
        row(label="far batch", output_j=3.0, batch=64.0),
    ]
    found = values("lookup", cases(), basis(*rows))
    assert found.point[0] == 1.0
    assert "same size" in found.notes(0)[0]
    assert point("lookup", cases(batch=100.0), basis(*rows)) == 3.0


def test_lookup_tells_experts_from_dense() -> None:
    rows = [row(output_j=1.0), row(output_j=2.0, shape=experts())]
    assert point("lookup", cases(experts()), basis(*rows)) == 2.0


def test_lookup_without_a_batch_is_a_range() -> None:
    rows = [row(output_j=1.0, batch=8.0), row(output_j=0.2, batch=64.0), row(output_j=9.0, shape=experts())]
    found = values("lookup", cases(batch=math.nan), basis(*rows))
    assert math.isnan(found.point[0])
    assert (found.low[0], found.high[0]) == (0.2, 1.0)


def test_lookup_stays_on_the_gpu() -> None:
    assert "H100-SXM" in why("lookup", cases(card=gpu("L4")), basis(row()))


def test_energy_roofline() -> None:
    # 2e10 / 10 bytes of weights, 1e5 * (100 + 200 / 2) of cache; 2 * 1e10 FLOP; a token.
    energy_j = 200e-12 * (2e9 + 2e7) + 2e-12 * 2e10 + 0.010
    found = values("energy-roofline", cases())
    assert found.point[0] == pytest.approx(energy_j)
    # Two standard deviations of 5 %, and coefficients that are known exactly.
    assert (found.low[0], found.high[0]) == pytest.approx((0.9 * energy_j, 1.1 * energy_j))


def test_energy_roofline_reads_a_window_no_further() -> None:
    windowed = shape(full=Attention(), windowed=shape().full, window=50)
    assert point("energy-roofline", cases(windowed)) == pytest.approx(200e-12 * (2e9 + 5e6) + 0.040 + 0.010)


def test_energy_roofline_of_another_gpu_is_not_given() -> None:
    assert "H100-SXM" in why("energy-roofline", cases(card=gpu("L4")))
    assert "--calibration" in why("energy-roofline", cases(), basis(calibration=None))


def test_energy_roofline_says_when_it_extrapolates() -> None:
    found = values("energy-roofline", cases(batch=1000.0))
    assert any("extrapolated" in note for note in found.notes(0))
    assert any("dense" in note for note in values("energy-roofline", cases(experts())).notes(0))


def with_prompts(**changes: Any) -> Basis:
    """A calibration that knows prompts: 1 pJ for each of their FLOPs."""
    terms = [("byte", 200e-12), ("flop", 2e-12), ("token", 0.010), ("prefill", 1e-12)]
    made = calibration(
        coefficients=[{"term": term, "value": value} for term, value in terms],
        covariance=np.zeros((4, 4)).tolist(),
        prompts="apart",
        **changes,
    )
    return basis(calibration=made)


def test_mixed_requests_carry_their_prompts() -> None:
    decode = 200e-12 * (2e9 + 2e7) + 2e-12 * 2e10 + 0.010
    prompt = 1e-12 * (2e10 * 100 + 40_000 * 100**2 / 2)
    assert point("energy-roofline", cases(), with_prompts()) == pytest.approx(decode + prompt / 200)


def test_decode_alone_is_a_mixed_request_without_a_prompt() -> None:
    alone = cases(input_tokens=0.0)
    assert point("energy-roofline", alone, with_prompts()) == pytest.approx(200e-12 * (2e9 + 1e7) + 0.040 + 0.010)


def test_prompts_alone() -> None:
    fitted = with_prompts().calibration
    assert fitted is not None
    found = fitted.prompt_tokens(cases())
    assert found.energy_j[0] == pytest.approx(1e-12 * (2e10 + 40_000 * 100 / 2))


NEEDS = {
    "tdp": ["throughput"],
    "tdp70": ["throughput"],
    "flops": [],
    "roofline": ["batch"],
    "ecologits": [],
    "hungry": ["throughput", "batch", "output_tokens"],
    "scale": ["batch"],
    "lookup": [],
    "energy-roofline": ["batch", "context"],
}
GIVEN = ("batch", "input_tokens", "output_tokens", "throughput")


def test_all_estimators_are_there() -> None:
    assert [one.id for one in ESTIMATORS] == list(NEEDS)


@pytest.mark.parametrize("name", [name for name in NEEDS if name not in ("scale", "lookup")])
@pytest.mark.parametrize("absent", GIVEN)
def test_what_lacks_an_input_has_no_number_and_says_so(name: str, absent: str) -> None:
    made = cases(**{absent: math.nan})
    context = absent in ("input_tokens", "output_tokens") and "context" in NEEDS[name]
    if absent in NEEDS[name] or context:
        assert why(name, made, basis(row()))
    else:
        assert point(name, made, basis(row())) > 0


@pytest.mark.parametrize(
    ("key", "value"), [("batch", 0.0), ("batch", -1.0), ("output_tokens", 0.0), ("throughput", math.inf)]
)
def test_impossible_loads_are_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=key):
        cases(**{key: value})
