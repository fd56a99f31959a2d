"""Search for the values of secret environment variables and login files in files that are about to be published."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference_energy.contracts.redaction import secret_forms

_SECRET_NAME = re.compile(r"(HF_TOKEN|.*(_API_KEY|_PASSWORD|_TOKEN|_SECRET|_COMMUNITY))", re.IGNORECASE)
_SHORTEST = 8


class Secrets:
    """The values of variables whose names look secret, at least 8 characters long: shorter ones occur by chance.

    Args:
        environ: environment variables.
        configured: locations of secrets according to the configuration, from `secret_locations`.
    """

    def __init__(self, environ: Mapping[str, str], configured: "SecretLocations | None" = None) -> None:
        self._forms: list[tuple[str, bytes]] = []
        locations = configured or SecretLocations()
        variables = {
            name: value for name, value in environ.items() if _SECRET_NAME.fullmatch(name) or name in locations.names
        }
        for name, value in sorted(
            [*variables.items(), *((str(path.absolute()), value) for path, value in locations.file_values())]
        ):
            plain = value.strip()
            if len(plain) >= _SHORTEST:
                forms = sorted(secret_forms(plain))
                self._forms += [(name, form.encode(errors="surrogateescape")) for form in forms]
        self._longest = max((len(form) for _, form in self._forms), default=0)

    def scanner(self) -> "Scanner":
        """Return a scanner for one file."""
        return Scanner(self._forms, self._longest)

    def in_parquet(self, path: Path) -> str | None:
        """Return the variable or file whose value occurs in the (compressed) texts of a Parquet file, or None."""
        if not self._forms:
            return None
        for text in _parquet_texts(path):
            name = self.scanner().feed(text)
            if name:
                return name
        return None


@dataclass(frozen=True)
class SecretLocations:
    """Locations of secrets according to a configuration: names of variables, and login files."""

    names: frozenset[str] = frozenset()
    files: frozenset[Path] = frozenset()

    def file_values(self) -> Iterator[tuple[Path, str]]:
        """Yield the values in the files, except user names; a file that is gone or unreadable is skipped."""
        for path in sorted(self.files):
            with suppress(OSError):
                for line in path.read_text(errors="replace").splitlines():
                    field, _, value = (part.strip() for part in line.partition("="))
                    if value and field != "username" and not field.startswith("#"):
                        yield path, value


def secret_locations(content: Any) -> SecretLocations:
    """Collect every `api_key_env` and `credentials_file` in a configuration."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return SecretLocations()
    keys = {key: content[key] for key in ("api_key_env", "credentials_file") if isinstance(content.get(key), str)}
    inner = [secret_locations(value) for value in content.values()]
    return SecretLocations(
        frozenset([keys["api_key_env"]] if "api_key_env" in keys else []).union(*(part.names for part in inner)),
        frozenset([Path(keys["credentials_file"])] if "credentials_file" in keys else []).union(
            *(part.files for part in inner)
        ),
    )


class Scanner:
    """Search of one file that is read in pieces."""

    def __init__(self, forms: list[tuple[str, bytes]], longest: int) -> None:
        self._forms = forms
        self._kept = max(longest - 1, 0)
        self._tail = b""

    def feed(self, piece: bytes) -> str | None:
        """Search the next piece.

        Returns:
            The name of the variable, or the path of the login file, whose value occurs in the file, or None.
        """
        if not self._forms:
            return None
        text = self._tail + piece
        self._tail = text[-self._kept :]
        return next((name for name, form in self._forms if form in text), None)


def _parquet_texts(path: Path) -> Iterator[bytes]:
    file = pq.ParquetFile(path)
    for key, value in (file.schema_arrow.metadata or {}).items():
        yield key + b"\n" + value
    columns = [field.name for field in file.schema_arrow if not _is_plain_number(field.type)]
    if not columns:
        return
    for batch in file.iter_batches(columns=columns):
        for column in batch.columns:
            values = {value if isinstance(value, str) else repr(value) for value in column.to_pylist()}
            yield "\n".join(values).encode(errors="surrogateescape")


def _is_plain_number(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain_number(kind.value_type)
    return bool(pa.types.is_primitive(kind) or pa.types.is_null(kind))
