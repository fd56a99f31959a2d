"""manifest.json of an archive: its origin, and the size and SHA-256 of each member."""

import os
import re
import unicodedata
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
    toolkit: str = Field(__version__, pattern=r"^[0-9A-Za-z.+-]{1,60}$")
    experiment: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")
    created_utc: str = Field(pattern=r"^[0-9TZ:+.-]{1,40}$")
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
            first = error.errors(include_url=False, include_input=False)[0]
            key = ascii(".".join(str(part) for part in first["loc"]))[1:-1]
            raise InputError(f"{NAME} is not that of such an archive: {key[:100]}: {first['msg'][:400]}") from error
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


LONGEST_NAME = 300
_LONGEST_PART_BYTES = 255


def check_names(names: list[str]) -> None:
    """Refuse names of members that could not all be files of one folder, on any system.

    These are names that lead outside, occur twice (also in another letter case or Unicode form), lie below another
    member as if it were a folder, are too long, or hold what no terminal shows.

    Raises:
        ValueError: the message names the first such name.
    """
    seen: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if len(name) > LONGEST_NAME or any(len(part.encode(errors="replace")) > _LONGEST_PART_BYTES for part in parts):
            raise ValueError(f"{name[:60]!r}... is too long a name: {len(name)} characters")
        if {"", ".", ".."} & set(parts) or "\\" in name or not name.isprintable() or re.match("[A-Za-z]:", name):
            raise ValueError(f"{name!r} is not a safe name for a member")
        folded = _folded(name)
        if folded in seen:
            same = "occurs twice" if seen[folded] == name else f"is the same name as {seen[folded]!r} on some systems"
            raise ValueError(f"{name!r} {same}")
        seen[folded] = name
    for folded, name in seen.items():
        for count in range(1, folded.count("/") + 1):
            if folded.rsplit("/", count)[0] in seen:
                raise ValueError(f"{name!r} lies below a file")


def _folded(name: str) -> str:
    """Return what is equal for two names that are one on a system without letter case, or with one Unicode form."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())
    return "/".join(part.rstrip(" .") or part for part in plain.split("/"))
