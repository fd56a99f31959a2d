"""YAML files of users: each key once, each value what it looks like, and each problem with its line.

YAML 1.1, which PyYAML reads, keeps the last of two equal keys, takes `on` for true, `010` for 8 and `1:30` for 90, and
leaves `1e3` a text. A configuration in which such a thing happens without a word measures something else than its
author believes. Here equal keys and ambiguous words are refused, and numbers are those of YAML 1.2. JSON is read as
well, since it is YAML.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from inference_energy.contracts.outside import MIB, clean_text, read_text
from inference_energy.errors import InputError

KeyPath = tuple[str, ...]

MAX_BYTES = MIB
MAX_DEPTH = 32
"""Levels of mappings and lists."""

MAX_VALUES = 50_000
"""Values and keys, each alias counted with all that it stands for."""

MAX_KEY = 200
LARGEST_INTEGER = 2**63 - 1

_PLAIN, _TEXT, _MAPPING, _LIST = "plain", "tag:yaml.org,2002:str", "mapping", "list"
_MERGE = "<<"

_AMBIGUOUS = re.compile("yes|no|on|off", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F_]*[0-9a-fA-F]")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class YamlFile:
    """The content of a file.

    Attributes:
        name: the file as the user wrote it.
        content: the mapping at its top; all its keys are texts.
        lines: the line of each key, by the keys that lead to it.
    """

    name: str
    content: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, key: KeyPath) -> str:
        """Return the file with the line of a key, or of the nearest one above it that the file has."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.name}:{self.lines[key]}" if key else self.name


def read_yaml_file(path: Path) -> YamlFile:
    """Read a YAML or JSON file with a mapping at its top.

    Raises:
        InputError: the file cannot be read, is too large or too deep, has a key twice, or a value whose meaning depends
            on who reads it. The message has the file and the line.
    """
    text = read_text(path, MAX_BYTES)
    reader = _Reader(str(path), _spaced(text))
    content = reader.read()
    if content is None:
        raise InputError(f"{path}: the file is empty; write the keys that you want to change, or see config.yaml")
    if not isinstance(content, dict):
        raise InputError(f"{path}: a mapping of sections is expected at the top; see config.yaml as shipped")
    return YamlFile(str(path), content, reader.lines)


def _spaced(text: str) -> str:
    """Return the text, if it is JSON, with spaces for tabs, which YAML refuses as indentation."""
    if "\t" not in text or not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.replace("\t", " ")


