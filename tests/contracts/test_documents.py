"""Documents are read and written without losing a bit, and refused with a sentence where they are others."""

import json
from pathlib import Path

import pytest

from inference_energy.contracts.documents.document import (
    VERSION,
    decode_document,
    document_from_dict,
    read_document,
    write_document,
)
from inference_energy.contracts.documents.machine import ServerEnvironmentDocument
from inference_energy.contracts.documents.windows import WarmupDocument
from inference_energy.contracts.figure import Figure, Reason, json_values
from inference_energy.errors import InputError
from inference_energy.present.files_page import DOCUMENTS, TABLES, files_page

WARMUP = {
    "version": 1,
    "session": "s",
    "machine": "m",
    "server": "v",
    "requests": 8,
    "ok": 8,
    "failed": 0,
    "aborted": 0,
    "output_tokens": 256,
    "duration_s": None,
    "throughput": {"quarters_tokens_per_s": [9.984149102483965, 0.1 + 0.2, 1e-300, 1e22], "settled": None},
    "reasons": [{"code": "no_warmup", "detail": "ä"}],
}


def test_a_document_is_written_as_it_was_read_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "warmup.json"
    path.write_text(json.dumps(WARMUP, indent=2, ensure_ascii=False) + "\n")
    document = read_document(path, WarmupDocument)
    write_document(tmp_path / "again.json", document)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert json_values(document) == WARMUP
    assert document_from_dict(WARMUP, WarmupDocument, "warmup.json") == document


def test_a_newer_version_is_refused_with_what_to_do() -> None:
    newer = json.dumps({**WARMUP, "version": VERSION + 1}).encode()
    with pytest.raises(InputError, match=rf"w\.json: is of version {VERSION + 1}, .* reads version {VERSION}: .*newer"):
        decode_document(newer, WarmupDocument, "w.json")
    with pytest.raises(InputError, match=r"is of version 0, .*compute it again from the raw files"):
        decode_document(json.dumps({**WARMUP, "version": 0}).encode(), WarmupDocument, "w.json")


def test_a_document_of_acquisition_has_no_version_and_counts_as_the_first() -> None:
    keys = ("python_version", "vllm_version", "vllm_commit", "torch_version", "torch_cuda_version", "packages")
    content = {"kind": "attach", "command": None, "note": None, **dict.fromkeys(keys), "missing": {}}
    assert json_values(document_from_dict(content, ServerEnvironmentDocument, "e.json")) == content


def test_a_key_of_a_later_toolkit_is_ignored_and_a_missing_one_is_named() -> None:
    document = document_from_dict({**WARMUP, "later": [1, 2]}, WarmupDocument, "w.json")
    assert json_values(document) == WARMUP
    lacking = {key: value for key, value in WARMUP.items() if key != "failed"}
    with pytest.raises(InputError, match=r"w\.json: its content is not that of warmup\.json: .*`failed`"):
        document_from_dict(lacking, WarmupDocument, "w.json")
    with pytest.raises(InputError, match="not JSON"):
        decode_document(b"{", WarmupDocument, "w.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_document(tmp_path / "none.json", WarmupDocument)


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_values(Figure(float("nan"), "J", "total", "gpu", "counter"))


def test_a_figure_has_a_value_exactly_when_it_is_valid() -> None:
    with pytest.raises(ValueError, match="exactly when it is valid"):
        Figure(None, "J", "total", "gpu", "counter")
    with pytest.raises(ValueError, match="gives a reason"):
        Figure(None, "J", "total", "gpu", "counter", valid=False)
    content = json_values(Figure(None, "J", "total", "gpu", "counter", valid=False, reasons=(Reason("gap", "x"),)))
    assert (content["value"], content["reasons"]) == (None, [{"code": "gap", "detail": "x"}])


def test_every_file_is_on_the_page() -> None:
    """A key or column without a description raises."""
    page = files_page().replace("\\", "")
    assert [name for name in (*TABLES, *(document.FILE for document in DOCUMENTS)) if f"### {name}" not in page] == []
