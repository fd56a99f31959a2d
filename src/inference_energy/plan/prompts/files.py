"""Prompts from files.

- Text: one prompt a line.
- ShareGPT: a JSON list, or JSONL, of objects with `conversations`, each of `from` and `value`, or `role` and `content`.
- JSON lines: an object a line with `prompt`, `token_ids` or `messages`, and optionally `answer` and `max_tokens`.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.prompts import MOST_TOKENS, FilePrompts, JsonlPrompts, ShareGptPrompts
from inference_energy.config.load.workload import Workload
from inference_energy.contracts.outside import as_count
from inference_energy.errors import InputError, Notice, Setting
from inference_energy.plan.arrivals.processes import Starts
from inference_energy.plan.prompts.from_records import Draws, Record, RecordedSource
from inference_energy.plan.prompts.messages import (
    CONVERSATIONS,
    Message,
    in_turns,
    openai_messages,
    sharegpt_messages,
    uses_tools,
)
from inference_energy.plan.prompts.protocol import Choice, ContentInputs, batches, contents_table, in_rounds
from inference_energy.plan.tables import NULL, Line, json_entries, names_found, shown, text_lines


class TextSource:
    """Lines of a text file, stripped and without empty ones."""

    def __init__(self, config: FilePrompts, key: str, random: np.random.Generator) -> None:
        """Read the file.

        Raises:
            InputError: the file cannot be read or has no prompt.
        """
        lines = [line.strip() for line in text_lines(config.path, f"{key}.path")]
        if not any(lines):
            raise InputError(f"{config.path} holds no prompt; write one a line", key=f"{key}.path")
        self._lines = pa.array([line for line in lines if line], pa.large_string())
        self._config = config
        self._random = random

    @property
    def identity(self) -> tuple[str, ...]:
        """See `Contents`."""
        return ("file", self._config.path)

    @property
    def size(self) -> int:
        """See `Contents`."""
        return len(self._lines)

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        nulls = np.full(starts.count, NULL)
        chosen = in_rounds(len(self._lines), starts.count, self._config.order, self._random)
        return Choice(np.ones(starts.count, np.int64), chosen, nulls, nulls)

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`."""
        for part in batches(prompts):
            yield contents_table(len(part), text=self._lines.take(pa.array(part)))


MOST_NOTES = 10
"""Notes about one file; a file with more kinds of keys than these has no form."""


