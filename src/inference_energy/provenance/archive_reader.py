"""Reading of archives that may come from anyone: every byte of the zip file accounted for, every member bounded.

`zipfile` passes over much that a zip file may hold: bytes before, between and after its members, comments, links, two
members of one name, another name or size in the member's own header than in the directory. An archive holds none of it.
"""

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from inference_energy.contracts.outside import MIB, megabytes
from inference_energy.errors import InputError, RunError
from inference_energy.provenance.manifest import NAME, Entry, Manifest, check_names

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 64 * MIB
_LARGEST_DIRECTORY = 64 * MIB
_SMALL = 16 * MIB
"""Below this, a member may be compressed by any factor."""

_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_IS_UTF_8 = 0x800
_DEFLATE_LEVEL = 0x6
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFF_FFFF
_FOLDER_OF_DOS = 0x10

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Limits:
    """What reading an archive may take.

    Attributes:
        members: number of members.
        unpacked_bytes: size of all members, unpacked.
        ratio: how many times larger than its compressed form a member of more than 16 MiB may be. Logs and JSON reach
            20 to 50, the largest ratio of the method is 1030.
        memory_bytes: memory to compute the summary in.
    """

    members: int = 100_000
    unpacked_bytes: int = 20_000 * 10**6
    ratio: float = 200.0
    memory_bytes: int = 16_000 * 10**6


class Archive:
    """An archive opened for reading, with its manifest. Use it as a context manager or close it."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        """Open an archive.

        Raises:
            InputError: the file is not an archive that `inference-energy archive` made, exceeds a limit, or holds what
                no archive holds.
        """
        self.path = path
        self.limits = limits or Limits()
        try:
            self._file: BinaryIO = path.open("rb")
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)[:200]}: not a zip file that can be read: {error}") from error
        try:
            self._members = {info.orig_filename: (info, start) for info, start in self._read_directory()}
            self.manifest = self._read_manifest()
        except OSError as error:
            self._file.close()
            raise InputError(f"{path}: not a zip file that can be read: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def names(self) -> list[str]:
        """Return the names of the members present, without the manifest."""
        return [name for name in self._members if name != NAME]

    def check(self, folder: Path, unpack: Callable[[str], bool], tick: Tick | None = None) -> dict[str, str]:
        """Compare every member with the manifest, and unpack those selected that match it.

        Args:
            folder: where to unpack, under the members' names.
            unpack: returns whether a member is unpacked, by its name.
            tick: called after each chunk, with the number of bytes read.

        Returns:
            The problem of each member that differs from the manifest, by name.

        Raises:
            RunError: a member cannot be unpacked there, as when the disk is full.
        """
        present = set(self.names)
        problems = dict.fromkeys(sorted(present - {e.path for e in self.manifest.members}), "not in the manifest")
        for entry in self.manifest.members:
            if entry.path not in present:
                problems[entry.path] = "missing"
                continue
            target = folder / entry.path if unpack(entry.path) else None
            try:
                problem = self._check_member(entry, target, tick)
            except OSError as error:
                raise RunError(
                    f"{self.path}: {entry.path} cannot be unpacked in {folder}: {error.strerror}; TMPDIR names another "
                    "folder"
                ) from error
            if problem:
                problems[entry.path] = problem
        return problems

    def _check_member(self, entry: Entry, target: Path | None, tick: Tick | None) -> str | None:
        """Read one member, if its size is that of the manifest, and no further."""
        if self._members[entry.path][0].file_size != entry.size:
            return f"changed: its size is not {entry.size} bytes"
        total = hashlib.sha256()
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") if target else nullcontext() as copy:
                for chunk in self._content(entry.path):
                    total.update(chunk)
                    if copy:
                        copy.write(chunk)
                    if tick:
                        tick(len(chunk))
        except _DamagedError as error:
            problem: str | None = f"damaged: {error}"
        else:
            problem = None if total.hexdigest() == entry.sha256 else "changed: its SHA-256 differs"
        if problem and target:
            target.unlink(missing_ok=True)
        return problem

    def _content(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member in pieces, no more than the size it states.

        Raises:
            _DamagedError: it ends early, holds more, or has another CRC.
        """
        info, start = self._members[name]
        size, crc = 0, 0
        for chunk in _inflated(self._file, info, start):
            size += len(chunk)
            if size > info.file_size:
                raise _DamagedError(f"holds more than the {info.file_size} bytes that it states")
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if size != info.file_size:
            raise _DamagedError(f"holds {size} bytes, and states {info.file_size}")
        if crc != info.CRC:
            raise _DamagedError("its CRC-32 differs")

    def _read_manifest(self) -> Manifest:
        if NAME not in self._members:
            raise InputError(f"{self.path}: holds no {NAME}: `inference-energy archive` did not make it")
        if self._members[NAME][0].file_size > _LARGEST_MANIFEST:
            raise InputError(f"{self.path}: {NAME} is larger than {megabytes(_LARGEST_MANIFEST)}")
        try:
            return Manifest.parse(b"".join(self._content(NAME)))
        except _DamagedError as error:
            raise InputError(f"{self.path}: {NAME} is damaged: {error}") from error
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _read_directory(self) -> list[tuple[zipfile.ZipInfo, int]]:
        """Return each member with the place of its content, after checking that nothing else is in the file."""
        try:
            count, start = _directory(self._file)
            with zipfile.ZipFile(self._file) as opened:
                members = opened.infolist()
        except _DamagedError as error:
            raise InputError(f"{self.path}: {error}: not opened") from error
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError) as error:
            raise InputError(f"{self.path}: not a zip file that can be read: {error}") from error
        if len(members) != count or count > self.limits.members:
            raise InputError(
                f"{self.path}: states {count} members and holds {len(members)}; at most {self.limits.members} are read"
            )
        try:
            check_names([info.orig_filename for info in members])
        except ValueError as error:
            raise InputError(f"{self.path}: member {error}: not opened") from error
        unpacked = sum(info.file_size for info in members)
        if unpacked > self.limits.unpacked_bytes:
            raise InputError(
                f"{self.path}: takes {unpacked / 1e9:.3g} GB unpacked, more than "
                f"{self.limits.unpacked_bytes / 1e9:.3g} GB: not opened; for one you trust, raise --max-unpacked-gb"
            )
        places, place = [], 0
        for info in sorted(members, key=lambda member: member.header_offset):
            try:
                _check_plain(info, self.limits.ratio)
                content = _content_start(self._file, info, place)
            except _DamagedError as error:
                raise InputError(f"{self.path}: member {info.orig_filename!r} {error}: not opened") from error
            places.append((info, content))
            place = content + info.compress_size
        if place != start:
            raise InputError(f"{self.path}: holds {start - place} bytes after its last member: not opened")
        return places


