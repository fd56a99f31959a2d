"""Configuration files laid over one another: which mappings are merged, and which replace the one below.

Mappings are merged key by key, and everything else is replaced, with three exceptions:

- A mapping that changes its kind (`process`, `source`, `mode`, `distribution`) replaces the one below, whose keys
  belong to another kind.
- A definition (a session, window, workload, server or model) that is complete in itself replaces the one of the same
  name, so that nobody's own `chat` takes over settings of the shipped one. A definition that leaves out a required key
  changes the one below.
- A figure and its source are changed together (`TOGETHER`), so that no source is named for a number of another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from inference_energy.config.base import Section
from inference_energy.config.root import Config
from inference_energy.config.yaml_file import KeyPath, YamlFile
from inference_energy.errors import InputError, Setting

TOGETHER: Mapping[KeyPath, tuple[str, ...]] = {
    ("impact", "carbon"): ("zone", "intensity_g_per_kwh", "basis", "source"),
    ("impact",): ("pue", "pue_source"),
    ("impact", "water"): ("wue_site_l_per_kwh", "ewif_grid_l_per_kwh", "source"),
    ("metrics", "embodied"): ("total_kg", "lifetime_years", "source"),
}
"""Keys that say one thing together: a figure, where it comes from, and what it holds for."""

DEFINITIONS = ("sessions", "windows", "workloads", "servers", "models")


@dataclass
class Layered:
    """Configuration files laid over one another.

    Attributes:
        content: what they say together.
        layers: the files, the lowest first.
        notes: sentences on definitions that replaced others.
    """

    content: dict[str, Any] = field(default_factory=dict)
    layers: list[YamlFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def place(self, key: Sequence[str]) -> str:
        """Return file and line of a key, or of the nearest one above it that is there; empty if no file has it."""
        there = 0
        node: Any = self.content
        while there < len(key) and isinstance(node, Mapping) and key[there] in node:
            node = node[key[there]]
            there += 1
        for length in range(there, 0, -1):
            above = tuple(key[:length])
            for layer in reversed(self.layers):
                # Settings of the command line have no lines.
                if above in layer.lines or (not layer.lines and _at(layer.content, above) is not None):
                    return layer.place(above)
        return ""


def lay(layers: Sequence[YamlFile]) -> Layered:
    """Lay files over one another, the lowest first.

    Raises:
        InputError: a figure is changed without its source; each such key is named with its file and line.
    """
    result = Layered()
    problems: list[str] = []
    for layer in layers:
        problems += _separated(result, layer)
        result.content = _overlay(result.content, layer.content, Config, (), result, layer)
        result.layers.append(layer)
    if problems:
        raise InputError("\n".join(["the configuration is wrong:", *(f"  {problem}" for problem in problems)]))
    return result


def _overlay(
    below: Mapping[str, Any], above: Mapping[str, Any], kind: Any, path: KeyPath, result: Layered, layer: YamlFile
) -> dict[str, Any]:
    merged = dict(below)
    for key, new in above.items():
        old = below.get(key)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            merged[key] = new
            continue
        inner = _type_of(kind, key)
        here = (*path, key)
        tag = _tag(inner)
        if tag and tag in new and tag in old and new[tag] != old[tag]:
            merged[key] = new
        elif len(here) == 2 and here[0] in DEFINITIONS and _is_complete(inner, new):
            if lost := {name: value for name, value in old.items() if name not in new}:
                result.notes.append(_replaced(here, lost, result, layer))
            merged[key] = new
        else:
            merged[key] = _overlay(old, new, _member(inner, tag, {**old, **new}), here, result, layer)
    return merged


def _replaced(path: KeyPath, lost: Mapping[str, Any], result: Layered, layer: YamlFile) -> str:
    names = ", ".join(str(Setting(name, value if _is_plain(value) else None)) for name, value in lost.items())
    return (
        f"{layer.place(path)}: {'.'.join(path)} is complete, so it replaces the one of {result.place(path)}, "
        f"whose other keys do not count any more: {names}"
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 40)


def _separated(below: Layered, layer: YamlFile) -> Iterator[str]:
    """Yield a message for each figure that a layer changes without its source, or the other way round."""
    for path, keys in TOGETHER.items():
        old, new = _at(below.content, path), _at(layer.content, path)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            continue
        changed = [key for key in keys if new.get(key) is not None and new[key] != old.get(key)]
        left_out = [key for key in keys if key not in new and old.get(key) is not None]
        if changed and left_out:
            where = ".".join(path)
            yield (
                f"{layer.place((*path, changed[0]))}: {where}.{changed[0]} is changed, but not what belongs to it "
                f"({', '.join(f'{where}.{key}' for key in left_out)}), which would stay that of "
                f"{below.place((*path, left_out[0])) or 'the file below'}; write all of them"
            )


def _at(content: Mapping[str, Any], path: Sequence[str]) -> Any:
    node: Any = content
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _is_complete(kind: Any, content: Mapping[str, Any]) -> bool:
    try:
        TypeAdapter(kind).validate_python(content)
    except ValidationError:
        return False
    return True


def _type_of(kind: Any, key: str) -> Any:
    """Return the type of a key's value in a section, or of a name's in a mapping; None if it is not known."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    if isinstance(kind, type) and issubclass(kind, Section):
        info = kind.model_fields.get(key)
        return None if info is None else info.annotation
    return None


def _members(kind: Any) -> list[type[Section]]:
    """Return the sections that a value of the type may be."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return [kind]
    if get_origin(kind) in (Annotated, Union, UnionType):
        return [section for argument in get_args(kind) for section in _members(argument)]
    return []


def _tags(section: type[Section]) -> dict[str, Any]:
    """Return the keys whose only value says which kind of section it is."""
    return {
        key: get_args(info.annotation)[0]
        for key, info in section.model_fields.items()
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1
    }


def _tag(kind: Any) -> str | None:
    """Return the key that tells the kinds of a union apart."""
    members = _members(kind)
    return next((key for key in _tags(members[0])), None) if len(members) > 1 else None


def _member(kind: Any, tag: str | None, content: Mapping[str, Any]) -> Any:
    """Return the section that the content is, or the type itself if it is a mapping of names."""
    members = _members(kind)
    if tag is None:
        return members[0] if members else kind
    return next((member for member in members if _tags(member).get(tag) == content.get(tag)), None)
