"""A file with a JSON object a line: `prompt`, `token_ids` or `messages`, and if wanted `answer` and `max_tokens`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from inference_energy.config.load.prompts import JsonlPrompts
from inference_energy.config.load.workload import Workload
from inference_energy.errors import InputError
from inference_energy.plan.prompts.recorded import Draws, Message, Record, RecordedSource, in_turns

CONTENT = ("prompt", "token_ids", "messages")
KNOWN = {*CONTENT, "answer", "max_tokens"}


def jsonl_source(config: JsonlPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """The prompts of a JSONL file.

    Raises:
        InputError: the file cannot be read or a line is wrong; the message has its number and what to write.
    """
    records: list[Record] = []
    ignored: Counter[str] = Counter()
    try:
        with Path(config.path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{key}.path: {config.path}:{number}"
                    content = _object(line, where)
                    ignored.update(name for name in content if name not in KNOWN)
                    records.append(_record(content, workload, where))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{key}.path: {config.path} cannot be read: {error}") from error
    if not records:
        raise InputError(f"{key}.path: {config.path} holds no prompt; write a JSON object a line")
    notes = [f"{key}.path: `{name}` is ignored, in {count} lines" for name, count in sorted(ignored.items())]
    return RecordedSource(
        ("jsonl", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=tuple(notes),
    )


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f'{where}: an object is expected, such as {{"prompt": "..."}}')
    return content


def _record(content: dict[str, Any], workload: Workload, where: str) -> Record:
    given = [name for name in CONTENT if content.get(name) is not None]
    if len(given) != 1:
        raise InputError(
            f"{where}: write exactly one of {', '.join(CONTENT)}; found: {', '.join(content) or 'nothing'}"
        )
    most, answer = content.get("max_tokens"), content.get("answer")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise InputError(f"{where}: max_tokens: a whole number from 1 up is expected, got {most!r}")
    if isinstance(answer, dict | list):
        raise InputError(f"{where}: answer: a text or a number is expected")
    shared = {"max_tokens": most, "answer": None if answer is None else str(answer), "where": where}
    value = content[given[0]]
    match given[0]:
        case "prompt":
            return _prompt(value, workload, where, shared)
        case "token_ids":
            return _token_ids(value, workload, where, shared)
        case _:
            return _messages(value, workload, where, shared)


def _prompt(value: Any, workload: Workload, where: str, shared: dict[str, Any]) -> Record:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: prompt: a text is expected; ids of tokens belong in token_ids")
    if workload.conversations:
        return Record(turns=[[{"role": "user", "content": value}]], **shared)
    return Record(text=value, **shared)


def _token_ids(value: Any, workload: Workload, where: str, shared: dict[str, Any]) -> Record:
    whole = isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    if not whole or not value or min(value) < 0:
        raise InputError(f"{where}: token_ids: a list of whole numbers from 0 up is expected")
    if workload.api == "chat":
        raise InputError(f"{where}: a chat takes no token ids; write prompt or messages, or api: completions")
    return Record(token_ids=value, **shared)


def _messages(value: Any, workload: Workload, where: str, shared: dict[str, Any]) -> Record:
    if workload.api != "chat":
        raise InputError(f"{where}: messages go to a chat; write api: chat in the workload")
    messages: list[Message] = value if isinstance(value, list) else []
    if not messages or not all(
        isinstance(one, dict) and {*one} == {"role", "content"} and all(isinstance(part, str) for part in one.values())
        for one in messages
    ):
        raise InputError(f"{where}: messages: a list of objects with the texts role and content is expected")
    turns = in_turns(messages)
    if not turns:
        raise InputError(f"{where}: messages: no message has the role user")
    if workload.conversations is None:
        # One request: everything up to the last user message, whatever the history.
        return Record(turns=[[message for turn in turns for message in turn]], **shared)
    return Record(turns=turns, **shared)
