"""Examples in the documentation work: configurations are valid, and what runs on a CPU in seconds is run."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.docs.pages import BLOCKS, ROOT, Block, blocks
from typer.testing import CliRunner

from inference_energy.bench.config import Node
from inference_energy.cli.main import app
from inference_energy.config.loader import overlay, read_yaml
from inference_energy.config.root import Config

pytestmark = pytest.mark.slow

CONFIGURATIONS = [
    block
    for block in BLOCKS
    if block.language == "yaml" and (content := yaml.safe_load(block.text)) and set(content) <= set(Config.model_fields)
]

RUNNABLE = {"docs/how-to/analyze-logs.md": "## A small example", "docs/how-to/power-sources.md": "## From Python"}
"""Pages and the heading below which all Python and shell blocks are run in order."""


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_a_configuration_is_valid_over_a_shipped_one(block: Block) -> None:
    default = read_yaml(ROOT / "config.yaml")
    base = default if "qwen3-8b" not in block.text else overlay(default, read_yaml(ROOT / "config/protocol.yaml"))
    Config.model_validate(overlay(base, yaml.safe_load(block.text)))


def test_most_configurations_are_recognized() -> None:
    unknown = [str(block) for block in BLOCKS if block.language == "yaml" and block not in CONFIGURATIONS]
    assert len(CONFIGURATIONS) >= 12
    assert len(unknown) <= 3, unknown


def test_the_node_of_the_bench_is_valid() -> None:
    nodes = [block for block in BLOCKS if block.language == "json" and '"power_limit_w"' in block.text]
    assert len(nodes) == 1
    Node.model_validate(json.loads(nodes[0].text))


@pytest.mark.parametrize(("page", "heading"), RUNNABLE.items(), ids=str)
def test_an_example_runs(page: str, heading: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    start = text.index(heading)
    first = text[:start].count("\n")
    last = first + text[start:].partition("\n## ")[0].count("\n") + 1
    example = [block for block in blocks(ROOT / page) if first < block.line <= last]
    assert example
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    for block in example:
        if block.language not in {"python", "sh"}:
            continue
        command = [sys.executable, "-c", block.text] if block.language == "python" else ["bash", "-ec", block.text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_results_are_read_as_the_page_says(tmp_path: Path) -> None:
    """The Python blocks of the page, on a result folder with a figure that is given and one that is withheld."""
    figure = {
        "value": 0.5,
        "unit": "J/token",
        "valid": True,
        "interval_95": [0.4, 0.6],
        "grade": "counter",
        "reasons": [],
    }
    withheld = {
        **figure,
        "value": None,
        "valid": False,
        "interval_95": None,
        "reasons": [{"code": "gap", "detail": ""}],
    }
    names = ("energy_active_per_output_token_j", "energy_total_per_output_token_j")
    cells = [
        {"cell": "main.low", "kind": "steady", "figures": dict.fromkeys(names, figure)},
        {"cell": "main.high", "kind": "steady", "figures": dict.fromkeys(names, withheld)},
        {"cell": "main.decode", "kind": "decode", "figures": dict.fromkeys(names, figure)},
    ]
    summary = tmp_path / "results/default/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"cells": cells}))
    requests = tmp_path / "results/raw/MACHINE/sessions/main/requests.parquet"
    requests.parent.mkdir(parents=True)
    pd.DataFrame({"cell": ["low"], "sent_ns": [1_000], "first_token_ns": [1_000_001_000]}).to_parquet(requests)

    def run(block: Block) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", block.text, str(summary)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    _, figures, tables, check = [
        block for block in blocks(ROOT / "docs/how-to/read-results.md") if block.language == "python"
    ]
    assert run(figures).stdout.splitlines() == [
        "main.low 0.5 J/token [0.4, 0.6] counter",
        "main.high withheld: gap",
    ]
    assert "1.0" in run(tables).stdout
    failed = run(check)
    assert failed.returncode == 1
    assert "main.high: no figure" in failed.stderr


def test_the_estimate_prints_what_the_page_shows() -> None:
    """The first command of the page, and the table below it."""
    command, shown = blocks(ROOT / "docs/how-to/estimate.md")[:2]
    words = shlex.split(command.text.splitlines()[0])
    assert words.pop(0) == "inference-energy"
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    printed = {" ".join(line.split()) for line in result.output.splitlines()}
    for line in shown.text.splitlines():
        assert " ".join(line.split()) in printed, line
