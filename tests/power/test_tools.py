"""Command line tools as sources: their output is bounded in time and size."""

import sys
import time

import pytest

from inference_energy.acquire.power.base import SourceError
from inference_energy.acquire.power.sources import tools
from inference_energy.acquire.power.sources.tools import LineStream, run_tool

ENDLESS = "import sys\nwhile True: sys.stdout.write('x' * 65536)"


def run(code: str, timeout_s: float = 20.0) -> tools.ToolOutput:
    return run_tool([sys.executable, "-c", code], timeout_s=timeout_s, install="install it")


def test_output_errors_and_exit_code_are_kept_apart() -> None:
    answer = run("import sys; print('out'); print('wrong', file=sys.stderr); sys.exit(3)")
    assert (answer.code, answer.output.strip(), answer.errors.strip()) == (3, "out", "wrong")


def test_an_output_without_end_is_given_up() -> None:
    with pytest.raises(SourceError, match="writes more than 4 MiB"):
        run(ENDLESS)


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(60)", "import os, time; os.close(1); os.close(2); time.sleep(60)"]
)
def test_a_tool_that_does_not_end_is_killed(code: str) -> None:
    with pytest.raises(SourceError, match=r"did not (answer|end) within 0\.5 s"):
        run(code, timeout_s=0.5)


def test_the_end_of_a_line_without_bounds_is_no_line() -> None:
    taken: list[str] = []

    def take(line: str, _: int) -> bool:
        taken.append(line)
        return True

    code = "import time; print('x' * 200_000 + 'GPU-1, 5.0', flush=True); print('whole', flush=True); time.sleep(60)"
    stream = LineStream("tool", [sys.executable, "-c", code], take, install="install it")
    stream.start()
    try:
        until_s = time.monotonic() + 30
        while not taken and time.monotonic() < until_s:
            time.sleep(0.01)
    finally:
        stream.close()
    assert taken == ["whole"]
