"""Archives are signed by OpenSSH's ssh-keygen, and only an allowed signer's signature of these bytes is accepted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import archived
import pytest
from typer.testing import CliRunner

from inference_energy.cli.main import app
from inference_energy.errors import InputError, RunError
from inference_energy.provenance.signature import NAMESPACE, sign, signature_path, signer

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@example.org", "-f", path], check=True)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "key")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK" * 1000)
    return path


def test_the_signers_public_key_or_their_line_of_allowed_signers_verifies(archive: Path, key: Path) -> None:
    assert sign(archive, key) == signature_path(archive)
    public = key.with_suffix(".pub")
    assert 'Good "inference-energy" signature for signer with ED25519 key SHA256:' in signer(archive, public)
    allowed = archive.with_name("allowed")
    allowed.write_text(f"# ours\n\nme@example.org {public.read_text()}")
    assert "for me@example.org with" in signer(archive, allowed)
    assert sign(archive, key) == signature_path(archive), "an old signature is replaced without a question"


def test_other_bytes_another_key_another_purpose_and_none_are_refused(archive: Path, key: Path, tmp_path: Path) -> None:
    public = key.with_suffix(".pub")
    with pytest.raises(RunError, match=r"not signed: there is no a\.zip\.sig"):
        signer(archive, public)
    sign(archive, key)
    other = new_key(tmp_path / "other").with_suffix(".pub")
    with pytest.raises(RunError, match="not by a key in"):
        signer(archive, other)
    restricted = tmp_path / "restricted"
    restricted.write_text(f'me@example.org namespaces="git" {public.read_text()}')
    with pytest.raises(RunError, match=r"not what|not by a key"):
        signer(archive, restricted)
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(RunError, match=r"not what a\.zip\.sig signs: .*incorrect signature"):
        signer(archive, public)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "git", tmp_path / "a.zip"], input=b"y", check=True
    )
    with pytest.raises(RunError, match=r"not what a\.zip\.sig signs"):
        signer(archive, public)
    assert NAMESPACE != "git"


def test_what_is_no_signature_or_no_key_is_refused(archive: Path, key: Path, tmp_path: Path) -> None:
    signature_path(archive).write_bytes(b"\xff" * 100)
    with pytest.raises(RunError, match="no signature of ssh-keygen"):
        signer(archive, key.with_suffix(".pub"))
    signature_path(archive).write_bytes(b"-----BEGIN SSH SIGNATURE-----\n\x1b[2Jverified")
    with pytest.raises(RunError) as caught:
        signer(archive, key.with_suffix(".pub"))
    assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="a private key"):
        signer(archive, key)
    with pytest.raises(InputError, match="no such file"):
        signer(archive, tmp_path / "absent")
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(InputError, match="neither a public key nor allowed signers"):
        signer(archive, tmp_path / "empty")
    with pytest.raises(InputError, match="cannot sign it with"):
        sign(archive, archive)


def test_without_ssh_keygen_it_is_named(archive: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(archive.parent))
    for call in (lambda: sign(archive, key), lambda: signer(archive, key.with_suffix(".pub"))):
        with pytest.raises(InputError, match="ssh-keygen is not installed"):
            call()


@pytest.mark.slow
@pytest.mark.usefixtures("computed_once")
def test_the_commands_sign_and_check(master: Path, key: Path, tmp_path: Path) -> None:
    output, public = tmp_path / "made.zip", str(key.with_suffix(".pub"))
    words = ["archive", str(master / "results" / archived.EXPERIMENT), "-o", str(output), "--project", str(master)]
    signed = CliRunner().invoke(app, [*words, "--sign", str(key)])
    assert signed.exit_code == 0, signed.output
    assert f"{output}.sig: its signature" in signed.output
    checked = CliRunner().invoke(app, ["verify", str(output), "--signed-by", public])
    assert checked.exit_code == 0, checked.output
    assert 'signed   Good "inference-energy" signature' in checked.output
    assert "forgery" not in checked.output

    unsigned = CliRunner().invoke(app, ["verify", str(output)])
    assert "signed   not checked\n" in unsigned.output
    assert "a forgery that agrees with itself is not found" in unsigned.output
    again = CliRunner().invoke(app, words)
    assert f"{output}.sig: removed" in again.output
    refused = CliRunner().invoke(app, ["verify", str(output), "--signed-by", public])
    assert isinstance(refused.exception, RunError)
    absent = CliRunner().invoke(app, [*words, "--sign", str(tmp_path / "absent")])
    assert isinstance(absent.exception, InputError)
