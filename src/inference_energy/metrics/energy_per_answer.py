"""Metric 9: energy per correct answer.

Formula:  J per correct answer = E_task / n_correct, with E_task the energy of the window on each basis, and n_correct
          the right answers among the requests that ended well in it;  accuracy = mean over questions
Takes:    the window's energies, answers.parquet, the right answers of prompts.parquet (`metrics.quality.grades`).
Needs:    a workload whose prompts all have a right answer (`source: questions`, or JSONL with `answer`), and
          `keep_answers: true`.
Interval: energy and right answers of a window fluctuate together. It is that of this set of questions.
Says:     what the energy buys that is right. A small model may spend little on a token and much on a right answer.
          Compare only on the same questions, with the same prompts and graders.
"""

from collections.abc import Sequence

from inference_energy.analysis.figures import blocking_reasons, make_figure, reason
from inference_energy.config.analysis import QualityConfig
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.goodput_per_joule import requests_per_j
from inference_energy.metrics.quality import Grades, accuracy
from inference_energy.metrics.uncertainty import like, per

J_PER_KWH = 3.6e6


def energy_per_answer(window: WindowInputs, found: Grades) -> dict[str, Figure]:
    """`accuracy_share`, `correct_answers` and `energy_{basis}_per_correct_answer_j`."""
    right = int(found.rows["right"].sum())
    correct = make_figure(
        None if found.problems else right, "answer", boundary="client", grade="counted", reasons=found.problems
    )
    none = ("no_correct_answers", f"None of {len(found.rows)} answers was right.")
    bins = None if found.problems else found.bins(window)
    per_answer = {
        f"energy_{basis}_per_correct_answer_j": per(window, basis, correct, bins, "J/answer", *none) for basis in BASES
    }
    return {"accuracy_share": accuracy([found]), "correct_answers": correct, **per_answer}


def goodput_at_floor(window: WindowInputs, of_server: Sequence[Grades], config: QualityConfig) -> dict[str, Figure]:
    """`goodput_total_requests_per_kwh_at_floor`: if one number is asked for, this one.

    Good requests for each kWh, given where the lower bound of the accuracy of the server's graded windows reaches the
    floor: a model that answers wrongly is not made good by being frugal.

    Args:
        window: the window.
        of_server: the grades of all windows of its server.
        config: the floor.
    """
    name = "goodput_total_requests_per_kwh_at_floor"
    good = requests_per_j(window, "total", J_PER_KWH, "request/kWh")
    problems = [*blocking_reasons(good)]
    if config.floor is None:
        problems.append(reason("no_quality_floor", "No quality floor is configured (metrics.quality.floor)."))
    else:
        graded = accuracy(of_server)
        problems += blocking_reasons(graded)
        low = graded.interval_95[0] if graded.interval_95 else graded.value
        if low is not None and low < config.floor:
            text = f"The accuracy may be as low as {low:.2f}, below the floor of {config.floor:g}."
            problems.append(reason("below_quality_floor", text))
    return {name: like(good, None, good.unit, reasons=problems) if problems else good}
