"""Metric 9: energy per correct answer.

Formula:  J per correct answer = E_task / n_correct, with E_task the energy of the window on each basis, and n_correct
          the right answers among the requests that ended well in it;  accuracy = mean over questions
Takes:    the window's energies, answers.parquet, the right answers of prompts.parquet (`metrics.quality`).
Needs:    a workload whose prompts all have a right answer (`source: questions`, or JSONL with `answer`), and
          `keep_answers: true`.
Interval: energy and right answers of a window fluctuate together. It holds for this set of questions.
Says:     the energy of right answers. A small model may spend little per token and much per right answer. Compare only
          on the same questions, with the same prompts and graders.
"""

from collections.abc import Sequence

from inference_energy.analysis.energy_per_unit import J_PER_KWH
from inference_energy.analysis.figures import blocking_reasons, make_figure
from inference_energy.config.analysis import QualityConfig
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.goodput_per_joule import requests_per_j
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.quality import Grades, accuracy
from inference_energy.metrics.uncertainty import like, per


def energy_per_answer(window: WindowInputs, grades: Grades) -> dict[str, Figure]:
    """Return `accuracy_share`, `correct_answers` and `energy_{basis}_per_correct_answer_j`."""
    right = int(grades.rows["right"].sum())
    correct = make_figure(
        None if grades.problems else right, "answer", boundary="client", grade="counted", reasons=grades.problems
    )
    none = ("no_correct_answers", f"None of {len(grades.rows)} answers was right.")
    bins = None if grades.problems else grades.bins(window)
    per_answer = {
        f"energy_{basis}_per_correct_answer_j": per(window, basis, correct, bins, "J/answer", *none) for basis in BASES
    }
    return {"accuracy_share": accuracy([grades]), "correct_answers": correct, **per_answer}


def goodput_at_floor(window: WindowInputs, of_server: Sequence[Grades], config: QualityConfig) -> dict[str, Figure]:
    """Return `goodput_total_requests_per_kwh_at_floor`, the figure to use if there can be only one.

    Good requests per kWh, if the lower bound of the server's accuracy reaches the floor: low energy does not make up
    for wrong answers.

    Args:
        window: the window.
        of_server: the grades of all windows of its server.
        config: the quality floor.
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
