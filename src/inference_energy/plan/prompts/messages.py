"""Messages of recorded chats, in OpenAI's form and in that of ShareGPT, and the turns they are cut into.

OpenAI's fields are sent as they are: role, content (a text, or parts of the type text), name, tool_calls,
tool_call_id (https://platform.openai.com/docs/api-reference/chat/create). Any other field or part would change the
prompt without being sent, and is refused by its name.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from inference_energy.plan.tables import Line, names_found, shown

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")
CONVERSATIONS = ("conversations", "conversation")
"""Keys of a conversation in the ShareGPT form."""
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
}


def openai_messages(value: Any, line: Line) -> list[Message]:
    """Return the messages of a chat without fields that are null.

    Raises:
        InputError: something else is there; the message names the message and its field.
    """
    if not isinstance(value, list) or not value:
        raise line.error(f"messages: a list of objects with role and content is expected, got {shown(value)}")
    calls: set[str] = set()
    return [_openai_message(message, number, calls, line) for number, message in enumerate(value, start=1)]


def _openai_message(message: Any, number: int, calls: set[str], line: Line) -> Message:
    """Return one message; `calls` are the ids of the tool calls so far, to which it adds its own."""

    def refuse(text: str) -> NoReturn:
        raise line.error(f"messages: message {number}: {text}")

    if not isinstance(message, dict) or "role" not in message:
        text = f"messages: a list of objects with role and content is expected; message {number} is"
        raise line.error(
            f"{text} {names_found(message)}" if not isinstance(message, dict) else f"{text} without a role"
        )
    fields = {name: field for name, field in message.items() if field is not None and field != []}
    if others := [name for name in fields if name not in FIELDS]:
        refuse(f"{others[0][:40]}: this field is not sent; leave it out")
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        refuse(f"role: one of {', '.join(ROLES)} is expected, got {shown(role)}")
    if isinstance(content, list):
        for part in content:
            _check_part(part, refuse)
    elif content is None and "tool_calls" in fields:
        fields["content"] = None  # OpenAI's own form of an answer that only calls tools
    elif not isinstance(content, str):
        refuse(f"content: a text or a list of parts is expected, got {shown(content)}")
    if not isinstance(fields.get("name", ""), str):
        refuse(f"name: a text is expected, got {shown(fields['name'])}")
    if "tool_calls" in fields:
        if role != "assistant":
            refuse("tool_calls: only a message of the assistant calls tools")
        calls.update(_call_ids(fields["tool_calls"], refuse))
    if (role == "tool") != ("tool_call_id" in fields):
        refuse("tool_call_id belongs to a message of the role tool, and each of these has one")
    if role == "tool" and shown(fields["tool_call_id"]) not in calls:
        refuse(f"tool_call_id: no earlier message has the call {shown(fields['tool_call_id'])}")
    return fields


def _check_part(part: Any, refuse: Callable[[str], NoReturn]) -> None:
    if not isinstance(part, dict) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else part
        refuse(f"content: a part of the type {shown(kind)} is not sent, only text is")
    if not isinstance(part.get("text"), str) or len(part) > 2:
        refuse(f"content: a part with type and text is expected; found: {names_found(part)}")


def _call_ids(value: Any, refuse: Callable[[str], NoReturn]) -> list[str]:
    ids = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function") if isinstance(call, dict) and isinstance(call.get("id"), str) else None
        texts = [function.get(name) for name in ("name", "arguments")] if isinstance(function, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            refuse("tool_calls: a list of objects with id, type and function is expected, the function with texts")
        ids.append(shown(call["id"]))
    return ids


def sharegpt_messages(name: str, value: Any) -> tuple[list[Message], str | None]:
    """Return the messages before the first that cannot be used, since later ones would lack its context.

    Args:
        name: key of the conversation, for the reason.
        value: the conversation: a list of objects with `from` and `value`, or `role` and `content`.

    Returns:
        The messages, and the reason why a message cannot be used, which names its keys; None if all can.
    """
    if not isinstance(value, list):
        return [], f"{name} is not a list"
    messages: list[Message] = []
    for entry in value:
        keys = ("from", "value") if isinstance(entry, dict) and "from" in entry else ("role", "content")
        if not isinstance(entry, dict) or not all(key in entry for key in keys):
            return messages, f"from and value, or role and content, are expected; found: {names_found(entry)}"
        who, text = (entry[key] for key in keys)
        role = SHAREGPT_ROLES.get(who.strip().lower()) if isinstance(who, str) else None
        if role is None:
            return messages, f"{keys[0]}: {shown(who)} is no known role"
        if not isinstance(text, str) or not text.strip():
            return messages, f"{keys[1]} is empty or no text"
        messages.append({"role": role, "content": text})
    return messages, None


def uses_tools(messages: Sequence[Message]) -> bool:
    """Return whether a message calls a tool or has its result."""
    return any(message["role"] == "tool" or "tool_calls" in message for message in messages)


def in_turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Cut messages into turns, each ending where an answer is due.

    That is after each user message, and after the last result of tools that were called together. Answers before the
    first turn, and messages after the last, are dropped.
    """
    turns: list[list[Message]] = []
    pending: list[Message] = []
    for index, message in enumerate(messages):
        if message["role"] in ("assistant", "tool") and not turns:
            continue
        pending.append(message)
        following = messages[index + 1]["role"] if index + 1 < len(messages) else None
        if message["role"] == "user" or (message["role"] == "tool" and following not in ("tool", "user")):
            turns.append(pending)
            pending = []
    return turns
