"""The grades of a window's answers, and the accuracy of a server's."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from inference_energy.analysis.figures import invalid
from inference_energy.analysis.trapezoid import Values
from inference_energy.analysis.validity import judged, reason
from inference_energy.config.metrics import QualityConfig
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.metrics.cells import MetricCell
from inference_energy.metrics.quality.graders import grader_of, is_right


@dataclass(frozen=True)
class Grades:
    """The graded requests of a window, or why there are none.

    Attributes:
        rows: `question` (what was asked, the same text for the same question), `right` and `last_token_ns`, a row for
            each request that ended well in the window; empty where there are problems.
        problems: what is against grading.
    """

    rows: pd.DataFrame
    problems: tuple[Reason, ...]

    def bins(self, cell: MetricCell) -> Values:
        """Right answers in each bin of the window."""
        times_ns = self.rows.loc[self.rows["right"], "last_token_ns"].to_numpy(dtype=np.int64)
        return np.histogram(times_ns, bins=cell.edges_ns)[0].astype(np.float64)


def grades(cell: MetricCell, config: QualityConfig) -> Grades:
    """Grade the answers of the requests that ended well in a window."""
    nothing = pd.DataFrame({"question": [], "right": [], "last_token_ns": []}).astype({"right": bool})
    against = invalid(cell.figures["requests"])
    if against:
        return Grades(nothing, against)
    asked = cell.finished().merge(cell.prompts[["prompt_id", "text", "messages", "answer"]], on="prompt_id", how="left")
    known = asked["answer"].notna()
    if not known.all() or asked.empty:
        text = "No prompt of the window has a right answer: use graded prompts, such as `source: questions`."
        if known.any():
            lacking, count = int((~known).sum()), len(asked)
            text = (
                f"{lacking} of {count} requests had no right answer to compare with: others would be charged for them."
            )
        return Grades(nothing, (reason("no_graded_prompts", text),))
    if cell.answers is None:
        return Grades(
            nothing, (reason("answers_not_kept", "Answers were not kept: write keep_answers: true in the workload."),)
        )
    asked = asked.merge(
        cell.answers[["request_id", "text"]].rename(columns={"text": "said"}), on="request_id", how="left"
    )
    if asked["said"].isna().any():
        text = f"The answers to {int(asked['said'].isna().sum())} of {len(asked)} requests are missing."
        return Grades(nothing, (reason("answers_not_kept", text),))
    right = [
        is_right(str(said), str(answer), grader_of(str(answer)) if config.grader == "auto" else config.grader)
        for said, answer in zip(asked["said"], asked["answer"], strict=True)
    ]
    question = asked["text"].fillna(asked["messages"]).fillna(asked["prompt_id"].astype(str))
    times_ns = asked["last_token_ns"].fillna(asked["end_ns"])
    return Grades(pd.DataFrame({"question": question, "right": right, "last_token_ns": times_ns}), ())


def accuracy(found: Iterable[Grades]) -> Figure:
    """The share of right answers, each question counted once, with Wilson's interval.

    A question that is asked again is no new question, so its answers are averaged first, and the interval is that of so
    many independent ones as there are questions (Wilson, JASA 22, 1927). It says how well the model would do on other
    questions of this kind.
    """
    parts = list(found)
    rows = [grades.rows for grades in parts if not grades.rows.empty]
    if not rows:
        problems = list(dict.fromkeys(problem for grades in parts for problem in grades.problems))
        absent = problems or [reason("no_graded_prompts", "No answer was graded.")]
        return judged(None, "share", boundary="client", grade="counted", reasons=absent)
    every = pd.concat(rows, ignore_index=True)
    shares = every.groupby("question", sort=False)["right"].mean()
    value, count = float(shares.mean()), len(shares)
    notes = []
    if len(every) > count:
        text = f"{count} questions were asked {len(every)} times; the interval is that of {count}."
        notes.append(reason("repeated_questions", text))
    figure = judged(value, "share", boundary="client", grade="counted", notes=notes)
    z = float(stats.norm.ppf(0.975))
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(value * (1 - value) / count + z**2 / (4 * count**2)))
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Figure(
        figure.value,
        "share",
        "none",
        "client",
        "counted",
        reasons=figure.reasons,
        interval_95=(min(low, value), max(high, value)),
    )