class _DamagedError(Exception):
    """What is wrong with the zip file or a member; the message follows its name."""


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Return the number of members and the place of the directory, which must end where the file ends.

    Raises:
        _DamagedError: it does not, or is larger than any archive's.
    """
    file.seek(0, 2)
    size = file.tell()
    place = size - _END.size
    if place < 0:
        raise _DamagedError("not a zip file")
    signature, disk, first_disk, here, count, length, start, comment = _at(file, place, _END)
    if signature != b"PK\5\6" or comment:
        raise _DamagedError("not a zip file, or one with a comment or other bytes after its end")
    locator = place - _LOCATOR_64.size
    if locator >= 0 and (found := _at(file, locator, _LOCATOR_64))[0] == b"PK\6\7":
        _, disk_64, end_64, disks = found
        stated = (here, count, length, start)
        place -= _LOCATOR_64.size + _END_64.size
        if end_64 != place or disk_64 != 0 or disks != 1:
            raise _DamagedError("its zip64 end does not lie where it states")
        signature, rest, _, _, disk, first_disk, here, count, length, start = _at(file, place, _END_64)
        largest = (_FULL_16, _FULL_16, _FULL_32, _FULL_32)
        if (
            signature != b"PK\6\6"
            or rest != _END_64.size - 12
            or stated != tuple(map(min, largest, (here, count, length, start)))
        ):
            raise _DamagedError("its zip64 end is damaged")
    if disk or first_disk or here != count:
        raise _DamagedError("is one part of several")
    if start + length != place:
        raise _DamagedError("bytes lie before its first member or around its directory")
    if length > _LARGEST_DIRECTORY:
        raise _DamagedError(f"its directory is larger than {megabytes(_LARGEST_DIRECTORY)}")
    return count, start


def _check_plain(info: zipfile.ZipInfo, ratio: float) -> None:
    """Check that a member is a regular file, stored or deflated, with nothing beside name and content."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _DamagedError("is a symbolic link")
    if kind not in (0, stat.S_IFREG) or info.external_attr & _FOLDER_OF_DOS:
        raise _DamagedError("is no regular file")
    if info.flag_bits & _ENCRYPTED:
        raise _DamagedError("is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _DamagedError(f"is compressed by a method ({info.compress_type}) that no archive uses")
    if info.flag_bits & ~(_IS_UTF_8 | _DEFLATE_LEVEL) or info.volume:
        raise _DamagedError("is written in a way that no archive is")
    if info.comment or _zip64_sizes(info.extra) is None:
        raise _DamagedError("has a comment or further fields, which no archive has")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise _DamagedError("is not compressed, and states two sizes")
    if info.file_size > max(_SMALL, ratio * info.compress_size):
        raise _DamagedError(
            f"unpacks to {megabytes(info.file_size)}, {info.file_size / max(info.compress_size, 1):.0f} times its size"
        )


def _content_start(file: BinaryIO, info: zipfile.ZipInfo, expected: int) -> int:
    """Return where a member's content begins; its own header must lie at `expected` and agree with the directory."""
    if info.header_offset != expected:
        raise _DamagedError(f"does not begin where the one before ends, at byte {expected}")
    name_length: int
    extra_length: int
    header = _at(file, expected, _LOCAL)
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
    name, extra = file.read(name_length), file.read(extra_length)
    if _FULL_32 in (packed, size):
        sizes = _zip64_sizes(extra)
        size, packed = sizes if sizes and len(sizes) == 2 else (-1, -1)
    elif _zip64_sizes(extra) is None:
        raise _DamagedError("has further fields in its header, which no archive has")
    encoded = info.orig_filename.encode("utf-8" if flags & _IS_UTF_8 else "cp437", errors="replace")
    own = (signature, flags, method, crc, packed, size, name)
    if own != (
        b"PK\3\4",
        info.flag_bits,
        info.compress_type,
        info.CRC,
        info.compress_size,
        info.file_size,
        encoded,
    ):
        raise _DamagedError("has another name, size, CRC or method in its header than in the directory")
    return expected + _LOCAL.size + name_length + extra_length


def _zip64_sizes(extra: bytes) -> tuple[int, ...] | None:
    """Return the numbers in the zip64 field of a member, none if it has no field; None if it has other fields."""
    if not extra:
        return ()
    if len(extra) < 4 or len(extra) % 8 != 4:
        return None
    kind, length = struct.unpack_from("<2H", extra)
    if kind != 1 or length != len(extra) - 4:
        return None
    return struct.unpack_from(f"<{length // 8}Q", extra, 4)


def _inflated(file: BinaryIO, info: zipfile.ZipInfo, start: int) -> Iterator[bytes]:
    """Yield a member's content in pieces of at most 1 MiB; all of its compressed bytes must belong to it."""
    file.seek(start)
    left = info.compress_size
    if info.compress_type == zipfile.ZIP_STORED:
        while left and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        packed = inflater.unconsumed_tail
        if not packed:
            packed = file.read(min(_CHUNK, left))
            left -= len(packed)
        try:
            chunk = inflater.decompress(packed, _CHUNK)
        except zlib.error as error:
            raise _DamagedError(str(error)) from error
        if chunk:
            yield chunk
        elif not packed and not inflater.eof:
            raise _DamagedError("its compressed content ends early")
    if left or inflater.unused_data:
        raise _DamagedError("bytes follow its compressed content")


def _at(file: BinaryIO, place: int, form: struct.Struct) -> tuple[Any, ...]:
    content = b""
    if place >= 0:
        file.seek(place)
        content = file.read(form.size)
    if len(content) != form.size:
        raise _DamagedError("ends within a header")
    return form.unpack(content)
