"""manifest.json of an archive: its origin, and the size and SHA-256 of each member."""

import os
import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from inference_energy import __version__
from inference_energy.errors import InputError

FORMAT_VERSION = 1
NAME = "manifest.json"
EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"


class Entry(BaseModel):
    """One member: its name in the archive, its size in bytes, its SHA-256 in hexadecimal digits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LeftOut(BaseModel):
    """A file in one of the archived folders that is not in the archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    why: str


class Manifest(BaseModel):
    """The whole manifest; `toolkit` is the version that made the archive, `code` the facts about the code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["inference-energy archive"] = "inference-energy archive"
    version: int = FORMAT_VERSION
    toolkit: str = __version__
    experiment: str
    created_utc: str
    code: dict[str, Any]
    left_out: list[LeftOut] = []
    members: list[Entry]

    @field_validator("members")
    @classmethod
    def _names_are_safe_and_different(cls, members: list[Entry]) -> list[Entry]:
        check_names([entry.path for entry in members])
        return members

    @classmethod
    def parse(cls, text: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            InputError: the text is not a manifest, or has a newer version.
        """
        try:
            manifest = cls.model_validate_json(text)
        except ValidationError as error:
            key = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InputError(f"{NAME} is not that of such an archive: {key}: {error.errors()[0]['msg']}") from error
        if manifest.version > FORMAT_VERSION:
            raise InputError(f"{NAME} is of version {manifest.version}; inference-energy {manifest.toolkit} reads it")
        return manifest

    def text(self) -> bytes:
        """Return the manifest as JSON."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def created_utc() -> str:
    """Return the current time, or the one in SOURCE_DATE_EPOCH, which makes archives reproducible.

    Raises:
        InputError: the variable is not a number of seconds.
    """
    epoch = os.environ.get(EPOCH_VARIABLE)
    try:
        moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"{EPOCH_VARIABLE}={epoch!r}: write whole seconds since 1970, or unset it") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def check_names(names: list[str]) -> None:
    """Refuse member names that lead outside a folder, occur twice, or lie below another member as if it were a folder.

    Raises:
        ValueError: the message names the first such name.
    """
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")
        if {"", ".", ".."} & set(parts) or set(name) & {"\\", "\0"} or re.match("[A-Za-z]:", name):
            raise ValueError(f"{name!r} is not a safe name for a member")
        if name in seen:
            raise ValueError(f"{name!r} occurs twice")
        seen.add(name)
    for name in names:
        for count in range(1, name.count("/") + 1):
            if name.rsplit("/", count)[0] in seen:
                raise ValueError(f"{name!r} lies below a file")
