"""Pydantic's errors as notices: the key of each problem, what is wrong there, and what to write."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from inference_energy.config.base import Section
from inference_energy.errors import Notice, Setting, SettingsError

WRITE = {
    "float_parsing": "write a number in the unit of the key's ending, such as 60 for seconds (not '60s')",
    "float_type": "write a number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "bool_parsing": "write true or false",
    "string_type": "write a text, in quotes if it looks like a number",
    "list_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping of keys to values",
    "model_type": "write a mapping of keys to values",
    "model_attributes_type": "write a mapping of keys to values",
    "missing": "this key is required; add it",
}
"""Advice for pydantic's error types, where its own sentence gives none."""

MAX_SHOWN = 200
"""Characters of a wrong value that a message repeats."""


def problems(error: ValidationError, raw: Any, page: str) -> list[Notice]:
    """Return a notice for each problem.

    Args:
        error: as pydantic raised it.
        raw: what was validated; tells the user's keys from the tags of unions in a location.
        page: the page that lists the keys, for one that is like no other.
    """
    return [notice for detail in error.errors() for notice in _notices(detail, raw, page)]


def _notices(detail: Any, raw: Any, page: str) -> list[Notice]:
    location = _strip_tags(detail["loc"], raw)
    key = ".".join(str(part) for part in location)
    kind, message, value = detail["type"], detail["msg"], detail.get("input")
    if kind == "value_error":  # one of our own checks
        cause = detail["ctx"]["error"]
        return (
            [_below(key, notice) for notice in cause.notices]
            if isinstance(cause, SettingsError)
            else [Notice(str(cause), key)]
        )
    if kind == "extra_forbidden":
        # A key that is known elsewhere is no advice here.
        near = difflib.get_close_matches(str(location[-1]), _known_keys() - {location[-1]}, n=1, cutoff=0.76)
        return [Notice("unknown key; " + (f"did you mean {near[0]}?" if near else f"{page} lists the keys"), key)]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = detail["ctx"]
        tag = str(context["discriminator"]).strip("'")
        choices = context.get("expected_tags")
        text = f"write one of {choices}" if choices else "this key is required: it says which kind"
        return [Notice(text, f"{key}.{tag}")]
    advice = WRITE.get(kind)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return [Notice(f"{advice}, not {'nothing' if value is None else repr(value)[:MAX_SHOWN]}", key)]
    if kind == "missing":
        return [Notice(str(advice), key)]
    # A login in a URL is refused; it must not appear in logs either.
    shown = re.sub(r"//[^/@\s]*@", "//(login)@", repr(value))[:MAX_SHOWN]
    return [Notice(f"{message[0].lower()}{message[1:]}, got {shown}" + (f"; {advice}" if advice else ""), key)]


def _below(key: str, notice: Notice) -> Notice:
    """Return a notice of a section's own check with full keys."""

    def full(name: str) -> str:
        return ".".join(filter(None, (key, name)))

    write = tuple(Setting(full(setting.key), setting.value) for setting in notice.write)
    return Notice(notice.text, full(notice.key), write)


def _strip_tags(location: tuple[Any, ...], raw: Any) -> list[Any]:
    """Drop the union tags that pydantic adds to a location, and keep the keys of the user's file."""
    kept: list[Any] = []
    node = raw
    for part in location[:-1]:
        in_file = part in node if isinstance(node, Mapping) else isinstance(node, list) and part in range(len(node))
        if in_file:
            node = node[part]
            kept.append(part)
    last = location[-1:]
    return [*kept, *(part for part in last if not (isinstance(node, Mapping) and _is_tag(part, node)))]


def _is_tag(part: Any, node: Mapping[str, Any]) -> bool:
    return any(node.get(tag) == part for tag in ("source", "mode", "process", "distribution"))


def _known_keys(section: type[Section] = Section) -> set[str]:
    """Return the keys of all sections."""
    return set(section.model_fields).union(*(_known_keys(child) for child in section.__subclasses__()))
