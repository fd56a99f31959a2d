"""Damaged archives and documents are refused in words, in bounded memory, and never end in a traceback."""

from __future__ import annotations

import hashlib
import json
import zipfile
from io import BytesIO
from pathlib import Path

from fuzzing import damaged, fuzz

from inference_energy.contracts.documents.document import decode_document
from inference_energy.contracts.documents.experiment import ExperimentDocument
from inference_energy.contracts.documents.machine import EnvironmentDocument
from inference_energy.contracts.documents.session import IdleDocument, SessionDocument
from inference_energy.contracts.figure import json_values
from inference_energy.errors import InputError
from inference_energy.provenance.archive_reader import Archive

ARCHIVED = Path(__file__).parents[1] / "provenance" / "data" / "toolkit-0.1.0.zip"
KINDS = {
    "results/bench/experiment.json": ExperimentDocument,
    "results/raw/bench/sessions/bench/environment.json": EnvironmentDocument,
    "results/raw/bench/sessions/bench/session.json": SessionDocument,
    "results/raw/bench/idle/bench/idle.json": IdleDocument,
}


def small_archive() -> bytes:
    members = {"README.txt": b"read me", "results/x/a.json": b'{"a": [1, 2, 3]}' * 50}
    entries = [{"path": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members.items()]
    facts = {"experiment": "x", "created_utc": "2026-05-28T20:26:40Z", "code": {}, "members": entries}
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
        made.writestr("manifest.json", json.dumps(facts).encode(), zipfile.ZIP_STORED)
    return buffer.getvalue()


def test_a_damaged_archive_is_refused_or_its_members_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    sound = small_archive()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            with Archive(path) as archive:
                problems = archive.check(tmp_path / "unpacked", lambda name: name.endswith(".json"))
        except InputError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1500
            return
        assert all(text.isprintable() for text in (*problems, *problems.values()))
        if content == sound:
            assert problems == {}

    fuzz(damaged([sound]), check)


def test_a_damaged_document_is_decoded_to_what_can_be_written_again_or_refused() -> None:
    with zipfile.ZipFile(ARCHIVED) as opened:
        documents = {name: opened.read(name) for name in KINDS}

    def check(content: bytes) -> None:
        for name, kind in KINDS.items():
            try:
                document = decode_document(content, kind, name)
            except InputError as error:
                assert str(error).startswith(name)
                continue
            json.dumps(json_values(document), ensure_ascii=False).encode()

    fuzz(damaged(list(documents.values())), check)
