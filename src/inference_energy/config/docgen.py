"""What is generated from the configuration's models: the comments in YAML files, the JSON schema, the docs page."""

import itertools
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from inference_energy.config.base import Section
from inference_energy.config.loader import read_merged, read_yaml
from inference_energy.config.root import Config

COMMENT_COLUMN = 45
LINE_LENGTH = 120


def recommented(path: Path, base: Path) -> str:
    """A configuration file with the descriptions of its keys as comments; values, order and head stay.

    Args:
        path: the file; the comment lines at its top are kept, all others are written anew.
        base: the configuration that it is laid over; may be the same file.

    Raises:
        InputError: a file cannot be read, or together they are not valid.
    """
    head = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    raw = read_yaml(path)
    config = read_merged([base] if path == base else [base, path])
    return "\n".join([*head, *_section_lines(config, raw, 0, set())]) + "\n"


def json_schema() -> str:
    """The configuration's JSON schema."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def markdown() -> str:
    """The page that lists every section and key with type, default and meaning."""
    seen: dict[str, None] = {}
    parts = [
        "# Configuration",
        "",
        "Generated from `src/inference_energy/config/` by `make docs`. Units stand in the keys' names. "
        "`snakemake --configfile other.yaml` lays `other.yaml` over `config.yaml`: mappings are merged, "
        "lists are replaced.",
    ]
    for section in _sections(Config):
        if section.__name__ not in seen:
            seen[section.__name__] = None
            parts += ["", *_table(section)]
    return "\n".join(parts) + "\n"


def _section_lines(
    section: Section, raw: Mapping[str, Any], depth: int, described: set[tuple[type[Section], str]]
) -> Iterator[str]:
    for key, value in raw.items():
        field = type(section).model_fields[key]
        content = getattr(section, key)
        fresh = (type(section), key) not in described
        described.add((type(section), key))
        comment = _one_line(field.description) if fresh else ""
        if depth == 0 and isinstance(value, Mapping):
            yield ""
        if isinstance(content, Section):
            yield from _line(depth, f"{key}:", comment)
            yield from _section_lines(content, value, depth + 1, described)
        elif isinstance(content, dict) and any(isinstance(item, Section) for item in content.values()):
            yield from _line(depth, f"{key}:", comment)
            for name, item in value.items():
                yield "  " * (depth + 1) + f"{name}:"
                yield from _section_lines(content[name], item, depth + 2, described)
        elif isinstance(value, Mapping) and value:
            yield from _line(depth, f"{key}:", comment)
            text = yaml.safe_dump(dict(value), sort_keys=False, width=100)
            yield from ("  " * (depth + 1) + line for line in text.splitlines())
        else:
            yield from _line(depth, f"{key}: {_flow(value)}", comment)


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=200)
    return text.removesuffix("...\n").strip()


def _line(depth: int, text: str, comment: str) -> Iterator[str]:
    """The line with its comment behind it, or above it where both together are too long."""
    indent = "  " * depth
    beside = f"{indent + text + ' ':<{COMMENT_COLUMN}} # {comment}"
    if not comment:
        yield indent + text
    elif len(beside) <= LINE_LENGTH:
        yield beside
    else:
        yield from (f"{indent}# {part}" for part in textwrap.wrap(comment, LINE_LENGTH - len(indent) - 2))
        yield indent + text


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for child in _section_types(field.annotation):
            yield from _sections(child)


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _section_types(argument)


def _table(section: type[Section]) -> Iterator[str]:
    yield f"## {section.__name__}"
    yield ""
    yield _one_line(section.__doc__)
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in section.model_fields.items():
        meaning = field.description or "says which kind this is"
        yield f"| `{key}` | {_type_name(field.annotation)} | {_default(field)} | {_one_line(meaning)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, Section):
        return "its own defaults"
    return f"`{_flow(value)}`"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_type_name(item) for item in arguments)
    if origin is tuple:
        return " and ".join(_type_name(item) for item in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    names = {str: "text", float: "number", int: "whole number", bool: "true or false", type(None): "null", Any: "any"}
    return names.get(annotation, str(annotation))
