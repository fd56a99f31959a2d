"""Signatures of archives by `ssh-keygen -Y`: over all bytes of the zip file, in ARCHIVE.zip.sig beside it.

Without the toolkit: `ssh-keygen -Y verify -f allowed_signers -I NAME -n inference-energy -s default.zip.sig <
default.zip`. The format is that of OpenSSH's PROTOCOL.sshsig; allowed_signers is described in ssh-keygen(1).
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from inference_energy.contracts.io import atomic_write
from inference_energy.contracts.outside import read_bytes, read_text
from inference_energy.errors import InputError, RunError

NAMESPACE = "inference-energy"
"""A signature made for another purpose, such as a git commit, does not hold for an archive."""

_LARGEST = 1 << 20
_TIMEOUT_S = 600
_HEAD = b"-----BEGIN SSH SIGNATURE-----"
_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[\w@.-]+ [A-Za-z0-9+/=]+(?: .*)?")


def signature_path(archive: Path) -> Path:
    """Return the path of an archive's signature."""
    return archive.with_name(f"{archive.name}.sig")


def check_signing(key: Path) -> None:
    """Check what can be checked before an archive is packed that is to be signed.

    Raises:
        InputError: ssh-keygen is not installed, or the key cannot be read.
    """
    _tool()
    read_bytes(key, _LARGEST)


def sign(archive: Path, key: Path) -> Path:
    """Sign an archive; ssh-keygen may ask for the key's passphrase on the terminal.

    Args:
        archive: the zip file.
        key: private key of OpenSSH, or the public one of a key that ssh-agent holds.

    Returns:
        The path of the signature.

    Raises:
        InputError: ssh-keygen is not installed, or cannot sign with the key.
    """
    code, signature, words = _run(["-Y", "sign", "-f", str(key.absolute()), "-n", NAMESPACE], archive)
    if code != 0 or not signature.startswith(_HEAD):
        raise InputError(f"{archive} is written, but ssh-keygen cannot sign it with {key}: {words}")
    path = signature_path(archive)
    with atomic_write(path) as partial:
        partial.write_bytes(signature)
    return path


def remove_outdated(archive: Path) -> Path | None:
    """Remove the signature of an archive that was written again, and return its path; None if there is none."""
    path = signature_path(archive)
    if not path.is_file() or path.read_bytes()[: len(_HEAD)] != _HEAD:
        return None
    path.unlink()
    return path


def signer(archive: Path, allowed: Path) -> str:
    """Return who signed an archive, in ssh-keygen's words.

    Args:
        archive: the zip file; its signature lies beside it.
        allowed: an allowed_signers file, or a public key.

    Raises:
        InputError: ssh-keygen is not installed, or `allowed` cannot be used.
        RunError: there is no signature, it is of another key, or not of these bytes.
    """
    _tool()
    signers = _allowed_signers(allowed)
    path = signature_path(archive)
    if not path.is_file():
        raise RunError(f"{archive}: not signed: there is no {path.name} beside it")
    content = read_bytes(path, _LARGEST)
    if not content.startswith(_HEAD):
        raise RunError(f"{path}: no signature of ssh-keygen")
    with tempfile.TemporaryDirectory(prefix="inference-energy-signers-") as folder:
        signers_file, signature_file = Path(folder, "allowed_signers"), Path(folder, "archive.sig")
        signers_file.write_text(signers)
        signature_file.write_bytes(content)
        files = ["-s", str(signature_file), "-f", str(signers_file)]
        code, names, words = _run(["-Y", "find-principals", *files])
        if code != 0:
            raise RunError(f"{path}: not by a key in {allowed}: {words or 'no such signer'}")
        for name in dict.fromkeys(names.decode(errors="replace").splitlines()):
            code, said, words = _run(["-Y", "verify", "-n", NAMESPACE, "-I", name, *files], archive)
            if code == 0:
                return _printable(said.decode(errors="replace"))
    raise RunError(f"{archive}: not what {path.name} signs: {words or 'no such signer'}")


def _allowed_signers(path: Path) -> str:
    """Return the text of an allowed_signers file; a public key is put into such a form."""
    text = read_text(path, _LARGEST)
    if "PRIVATE KEY" in text:
        raise InputError(f"{path}: a private key: name the public one, or an allowed_signers file")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path}: holds neither a public key nor allowed signers")
    if all(_PUBLIC_KEY.fullmatch(line) for line in lines):
        return "".join(f'signer namespaces="{NAMESPACE}" {" ".join(line.split()[:2])}\n' for line in lines)
    return text


def _tool() -> str:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        raise InputError("ssh-keygen is not installed, which signs archives and checks signatures: install OpenSSH")
    return tool


def _run(arguments: list[str], stdin: Path | None = None) -> tuple[int, bytes, str]:
    """Return exit status, output and last message of ssh-keygen."""
    try:
        with (stdin or Path("/dev/null")).open("rb") as source:
            done = subprocess.run(
                [_tool(), *arguments], stdin=source, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"ssh-keygen does not end well: {error}") from error
    return done.returncode, done.stdout, _printable(done.stderr.decode(errors="replace"))


def _printable(words: str) -> str:
    text = "; ".join(line.strip() for line in words.splitlines() if line.strip())
    return "".join(letter for letter in text if letter.isprintable())[:400]
