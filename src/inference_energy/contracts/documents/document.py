"""Reading and writing JSON documents: each is decoded once, into its type, and its version is checked.

Values are kept to the last bit: floats are written with the shortest digits that give them back, and keys in the order
of the type's attributes. NaN and infinity are refused.

A key that a type does not know is ignored, and is lost if the document is written again: a later toolkit may add a key
without a new version. A key that a type needs and a document lacks is an error. A key with a default may be absent: it
reads as None and is then not written.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET

from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import write_json
from inference_energy.errors import InputError

VERSION = 1
"""Version of every JSON document of the toolkit. A new key leaves it as it is; a key that is renamed, removed or has
another meaning raises it. Documents of acquisition do not hold it: without a version a document is of version 1.

History:

1. toolkit 0.1.0: the first version.
"""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a document: immutable, and equal to another with the same values."""

    def __repr__(self) -> str:
        """Return the values in a few lines: a notebook shows it, and a summary written out in full takes 100 kB."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={short_repr(value)}" for name, value in values if value is not None and value is not UNSET)
        return f"{type(self).__name__}({', '.join(shown)})"


class Document(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The content of one JSON file."""

    FILE: ClassVar[str]
    """Name of the file."""


D = TypeVar("D", bound=Document)

_SHORT = 60


def short_repr(value: object) -> str:
    """Return a value for a line: parts and containers by type and size, long texts cut."""
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}(...)"
    if isinstance(value, list | tuple | dict) and value:
        first = next(iter(value.values() if isinstance(value, dict) else value))
        what = f"{len(value)} x {type(first).__name__}"
        return f"{{{what}}}" if isinstance(value, dict) else f"[{what}]"
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


class DerivedDocument(Document, frozen=True, kw_only=True, omit_defaults=True):
    """A document that an analysis stage computes from the raw files of one session.

    Attributes:
        version: version of the document.
        session: name of the session.
        machine: name of the machine that measured.
        server: name of the server in the configuration.
    """

    version: int
    session: str
    machine: str
    server: str


def read_document(path: Path, kind: type[D]) -> D:
    """Read and check a JSON document.

    Args:
        path: the file.
        kind: type of the document.

    Raises:
        InputError: the file is missing, is not JSON, has another version, or does not hold such a document.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_document(content, kind, str(path))


def decode_document(content: bytes, kind: type[D], name: str) -> D:
    """Decode and check a JSON document.

    Args:
        content: the JSON text.
        kind: type of the document.
        name: the file's name, for messages.

    Raises:
        InputError: as in `read_document`.
    """
    try:
        version = msgspec.json.decode(content, type=_Head).version
        if version == VERSION:
            return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: its content is not that of {kind.FILE}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: not JSON: {error}") from error
    raise InputError(
        f"{name}: is of version {version!r}, and this toolkit reads version {VERSION}: "
        + (
            "read it with a newer toolkit"
            if isinstance(version, int) and version > VERSION
            else "compute it again from the raw files"
        )
    )


def document_from_dict(content: Any, kind: type[D], name: str) -> D:
    """Return the document that decoded JSON holds.

    Args:
        content: JSON-able values.
        kind: type of the document.
        name: the file's name, for messages.

    Raises:
        InputError: as in `read_document`.
        ValueError: a number is NaN or infinite.
    """
    return decode_document(json.dumps(content, allow_nan=False).encode(), kind, name)


def write_document(path: Path, document: Document) -> None:
    """Write a document as JSON, under a temporary name that is then renamed.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_json(path, json_values(document))


class _Head(msgspec.Struct):
    version: Any = VERSION
