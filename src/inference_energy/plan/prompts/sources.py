"""The source of a cell's prompts, by its configuration."""

from inference_energy.config.load.prompts import (
    FilePrompts,
    JsonlPrompts,
    QuestionPrompts,
    ShareGptPrompts,
    SyntheticPrompts,
)
from inference_energy.plan.cells import Cell
from inference_energy.plan.prompts.chats import SyntheticChats
from inference_energy.plan.prompts.jsonl import jsonl_source
from inference_energy.plan.prompts.questions import question_source
from inference_energy.plan.prompts.recorded import Draws
from inference_energy.plan.prompts.sharegpt import sharegpt_source
from inference_energy.plan.prompts.source import Source
from inference_energy.plan.prompts.synthetic import SyntheticSource
from inference_energy.plan.prompts.text import TextSource
from inference_energy.plan.seeds import generator


def source_of(cell: Cell, seed: int) -> Source:
    """The source, with the generators of the cell.

    Raises:
        InputError: its file cannot be read or is of another form.
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
