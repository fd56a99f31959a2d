"""The registry says of every stage what its function takes, and what the rule of its name has."""

import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest

from inference_energy.stages.registry import STAGES, Stage

RULES = Path(__file__).parents[2] / "workflow" / "rules"


def function_of(stage: Stage) -> typing.Callable[..., object]:
    module, _, name = stage.function.partition(":")
    function: typing.Callable[..., object] = getattr(importlib.import_module(module), name)
    return function


def rule_of(stage: Stage) -> str:
    """The text of the rule of a stage's name."""
    texts = [path.read_text() for path in RULES.glob("*.smk")]
    (rule,) = [found for text in texts for found in re.findall(rf"^rule {stage.name}:\n(?:(?:    .*)?\n)*", text, re.M)]
    return str(rule)


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_function_takes_the_inputs_and_its_own_model_and_nothing_else(stage: Stage) -> None:
    taken = inspect.signature(function_of(stage)).parameters
    inputs = [read.file.name for read in stage.inputs]
    assert set(taken) == {*inputs, *stage.writes, *(["config"] if stage.config else [])}
    optional = {name for name, parameter in taken.items() if parameter.default is not inspect.Parameter.empty}
    assert optional == {read.file.name for read in stage.inputs if read.optional}
    # Type checking then shows that it reads no key of another stage's model.
    assert typing.get_type_hints(function_of(stage)).get("config") == stage.config


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_rule_has_the_inputs_and_the_parameters_of_its_stage(stage: Stage) -> None:
    rule = rule_of(stage)
    assert f"inference-energy stage {stage.name.replace('_', '-')} " in rule
    assert f'code=code("{stage.name}")' in rule
    assert (f'spec=spec("{stage.name}")' in rule) == (stage.config is not None)
    assert (f'inputs=inputs("{stage.name}")' in rule) == bool(stage.inputs)
    for read in stage.inputs:
        assert re.search(rf"^        {read.file.name}=", rule, re.M), read.file.name


def test_files_of_different_kinds_have_different_paths() -> None:
    files = {read.file for stage in STAGES.values() for read in stage.inputs}
    files |= {stage.output for stage in STAGES.values() if stage.output}
    assert len({file.path for file in files}) == len(files)


def test_every_computed_input_is_the_output_of_a_stage() -> None:
    outputs = {stage.output for stage in STAGES.values()}
    for stage in STAGES.values():
        assert {read.file for read in stage.inputs if read.file.computed} <= outputs, stage.name
