"""Conversations in the ShareGPT form: a JSON list of objects with `conversations`, each of `from` and `value`."""

import json
from pathlib import Path
from typing import Any

from inference_energy.config.load.prompts import ShareGptPrompts
from inference_energy.config.load.workload import Workload
from inference_energy.errors import InputError
from inference_energy.plan.prompts.recorded import Draws, Message, Record, RecordedSource, in_turns

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


def sharegpt_source(config: ShareGptPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """The conversations of a ShareGPT file; without `conversations` in the workload, their first user message.

    Raises:
        InputError: the file cannot be read, is of another form, or holds no conversation with a user's message.
    """
    where = f"{key}.path: {config.path}"
    try:
        content = json.loads(Path(config.path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise InputError(f"{where}: a list of objects with `conversations` is expected")
    if content and not any("conversations" in one for one in content):
        raise InputError(f"{where}: no object has `conversations`; found: {', '.join(content[0])}")
    cut = [in_turns(_messages(one.get("conversations"))) for one in content]
    records = [_record(turns, workload) for turns in cut if turns]
    if not records:
        raise InputError(f"{where} holds no conversation with a message `from` human")
    left_out = len(cut) - len(records)
    notes = (f"{where}: {left_out} of {len(cut)} conversations without a user's message are left out",)
    return RecordedSource(
        ("sharegpt", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=notes if left_out else (),
    )


def _record(turns: list[list[Message]], workload: Workload) -> Record:
    return Record(turns=turns) if workload.conversations else Record(text=turns[0][-1]["content"])


def _messages(value: Any) -> list[Message]:
    """The messages up to the first that is not understood: what follows it would lack its context."""
    messages: list[Message] = []
    for one in value if isinstance(value, list) else []:
        role = ROLES.get(str(one.get("from", "")).lower()) if isinstance(one, dict) else None
        text = one.get("value") if isinstance(one, dict) else None
        if role is None or not isinstance(text, str) or not text.strip():
            break
        messages.append({"role": role, "content": text})
    return messages
