"""`snakemake --lint` has nothing to say but one thing, on purpose."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

ON_PURPOSE = "Specify a conda environment or container for each rule."
"""The workflow runs in the environment that `make setup` locks with hashes; vLLM's own is made by a rule."""


def test_the_linter_is_content() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint", "text"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert "Lints for rule session" in text, text[-2000:]
    findings = re.findall(r"^    \* (.*):$", text, re.MULTILINE)
    assert [finding for finding in findings if finding != ON_PURPOSE] == []
