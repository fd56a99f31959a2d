"""Whether a stretch of load can be: its size, and whether its arrivals and its workload fit together."""

from collections.abc import Iterator

from inference_energy.config.load.arrivals import (
    MOST_REQUESTS,
    ClosedArrival,
    DayArrival,
    FileArrival,
    PiecewiseArrival,
    RampArrival,
    RateArrival,
    ScheduleArrival,
    TraceArrival,
)
from inference_energy.config.load.phases import LoadPhase
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.config.load.workload import Workload


def phase_problems(key: str, phase: LoadPhase, workload: Workload) -> Iterator[str]:
    """What is wrong with a phase.

    Args:
        key: where it stands, such as `windows.low`.
        phase: the phase.
        workload: its workload.

    Yields:
        A sentence for each problem, with the key and what to write.
    """
    arrival = phase.arrival
    if not isinstance(arrival, FileArrival | ClosedArrival):
        expected = expected_requests(arrival, phase.duration_s)
        if expected > MOST_REQUESTS:
            yield (
                f"{key}: about {expected:.3g} requests in {phase.duration_s:g} s, which is more than "
                f"{MOST_REQUESTS // 1_000_000} million and would not fit; write a lower rate or a shorter duration_s"
            )
    if isinstance(arrival, TraceArrival) and arrival.lengths:
        name = f"workloads.{phase.workload}"
        if not isinstance(workload.prompts, SyntheticPrompts):
            yield (
                f"{key}.arrival.lengths: only synthetic prompts can be as long as the trace's; write lengths: false, "
                f"or {name}.prompts.source: synthetic"
            )
        if workload.conversations:
            yield f"{key}.arrival.lengths: a trace has single requests; write lengths: false, or no conversations"
        if not workload.ignore_eos:
            yield (
                f"{key}.arrival.lengths: a model ends its answers where it likes; write {name}.ignore_eos: true, or "
                "lengths: false"
            )
    if isinstance(arrival, ScheduleArrival) and workload.conversations:
        yield (
            f"{key}.arrival: the schedule says which turns there are; leave out "
            f"workloads.{phase.workload}.conversations"
        )


def expected_requests(arrival: RateArrival, duration_s: float) -> float:
    """How many arrivals are expected: the integral of the rate; of a day that over whole periods."""
    if isinstance(arrival, RampArrival):
        return (arrival.from_qps + arrival.to_qps) / 2 * duration_s
    if isinstance(arrival, DayArrival):
        return arrival.mean_qps * duration_s
    if isinstance(arrival, PiecewiseArrival):
        rounds, left_s = divmod(duration_s, sum(step.duration_s for step in arrival.steps))
        expected = rounds * sum(step.rate_qps * step.duration_s for step in arrival.steps)
        for step in arrival.steps:
            expected += step.rate_qps * min(step.duration_s, left_s)
            left_s = max(0.0, left_s - step.duration_s)
        return expected
    return arrival.rate_qps * duration_s
