"""Values of secret environment variables, looked for in files before they are published."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_SECRET_NAME = re.compile(r"(HF_TOKEN|.*(_API_KEY|_PASSWORD|_TOKEN|_SECRET|_COMMUNITY))", re.IGNORECASE)
_SHORTEST = 8


class Secrets:
    """The values of variables whose names look secret; values shorter than 8 characters would be found by chance."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._forms: list[tuple[str, bytes]] = []
        for name, value in sorted(environ.items()):
            plain = value.strip()
            if _SECRET_NAME.fullmatch(name) and len(plain) >= _SHORTEST:
                # As text, inside a JSON string, inside a page.
                in_json = (json.dumps(plain, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
                forms = {plain, html.escape(plain), *in_json}
                self._forms += [(name, form.encode(errors="surrogateescape")) for form in sorted(forms)]
        self._longest = max((len(form) for _, form in self._forms), default=0)

    def scanner(self) -> "Scanner":
        """A scanner for one file."""
        return Scanner(self._forms, self._longest)

    def in_parquet(self, path: Path) -> str | None:
        """The variable whose value stands in the texts of a Parquet file, which are compressed there; or None."""
        if not self._forms:
            return None
        for text in _parquet_texts(path):
            found = self.scanner().feed(text)
            if found:
                return found
        return None


class Scanner:
    """Looks through one file that comes in pieces."""

    def __init__(self, forms: list[tuple[str, bytes]], longest: int) -> None:
        self._forms = forms
        self._kept = max(longest - 1, 0)
        self._tail = b""

    def feed(self, piece: bytes) -> str | None:
        """Look at the next piece.

        Returns:
            The name of the variable whose value stands in the file, or None.
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
