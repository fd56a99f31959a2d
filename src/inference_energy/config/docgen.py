"""Texts generated from the configuration's models: the comments in YAML files, the JSON schema, the reference page."""

import itertools
import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from inference_energy.config.base import Section
from inference_energy.config.loader import read_merged, read_yaml
from inference_energy.config.root import Config

COMMENT_COLUMN = 45
LINE_LENGTH = 120
SCHEMA_COMMENT = "# yaml-language-server: $schema="
"""Editors with the YAML language server read it."""


def recommented(path: Path, base: Path, schema: Path | None = None) -> str:
    """Return a configuration file with the descriptions of its keys as comments; values, order and head stay.

    Args:
        path: the file; the comment lines at its top are kept, all others are replaced.
        base: the configuration that it is laid over; may be the same file.
        schema: JSON schema by which editors check the file, named in its first line; None names none.

    Raises:
        InputError: a file cannot be read, or together they are not valid.
    """
    top = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    head = [line for line in top if not line.startswith(SCHEMA_COMMENT)]
    if schema is not None:
        head.insert(0, SCHEMA_COMMENT + Path(os.path.relpath(schema, path.parent)).as_posix())
    raw = read_yaml(path)
    config = read_merged([base] if path == base else [base, path])
    return "\n".join([*head, *_section_lines(config, raw, 0, set())]) + "\n"


def json_schema() -> str:
    """Return the configuration's JSON schema; no key is required at its top, since files are laid over others."""
    schema = Config.model_json_schema()
    del schema["required"]
    return json.dumps(schema, indent=2) + "\n"


def markdown() -> str:
    """Return the page that lists every section and key with type, default and meaning."""
    headings = _headings()
    parts = [
        "# Configuration",
        "",
        "Generated from `src/inference_energy/config/` by `make docs`. Units stand in the keys' names. "
        "`snakemake --configfile other.yaml` lays `other.yaml` over `config.yaml`: "
        "[how](../how-to/change-the-experiment.md#how-files-are-laid-over-one-another). "
        "`*` stands for a name of yours.",
    ]
    for section in headings:
        parts += ["", *_table(section, headings)]
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
    """Yield the line with its comment behind it, or above it where both together are too long."""
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


def _headings() -> dict[type[Section], str]:
    """Return each section with the heading of its table: the shortest path to it, and its kind if there are several."""
    paths = _shortest_paths()
    headings: dict[type[Section], str] = {}

    def walk(section: type[Section], path: str) -> None:
        if paths[section] == path:
            headings[section] = f"`{path}`{_kind(section)}" if path else "Top level"
            for child, below in _inside(section, path):
                walk(child, below)

    walk(Config, "")
    return headings


def _shortest_paths() -> dict[type[Section], str]:
    paths: dict[type[Section], str] = {}
    level: list[tuple[type[Section], str]] = [(Config, "")]
    while level:
        fresh = [(section, path) for section, path in level if section not in paths]
        for section, path in fresh:
            paths.setdefault(section, path)
        level = [below for section, path in fresh for below in _inside(section, path)]
    return paths


def _inside(section: type[Section], path: str) -> Iterator[tuple[type[Section], str]]:
    """Yield the sections that are values of a section's keys, each with its path."""
    for key, field in section.model_fields.items():
        yield from _children(field.annotation, f"{path}.{key}" if path else key)


def _kind(section: type[Section]) -> str:
    """Return the key and value that identify one of several kinds of section, such as ` with process: poisson`."""
    kinds = [
        (key, get_args(field.annotation)[0])
        for key, field in section.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1 and field.is_required()
    ]
    return "".join(f" with {key}: {value}" for key, value in kinds)


def _children(annotation: Any, path: str) -> Iterator[tuple[type[Section], str]]:
    """Yield the sections in a field's type, each with its path: `*` in place of a mapping's names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, path
        return
    below = f"{path}.*" if get_origin(annotation) is dict else path
    for argument in get_args(annotation):
        yield from _children(argument, below)


def _anchor(heading: str) -> str:
    """Return the anchor that both MkDocs and forges derive from a heading."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def _table(section: type[Section], headings: Mapping[type[Section], str]) -> Iterator[str]:
    yield f"## {headings[section]}"
    yield ""
    yield _one_line(section.__doc__)
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in section.model_fields.items():
        meaning = field.description or "says which kind this is"
        kind, default = _type_name(field.annotation, headings), _default(field, headings)
        yield f"| `{key}` | {kind} | {default} | {_one_line(meaning)} |"


def _default(field: FieldInfo, headings: Mapping[type[Section], str]) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Section):
        stated = value.model_dump(exclude_unset=True)
        return f"[`{_flow(stated) if stated else '{}'}`](#{_anchor(headings[type(value)])})"
    return f"`{_flow(value)}`"


def _type_name(annotation: Any, headings: Mapping[type[Section], str]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _type_name(arguments[0], headings)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(item, headings) for item in arguments)
    if origin is tuple:
        return " and ".join(_type_name(item, headings) for item in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0], headings)}"
    if origin is dict:
        return f"mapping to {_type_name(arguments[1], headings)}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        text = _kind(annotation).removeprefix(" with ") or headings[annotation].strip("`")
        return f"[{text}](#{_anchor(headings[annotation])})"
    names = {str: "text", float: "number", int: "whole number", bool: "true or false", type(None): "null", Any: "any"}
    return names.get(annotation, str(annotation))
