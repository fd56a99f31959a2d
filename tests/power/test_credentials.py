"""Where credentials come from, what is refused, and that nothing shows them."""

import os
from base64 import b64encode
from pathlib import Path

import pytest
from secrets_leak import chain

from inference_energy.acquire.power.credentials import credentials, plain, secrets
from inference_energy.contracts.redaction import Redaction
from inference_energy.errors import InputError

SECRET = "correct-horse-battery"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "bmc.credentials"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_BMC_2_USERNAME", "meter")
    monkeypatch.setenv("INFERENCE_ENERGY_BMC_2_PASSWORD", SECRET)
    monkeypatch.setenv("INFERENCE_ENERGY_BMC_2_TOKEN", "")
    found = credentials("BMC_2")
    assert found is not None
    assert (plain(found.username), plain(found.password), found.token) == ("meter", SECRET, None)
    assert credentials("BMC_3") is None


def test_a_file_is_taken_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_COMMUNITY", "other")
    file = written(tmp_path, f"# the PDU\n\nusername = meter\n  password={SECRET}=1 # all of it\n")
    found = credentials("PDU", file)
    assert found is not None
    assert plain(found.password) == f"{SECRET}=1 # all of it"
    assert found.community is None


def test_no_text_shows_a_secret(tmp_path: Path) -> None:
    found = credentials("PDU", written(tmp_path, f"username = meter-user\npassword = {SECRET}\ntoken = {SECRET}\n"))
    assert found is not None
    texts = [repr(found), str(found), f"{found}", f"{found.password}", repr([found]), repr(found.token)]
    assert not any(SECRET in text or "meter-user" in text for text in texts)
    assert repr(found) == "Credentials(username, password, token)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path, f"password = {SECRET}\n", mode)
    with pytest.raises(InputError, match=rf"mode {mode:04o}\): chmod 600") as caught:
        credentials("PDU", file)
    assert SECRET not in chain(caught.value)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, f"password = {SECRET}\n")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(InputError, match="another user"):
        credentials("PDU", file)


@pytest.mark.parametrize(
    "content",
    [
        f"pasword = {SECRET}",
        f"{SECRET}",
        f"{SECRET} = password",
        f"password = {SECRET}\npassword = {SECRET}",
        f"username = {SECRET}\npassword =",
        "# nothing\n",
        f"password = {SECRET}\n" * 5000,
    ],
)
def test_a_wrongly_written_file_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="password = ") as caught:
        credentials("PDU", written(tmp_path, content))
    assert SECRET not in chain(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    file.write_bytes(b"password = \xff\xfe" + SECRET.encode())
    with pytest.raises(InputError, match="UTF-8") as caught:
        credentials("PDU", file)
    assert SECRET not in chain(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.*cannot be read: No such file"):
        credentials("PDU", tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InputError, match="is not a file"):
        credentials("PDU", tmp_path / "pipe")


def test_a_prefix_that_names_no_variable() -> None:
    with pytest.raises(InputError, match="capitals"):
        credentials("my pdu")


def test_the_header_of_a_login_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_USERNAME", "admin")
    monkeypatch.setenv("INFERENCE_ENERGY_PDU_PASSWORD", "hunter22")
    login = credentials("PDU")
    assert login is not None
    header = b64encode(b"admin:hunter22").decode()
    assert header not in Redaction(secrets(login))(f"401: Authorization: Basic {header}")