def sharegpt_source(config: ShareGptPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """Return the conversations of a ShareGPT file; their first user message if the workload has no `conversations`.

    Raises:
        InputError: the file cannot be read, is of another form, or has no conversation with a user's message.
    """
    key = f"{key}.path"
    records: list[Record] = []
    total, others, cuts = 0, "", Counter[str]()
    for line, entry in json_entries(config.path, key):
        total += 1
        name = next((name for name in CONVERSATIONS if isinstance(entry, dict) and name in entry), None)
        if name is None:
            others = others or names_found(entry)
            continue
        messages, cut = sharegpt_messages(name, entry[name])
        cuts.update([cut] if cut else [])
        if turns := in_turns(messages):
            records.append(_sharegpt_record(turns, workload, line))
    if not records and others:
        raise InputError(f"{config.path}: no object has `conversations`; found: {others}", key=key)
    if not records:
        found = f"; {cuts.most_common(1)[0][0]}" if cuts else ""
        raise InputError(f"{config.path} holds no conversation with a message `from` human{found}", key=key)
    left_out = total - len(records)
    notes = [Notice(f"{count} conversations end early: {cut}", key) for cut, count in cuts.most_common(MOST_NOTES)]
    if left_out:
        text = f"{config.path}: {left_out} of {total} conversations without a user's message are left out"
        notes.append(Notice(text, key))
    return RecordedSource(
        ("sharegpt", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=tuple(notes),
    )


def _sharegpt_record(turns: list[list[Message]], workload: Workload, line: Line) -> Record:
    if workload.conversations:
        return Record(turns=turns, line=line)
    return Record(text=turns[0][-1]["content"], line=line)


CONTENT = ("prompt", "token_ids", "messages")
LINE_KEYS = {*CONTENT, "answer", "max_tokens"}


def jsonl_source(config: JsonlPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """Return the prompts of a JSONL file, or of a JSON list of the same objects.

    Raises:
        InputError: the file cannot be read or a line is invalid; the message names the line and the remedy.
    """
    records: list[Record] = []
    ignored: Counter[str] = Counter()
    for line, content in json_entries(config.path, f"{key}.path"):
        if not isinstance(content, dict):
            raise line.error('an object is expected, such as {"prompt": "..."}')
        ignored.update(name[:40] for name in content if name not in LINE_KEYS)
        records.append(_record(content, workload, line))
    if not records:
        raise InputError(f"{config.path} holds no prompt; write a JSON object a line", key=f"{key}.path")
    common = sorted(ignored.most_common(MOST_NOTES))
    notes = [Notice(f"`{name}` is ignored, in {count} lines", f"{key}.path") for name, count in common]
    return RecordedSource(
        ("jsonl", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=tuple(notes),
    )


def _record(content: dict[str, Any], workload: Workload, line: Line) -> Record:
    kinds = [name for name in CONTENT if content.get(name) is not None]
    if not kinds and any(content.get(name) is not None for name in CONVERSATIONS):
        raise line.error("a conversation in the ShareGPT form", Setting("prompts.source", "sharegpt"))
    if len(kinds) != 1:
        raise line.error(f"write exactly one of {', '.join(CONTENT)}; found: {names_found(content)}")
    max_tokens, answer = as_count(content.get("max_tokens")), content.get("answer")
    if content.get("max_tokens") is not None and (max_tokens is None or not 1 <= max_tokens <= MOST_TOKENS):
        expected = f"a whole number from 1 up is expected, and at most {MOST_TOKENS}"
        raise line.error(f"max_tokens: {expected}, got {shown(content['max_tokens'])}")
    if isinstance(answer, dict | list):
        raise line.error("answer: a text or a number is expected")
    shared = {"max_tokens": max_tokens, "answer": None if answer is None else str(answer), "line": line}
    value = content[kinds[0]]
    match kinds[0]:
        case "prompt":
            return _prompt(value, workload, line, shared)
        case "token_ids":
            return _token_ids(value, workload, line, shared)
        case _:
            return _messages(value, workload, line, shared)


def _prompt(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    if not isinstance(value, str) or not value:
        raise line.error("prompt: a text is expected; ids of tokens belong in token_ids")
    if workload.conversations:
        return Record(turns=[[{"role": "user", "content": value}]], **shared)
    return Record(text=value, **shared)


def _token_ids(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    all_integers = isinstance(value, list) and all(
        isinstance(token, int) and not isinstance(token, bool) for token in value
    )
    if not all_integers or not value or min(value) < 0 or max(value) >= 2**31:
        raise line.error("token_ids: a list of whole numbers from 0 up is expected, below 2^31")
    if workload.api == "chat":
        raise line.error("a chat takes no token ids, but prompt or messages", Setting("api", "completions"))
    return Record(token_ids=value, **shared)


def _messages(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    if workload.api != "chat":
        raise line.error("messages go to a chat", Setting("api", "chat"))
    messages = openai_messages(value, line)
    turns = in_turns(messages)
    if not turns:
        raise line.error("messages: no message has the role user")
    if workload.conversations is None:
        # One request: everything up to the last message that asks for an answer, whatever the history.
        return Record(turns=[[message for turn in turns for message in turn]], **shared)
    if workload.history == "actual" and uses_tools(messages):
        text = "messages: the server's own answers have no calls that the recorded results of tools belong to"
        raise line.error(text, Setting("history", "planned"))
    return Record(turns=turns, **shared)
