"""How fast the estimators are: one configuration, and 100,000 at once.

    python benchmarks/estimators.py

Times are of this run on this machine: the command's work after its imports, the imports, and all estimators over
100,000 configurations as arrays, against the same ones one by one (from a sample).
"""

import time
from collections.abc import Callable

import numpy as np

CONFIGURATIONS = 100_000
ONE_BY_ONE = 200


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the times."""
    began = time.perf_counter()
    from inference_energy.estimate.batch import Cases
    from inference_energy.estimate.compare import ESTIMATORS, basis_for, compare_estimates
    from inference_energy.estimate.compare import EstimateRequest as Request
    from inference_energy.estimate.gpus import find_gpu as gpu_of
    from inference_energy.estimate.shapes.config_json import catalogue_models as models
    from inference_energy.estimate.shapes.config_json import shape_of

    imports_s = time.perf_counter() - began

    def one() -> object:
        gpu = gpu_of("H100-SXM")
        shape = shape_of("Llama-3.1-8B")
        request = Request(shape, gpu, batch=64, input_tokens=512, output_tokens=256, throughput=8000)
        return compare_estimates(request, basis_for(gpu))

    first_s = timed(one)
    again_s = min(timed(one) for _ in range(20))

    random = np.random.default_rng(1)
    shapes = [shape_of(name) for name in models()]
    gpu = gpu_of("H100-SXM")
    chosen = [shapes[place] for place in random.integers(len(shapes), size=CONFIGURATIONS)]
    cards = [gpu, gpu_of("A100-80-SXM"), gpu_of("H200")]
    on = [cards[place] for place in random.integers(len(cards), size=CONFIGURATIONS)]
    batches = np.exp(random.uniform(0, np.log(512), CONFIGURATIONS))
    lengths = random.integers(16, 4096, size=(2, CONFIGURATIONS))
    speeds = random.uniform(100, 20_000, CONFIGURATIONS)
    basis = basis_for(gpu)

    def many(count: int) -> object:
        cases = Cases.of(
            chosen[:count],
            on[:count],
            batch=batches[:count],
            input_tokens=lengths[0, :count],
            output_tokens=lengths[1, :count],
            throughput=speeds[:count],
        )
        return {estimator.id: estimator.estimate(cases, basis) for estimator in ESTIMATORS}

    many_s = min(timed(lambda: many(CONFIGURATIONS)) for _ in range(3))

    def single(place: int) -> object:
        cases = Cases.of(
            [chosen[place]],
            [on[place]],
            batch=batches[place],
            input_tokens=lengths[0, place],
            output_tokens=lengths[1, place],
            throughput=speeds[place],
        )
        return {estimator.id: estimator.estimate(cases, basis) for estimator in ESTIMATORS}

    singles_s = timed(lambda: [single(place) for place in range(ONE_BY_ONE)]) / ONE_BY_ONE

    print(f"imports                                   {imports_s:7.3f} s")
    print(f"one configuration, files read for it      {first_s:7.3f} s (goal: below 0.3 s)")
    print(f"one configuration again                   {again_s:7.4f} s")
    print(f"{CONFIGURATIONS:,} configurations at once          {many_s:7.3f} s (goal: below 1 s)")
    print(f"the same one by one, by {ONE_BY_ONE} of them        {singles_s * CONFIGURATIONS:7.1f} s")
    print(f"ratio                                     {singles_s * CONFIGURATIONS / many_s:7.0f}")


if __name__ == "__main__":
    main()