class _ProblemError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class _Composer(yaml.SafeLoader):
    """Nodes of a document with their lines; explicit tags stay, and plain words are decided later."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        if self._depth > MAX_DEPTH:
            raise _ProblemError(line, f"nested more than {MAX_DEPTH} levels deep")
        if self._nodes > MAX_VALUES:
            raise _ProblemError(line, f"more than {MAX_VALUES} keys and values")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return _MAPPING if kind is yaml.MappingNode else _LIST


class _Reader:
    """Reads one text; afterwards `lines` has the line of each key."""

    def __init__(self, name: str, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._name = name
        self._text = text
        self._values = 0

    def read(self) -> Any:
        try:
            node = _Composer(self._text).get_single_node()
            return None if node is None else self._value(node, (), 0)
        except _ProblemError as problem:
            self._refuse(problem.line, str(problem))
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            self._refuse(line, f"the character U+{ord(self._text[error.position]):04X} cannot stand in YAML")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(1 if mark is None else mark.line + 1, _advice(error))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{self._name}: not YAML: {str(error)[:200]}") from error

    def _refuse(self, line: int, text: str) -> NoReturn:
        raise InputError(f"{self._name}:{line}: {text}") from None

    def _value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise _ProblemError(line, f"aliases stand for more than {MAX_VALUES} keys and values")
        if depth > MAX_DEPTH:  # an alias inside what it stands for has no end
            raise _ProblemError(line, f"aliases are nested more than {MAX_DEPTH} levels deep")
        if node.tag not in (_PLAIN, _TEXT, _MAPPING, _LIST):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")[:MAX_KEY]
            raise _ProblemError(line, f"the tag {tag!r} has no meaning here; leave it out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, str(number)), depth + 1) for number, item in enumerate(node.value)]
        return _plain(node.value, line) if node.tag == _PLAIN else _cleaned(node.value, line)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        content: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, _ in node.value:
            key = _key(key_node)
            line = key_node.start_mark.line + 1
            if key in own:
                name = ".".join((*path, key))
                raise _ProblemError(
                    line, f"the key `{name}` is there twice, in line {own[key]} and in line {line}; leave one out"
                )
            own[key] = line
        # Keys of the mapping itself go before those that `<<` takes in, wherever it stands.
        for key_node, value_node in sorted(node.value, key=lambda pair: not _is_merge(pair[0])):
            if _is_merge(key_node):
                content |= self._merged(value_node, path, depth)
                continue
            key = _key(key_node)
            content[key] = self._value(value_node, (*path, key), depth + 1)
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return content

    def _merged(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, Any]:
        """Return what `<<` brings in: a mapping, or several in which no key has two values."""
        line = node.start_mark.line + 1
        merged: dict[str, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(part, yaml.MappingNode):
                raise _ProblemError(line, "`<<` takes in a mapping, or a list of mappings")
            for key, value in self._value(part, path, depth + 1).items():
                if key in merged and merged[key] != value:
                    raise _ProblemError(
                        line, f"`<<` takes in the key `{'.'.join((*path, key))}` twice, with two values"
                    )
                merged[key] = value
        return merged


def _is_merge(node: yaml.Node) -> bool:
    return node.tag == _PLAIN and node.value == _MERGE


def _key(node: yaml.Node) -> str:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise _ProblemError(line, "a key is a text, not a list or a mapping; is a quote or a colon missing?")
    key = _plain(node.value, line) if node.tag == _PLAIN else _cleaned(node.value, line)
    if not isinstance(key, str):
        raise _ProblemError(line, f"the key `{node.value}` is no text; write it in quotes")
    if len(key) > MAX_KEY or not key.isprintable():
        raise _ProblemError(line, f"a key is a text of at most {MAX_KEY} printable characters")
    return key


def _plain(text: str, line: int) -> Any:
    """Return the value of a word without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    shown = f"`{text[:40]}`"
    if _AMBIGUOUS.fullmatch(text):
        raise _ProblemError(
            line, f"{shown} is a text to some and true or false to others; write true, false, or '{text}'"
        )
    if _LEADING_ZERO.fullmatch(text):
        raise _ProblemError(line, f"{shown} is octal to some and decimal to others; write it without the leading zero")
    if _BASE_60.fullmatch(text):
        raise _ProblemError(line, f"{shown} is a number to base 60 to some; write one number, or a text in quotes")
    if _NOT_FINITE.fullmatch(text):
        raise _ProblemError(line, f"{shown} is not a finite number; write one, or null where that is allowed")
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        number = int(digits, 0) if len(digits) <= MAX_KEY else LARGEST_INTEGER + 1
        if abs(number) > LARGEST_INTEGER:
            raise _ProblemError(line, f"{shown} is too large a number; a text stands in quotes")
        return number
    if _FLOAT.fullmatch(text):
        value = float(digits)
        if math.isinf(value):
            raise _ProblemError(line, f"{shown} is too large a number; a text stands in quotes")
        return value
    return _cleaned(text, line)


def _cleaned(text: str, line: int) -> str:
    """Return a text with whole characters: JSON writes those beyond U+FFFF as two halves, which YAML leaves apart."""
    if "\0" in text:
        raise _ProblemError(line, "a text has a NUL character, which neither files nor commands can take")
    return clean_text(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _advice(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or "not YAML")[:200]
    if "'\\t'" in problem:
        return "a tab where YAML expects spaces; indent with spaces"
    if "expected a single document" in str(error.context):
        return "a second document begins (`---`); write one document to a file"
    context = f" ({error.context[:200]})" if error.context else ""
    return f"not YAML: {problem}{context}"
