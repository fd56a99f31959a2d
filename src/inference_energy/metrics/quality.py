"""Quality: three graders of answers, the grades of a window, and the accuracy of a server.

Each grader is a rule that anyone can apply by hand:

    exact             both texts after normalizing: lower case, no punctuation, no articles, single spaces; from the
                      answer its first non-empty line, or the first one after `answer is` or `answer:`
                      (normalizing as in SQuAD: Rajpurkar et al., EMNLP 2016)
    multiple_choice   the first capital letter from A to H that stands alone: in parentheses, before `)`, `.` or `:`, or
                      at the end of a line; searched after `answer is` or `answer:` first
    numeric           the number after `####`, `answer is` or `answer:`, else the last number of the text; equal within
                      1e-6 of the right one (the marker `####` as in GSM8K: Cobbe et al., arXiv 2110.14168)

Text between `<think>` and `</think>` is not part of the answer. A grader depends on the prompt to ask for its form: an
answer in another form counts as wrong, so accuracies of different prompts are not comparable.
"""

import math
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from inference_energy.analysis.figures import blocking_reasons, make_figure
from inference_energy.analysis.integration import Values
from inference_energy.config.analysis import QualityConfig
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import WindowInputs

Grader = Literal["exact", "multiple_choice", "numeric"]

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_MARKER = re.compile(r"(?:####|\banswer\s+is\b|\banswer\s*:)", re.IGNORECASE)
_NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-−+]?\.\d+")
_LETTER = re.compile(r"(?<![A-Za-z0-9])(?:\(([A-H])\)|([A-H])(?=[).:]|\s*$))", re.MULTILINE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
TOLERANCE = 1e-6


def choose_grader(right: str) -> Grader:
    """Return the grader that fits the form of a right answer."""
    if re.fullmatch(r"[A-H]", right.strip()):
        return "multiple_choice"
    return "numeric" if _value(right.strip()) is not None else "exact"


def is_right(answer: str, right: str, grader: Grader) -> bool:
    """Return whether an answer is right by a grader."""
    text = _THOUGHT.sub("", answer)
    match grader:
        case "exact":
            lines = (_first_line(part) for part in (text, _behind_marker(text) or ""))
            return normalized(right) in {normalized(line) for line in lines if line}
        case "multiple_choice":
            return letter(text) == right.strip()
        case "numeric":
            given_number, right_number = number(text), _value(right.strip())
            return (
                given_number is not None
                and right_number is not None
                and math.isclose(
                    given_number, right_number, rel_tol=TOLERANCE, abs_tol=TOLERANCE if right_number == 0 else 0.0
                )
            )


def normalized(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and extra spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def letter(text: str) -> str | None:
    """Return the letter that a text chooses."""
    for part in (_behind_marker(text), text):
        match = _LETTER.search(part) if part is not None else None
        if match:
            return match.group(1) or match.group(2)
    return None


def number(text: str) -> float | None:
    """Return the number that a text gives."""
    behind = _behind_marker(text)
    first = _NUMBER.search(behind) if behind is not None else None
    if first:
        return _value(first.group())
    every = _NUMBER.findall(text)
    return _value(every[-1]) if every else None


def _behind_marker(text: str) -> str | None:
    markers = list(_MARKER.finditer(text))
    return text[markers[-1].end() :] if markers else None


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _value(text: str) -> float | None:
    return float(text.replace(",", "").replace("−", "-")) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True)
class Grades:
    """The graded requests of a window, or the problems that prevent grading.

    Attributes:
        rows: `question` (its text), `right` and `last_token_ns` of each request that ended well in the window; empty if
            there are problems.
        problems: why the window cannot be graded.
    """

    rows: pd.DataFrame
    problems: tuple[Reason, ...]

    def bins(self, window: WindowInputs) -> Values:
        """Count the right answers in each bin of the window."""
        times_ns = self.rows.loc[self.rows["right"], "last_token_ns"].to_numpy(dtype=np.int64)
        return np.histogram(times_ns, bins=window.edges_ns)[0].astype(np.float64)


def grade_answers(window: WindowInputs, config: QualityConfig) -> Grades:
    """Grade the answers of the requests that ended well in a window."""
    nothing = pd.DataFrame({"question": [], "right": [], "last_token_ns": []}).astype({"right": bool})
    problems = blocking_reasons(window.figures["requests"])
    if problems:
        return Grades(nothing, problems)
    rows = window.finished().merge(
        window.prompts[["prompt_id", "text", "messages", "answer"]], on="prompt_id", how="left"
    )
    has_answer = rows["answer"].notna()
    if not has_answer.all() or rows.empty:
        text = "No prompt of the window has a right answer: use graded prompts, such as `source: questions`."
        if has_answer.any():
            lacking, count = int((~has_answer).sum()), len(rows)
            text = (
                f"{lacking} of {count} requests had no right answer to compare with: others would be charged for them."
            )
        return Grades(nothing, (reason("no_graded_prompts", text),))
    if window.answers is None:
        return Grades(
            nothing, (reason("answers_not_kept", "Answers were not kept: write keep_answers: true in the workload."),)
        )
    rows = rows.merge(
        window.answers[["request_id", "text"]].rename(columns={"text": "said"}), on="request_id", how="left"
    )
    if rows["said"].isna().any():
        text = f"The answers to {int(rows['said'].isna().sum())} of {len(rows)} requests are missing."
        return Grades(nothing, (reason("answers_not_kept", text),))
    right = [
        is_right(str(said), str(answer), choose_grader(str(answer)) if config.grader == "auto" else config.grader)
        for said, answer in zip(rows["said"], rows["answer"], strict=True)
    ]
    question = rows["text"].fillna(rows["messages"]).fillna(rows["prompt_id"].astype(str))
    times_ns = rows["last_token_ns"].fillna(rows["end_ns"])
    return Grades(pd.DataFrame({"question": question, "right": right, "last_token_ns": times_ns}), ())


def accuracy(graded_windows: Iterable[Grades]) -> Figure:
    """Return the share of right answers, each question counted once, with Wilson's interval.

    Answers to a repeated question are averaged first, and the interval assumes as many independent answers as there are
    distinct questions (Wilson, JASA 22, 1927). It holds for other questions of this kind.
    """
    parts = list(graded_windows)
    rows = [grades.rows for grades in parts if not grades.rows.empty]
    if not rows:
        problems = list(dict.fromkeys(problem for grades in parts for problem in grades.problems))
        absent = problems or [reason("no_graded_prompts", "No answer was graded.")]
        return make_figure(None, "share", boundary="client", grade="counted", reasons=absent)
    every = pd.concat(rows, ignore_index=True)
    shares = every.groupby("question", sort=False)["right"].mean()
    value, count = float(shares.mean()), len(shares)
    notes = []
    if len(every) > count:
        text = f"{count} questions were asked {len(every)} times; the interval is that of {count}."
        notes.append(reason("repeated_questions", text))
    figure = make_figure(value, "share", boundary="client", grade="counted", notes=notes)
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
