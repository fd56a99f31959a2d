"""Is an answer right? Three graders, each a rule that anyone can apply by hand.

    exact             both texts after normalising: lower case, no punctuation, no articles, single spaces; of the
                      answer its first line that is not empty, or the first behind `answer is` or `answer:`
                      (normalising as in SQuAD: Rajpurkar et al., EMNLP 2016)
    multiple_choice   the first capital letter from A to H that stands alone: in parentheses, before `)`, `.` or `:`, or
                      at the end of a line; looked for behind `answer is` or `answer:` first
    numeric           the number behind `####`, `answer is` or `answer:`, else the last number of the text; equal within
                      1e-6 of the right one (the marker `####` as in GSM8K: Cobbe et al., arXiv 2110.14168)

What stands between `<think>` and `</think>` is no answer. A rule is only as good as the prompt that asks for its form:
an answer in another form counts as wrong, so accuracies of different prompts are not comparable.
"""

import math
import re
import string
from typing import Literal

Grader = Literal["exact", "multiple_choice", "numeric"]

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_MARKER = re.compile(r"(?:####|\banswer\s+is\b|\banswer\s*:)", re.IGNORECASE)
_NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-−+]?\.\d+")
_LETTER = re.compile(r"(?<![A-Za-z0-9])(?:\(([A-H])\)|([A-H])(?=[).:]|\s*$))", re.MULTILINE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
TOLERANCE = 1e-6


def grader_of(right: str) -> Grader:
    """The grader that the form of a right answer asks for."""
    if re.fullmatch(r"[A-H]", right.strip()):
        return "multiple_choice"
    return "numeric" if _value(right.strip()) is not None else "exact"


def is_right(answer: str, right: str, grader: Grader) -> bool:
    """Whether an answer is right by a grader."""
    said = _THOUGHT.sub("", answer)
    match grader:
        case "exact":
            lines = (_first_line(part) for part in (said, _behind_marker(said) or ""))
            return normalised(right) in {normalised(line) for line in lines if line}
        case "multiple_choice":
            return letter(said) == right.strip()
        case "numeric":
            found, wanted = number(said), _value(right.strip())
            return (
                found is not None
                and wanted is not None
                and math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE if wanted == 0 else 0.0)
            )


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and needless blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def letter(text: str) -> str | None:
    """The letter that a text chooses."""
    for part in (_behind_marker(text), text):
        found = _LETTER.search(part) if part is not None else None
        if found:
            return found.group(1) or found.group(2)
    return None


def number(text: str) -> float | None:
    """The number that a text gives."""
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
