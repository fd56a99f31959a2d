"""Reading of archives that may come from anyone, each member checked against the manifest."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from inference_energy.errors import InputError
from inference_energy.provenance.manifest import NAME, Entry, Manifest, check_names

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 64 << 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

Tick = Callable[[int], None]


class Archive:
    """An archive opened for reading, with its manifest. Use it as a context manager or close it."""

    def __init__(self, path: Path) -> None:
        """Open an archive.

        Raises:
            InputError: the file is not an archive that `inference-energy archive` made, or holds an unsafe name.
        """
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path}: not a zip file that can be read: {error}") from error
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Return the names of the members present, without the manifest."""
        return [info.orig_filename for info in self._zip.infolist() if info.orig_filename != NAME]

    def check(self, folder: Path, unpack: Callable[[str], bool], tick: Tick | None = None) -> dict[str, str]:
        """Compare every member with the manifest, and unpack those selected that match it.

        Args:
            folder: where to unpack, under the members' names.
            unpack: returns whether a member is unpacked, by its name.
            tick: called after each chunk, with the number of bytes read.

        Returns:
            The problem of each member that differs from the manifest, by name.
        """
        present = set(self.names)
        problems = dict.fromkeys(sorted(present - {e.path for e in self.manifest.members}), "not in the manifest")
        for entry in self.manifest.members:
            if entry.path not in present:
                problems[entry.path] = "missing"
                continue
            target = folder / entry.path if unpack(entry.path) else None
            problem = self._check_member(entry, target, tick)
            if problem:
                problems[entry.path] = problem
        return problems

    def _check_member(self, entry: Entry, target: Path | None, tick: Tick | None) -> str | None:
        """Read one member, no further than its size, so that a small zip cannot fill the disk."""
        size, total = 0, hashlib.sha256()
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._zip.open(entry.path) as source, target.open("wb") if target else nullcontext() as copy:
                while size <= entry.size and (chunk := source.read(_CHUNK)):
                    size += len(chunk)
                    total.update(chunk)
                    if copy:
                        copy.write(chunk)
                    if tick:
                        tick(len(chunk))
        except _DAMAGED as error:
            problem: str | None = f"damaged: {error}"
        else:
            problem = None
            if size != entry.size:
                problem = f"changed: its size is not {entry.size} bytes"
            elif total.hexdigest() != entry.sha256:
                problem = "changed: its SHA-256 differs"
        if problem and target:
            target.unlink(missing_ok=True)
        return problem

    def _read_manifest(self) -> Manifest:
        names = [info.orig_filename for info in self._zip.infolist()]
        try:
            check_names(names)
        except ValueError as error:
            raise InputError(f"{self.path}: member {error}: not opened") from error
        if NAME not in names:
            raise InputError(f"{self.path}: holds no {NAME}: `inference-energy archive` did not make it")
        try:
            with self._zip.open(NAME) as source:
                text = source.read(_LARGEST_MANIFEST)
        except _DAMAGED as error:
            raise InputError(f"{self.path}: {NAME} is damaged: {error}") from error
        try:
            return Manifest.parse(text)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
