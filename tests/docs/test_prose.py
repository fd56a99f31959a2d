"""Spelling and style of the prose: part of `make lint`."""

import re
import subprocess
import sys

from tests.docs.pages import PAGES, ROOT

FORBIDDEN = {
    r"\blest\b": "so that ... not",
    r"\banew\b": "again",
    r"\bbut for\b": "except",
    r"\bso (many|long) (before|after|as)\b": "since, until, or a number",
    r"\b(is|are|was|were) told\b": "is given, receives",
    r"\bwhat (stands|is left|is made|was found|is asked|is told|is said)\b": "name the thing",
    r"\b(of|with|and|from|to) what (is|was|are|were|follows|may|stands)\b": "name the thing",
    r"\b(take|takes|taken) in\b": "include, import",
    r"\bhangs? together\b": "is correlated",
    r"\bgoes? before\b": "takes precedence",
    r"\bnot to be (quoted|compared)\b": "do not ...",
    r"\bsays? nothing of\b": "omits",
    r"\bin its stead\b": "instead",
    r"\bwhoever\b": "name the reader",
    r"\bby the clock\b": "wall time",
}
"""Phrases that no native engineer writes, each with a remedy (CONTRIBUTING.md, Style)."""


GENERATED = {"reference/files.md", "reference/reasons.md", "reference/configuration.md", "validation/estimators.md"}
"""Pages whose prose stands in the code."""


def test_no_forbidden_phrase() -> None:
    findings = [
        f"{page.relative_to(ROOT)}:{number}: {match.group(0)!r}: write {remedy}"
        for page in PAGES
        if not (page.is_relative_to(ROOT / "docs") and page.relative_to(ROOT / "docs").as_posix() in GENERATED)
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        for pattern, remedy in FORBIDDEN.items()
        if (match := re.search(pattern, line, re.IGNORECASE))
    ]
    assert not findings, "\n".join(findings)


def test_spelling() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
