"""User names, passwords, tokens and community strings of metering devices, kept out of settings and results.

They come from the environment (`INFERENCE_ENERGY_<PREFIX>_USERNAME`, `_PASSWORD`, `_TOKEN`, `_COMMUNITY`,
`_PRIVACY_PASSWORD`) or from a file that belongs to the user and that nobody else may read, with lines such as
`password = ...`.
"""

import os
import re
import stat
from base64 import b64encode
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import SecretStr

from inference_energy.errors import InputError

LONGEST_FILE_BYTES = 1 << 16

_PREFIX = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The login of a device; parts that it does not need are None. The repr names the parts that are set, no value.

    `privacy_password` encrypts SNMP v3, beside the `password` that authenticates.
    """

    username: SecretStr | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    community: SecretStr | None = None
    privacy_password: SecretStr | None = None

    def __repr__(self) -> str:
        held = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"Credentials({', '.join(held)})"


FIELDS = tuple(field.name for field in fields(Credentials))
_COMMON_USERS = frozenset({"admin", "administrator", "root", "user", "guest", "monitor", "operator"})
"""User names that are in many texts and open nothing."""


def variable(prefix: str, field: str) -> str:
    """Return the environment variable of a field, such as INFERENCE_ENERGY_PDU_COMMUNITY."""
    return f"INFERENCE_ENERGY_{prefix}_{field.upper()}"


def credentials(prefix: str, file: str | Path | None = None) -> Credentials | None:
    """Read the credentials of one device.

    Args:
        prefix: names the variables; capitals, digits and underscores.
        file: a file that holds them; then the variables are ignored.

    Returns:
        The credentials, or None where nothing is set.

    Raises:
        InputError: the prefix cannot name a variable, or the file is missing, open to others, not the user's own or
            wrongly written. No message shows what the file holds.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InputError("credentials: write the beginning of the variables' names in capitals, such as PDU_2")
    if file is not None:
        held = _parsed(Path(file), _read(Path(file)))
    else:
        values = {field: os.environ.get(variable(prefix, field), "") for field in FIELDS}
        held = {field: value for field, value in values.items() if value}
    return Credentials(**{field: SecretStr(value) for field, value in held.items()}) if held else None


def secrets(login: Credentials) -> list[str]:
    """Return the values that no message and no result may show."""
    values = {field: plain(getattr(login, field)) for field in FIELDS}
    if values["username"] and values["password"]:
        # As HTTP basic authentication sends them, for a device that repeats the header.
        values["basic"] = b64encode(
            f"{values['username']}:{values['password']}".encode(errors="surrogateescape")
        ).decode()
    if (values["username"] or "").lower() in _COMMON_USERS:
        del values["username"]
    return [value for value in values.values() if value]


def plain(secret: SecretStr | None) -> str | None:
    """Return the value itself, for the one place that sends it."""
    return None if secret is None else secret.get_secret_value()


def _read(file: Path) -> str:
    """The file's text, read through the descriptor whose rights were checked."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"credentials_file {file} cannot be read: {error.strerror}") from error
    with open(descriptor, "rb") as opened:  # noqa: PTH123  a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"credentials_file {file} is not a file")
        if status.st_uid != os.geteuid():
            raise InputError(f"credentials_file {file} belongs to another user: make a copy of your own with mode 0600")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise InputError(f"credentials_file {file} is open to others (mode {mode:04o}): chmod 600 {file}")
        content = opened.read(LONGEST_FILE_BYTES + 1)
    text = content.decode(errors="replace")
    # Checked here and not by an exception, which would carry the bytes with it.
    if len(content) > LONGEST_FILE_BYTES or "\ufffd" in text or "\0" in text:
        raise InputError(f"credentials_file {file} is not a short UTF-8 text of lines such as: password = ...")
    return text


def _parsed(file: Path, text: str) -> dict[str, str]:
    held: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        field, _, value = (part.strip() for part in line.partition("="))
        if field not in FIELDS or not value or field in held:
            raise InputError(
                f"credentials_file {file}, line {number}: write each of {', '.join(FIELDS)} at most once, as: "
                "password = ..."
            )
        held[field] = value
    if not held:
        raise InputError(f"credentials_file {file} holds nothing: write lines such as: password = ...")
    return held
