"""The source of a cell's prompts, chosen by the configuration."""

from inference_energy.config.load.prompts import (
    FilePrompts,
    JsonlPrompts,
    QuestionPrompts,
    ShareGptPrompts,
    SyntheticPrompts,
)
from inference_energy.plan.cells import Cell
from inference_energy.plan.distributions import generator
from inference_energy.plan.prompts.files import TextSource, jsonl_source, sharegpt_source
from inference_energy.plan.prompts.from_records import Draws
from inference_energy.plan.prompts.protocol import Source
from inference_energy.plan.prompts.questions import question_source
from inference_energy.plan.prompts.synthetic import SyntheticChats, SyntheticSource


def prompt_source(cell: Cell, seed: int) -> Source:
    """Return the source of a cell's prompts, with the cell's generators.

    Raises:
        InputError: the source's file cannot be read or is of another form.
    """
    workload, key = cell.workload, f"workloads.{cell.workload_name}.prompts"
    draws = Draws(generator(seed, cell.name, "prompts"), generator(seed, cell.name, "turns"))
    match workload.prompts:
        case SyntheticPrompts() as prompts:
            if workload.conversations:
                return SyntheticChats(cell, prompts, workload.conversations, seed, key)
            return SyntheticSource(cell, prompts, seed, key)
        case FilePrompts() as prompts:
            return TextSource(prompts, key, draws.prompts)
        case JsonlPrompts() as prompts:
            return jsonl_source(prompts, workload, key, draws)
        case ShareGptPrompts() as prompts:
            return sharegpt_source(prompts, workload, key, draws)
        case QuestionPrompts() as prompts:
            return question_source(prompts, draws)
