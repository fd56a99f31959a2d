"""Tables of measured rows: what is read, what is shipped, what is refused."""

import json
import math
from pathlib import Path

import pytest

from inference_energy.errors import InputError
from inference_energy.estimate.reference_rows import PUBLISHED, WINDOWS, read_rows, shipped_rows

HEAD = "model,gpu,batch,energy_per_output_token_j"


def table(tmp_path: Path, text: str, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_row_with_its_defaults(tmp_path: Path) -> None:
    (found,) = read_rows(table(tmp_path, f"{HEAD}\nQwen3-8B,H100-SXM,8,0.5\n"))
    assert (found.shape.name, found.gpu.name, found.batch, found.output_j) == ("Qwen3-8B", "H100-SXM", 8, 0.5)
    assert (found.tensor_parallel, found.weight, found.use, found.is_prefill) == (1, 1, "score", False)
    assert math.isnan(found.context_tokens)
    assert found.label.endswith("row 1")


def test_json_is_read_as_csv_is(tmp_path: Path) -> None:
    record = {"model": "Qwen3-8B", "gpu": "H100-SXM", "batch": 8, "energy_per_output_token_j": 0.5, "label": "one"}
    for content in ([record], {"rows": [record]}):
        (found,) = read_rows(table(tmp_path, json.dumps(content), "rows.json"))
        assert (found.label, found.batch) == ("one", 8)


def test_a_precision_changes_the_shape(tmp_path: Path) -> None:
    plain, fp8 = read_rows(
        table(tmp_path, f"{HEAD},precision\nQwen3-8B,H100-SXM,8,0.5,\nQwen3-8B,H100-SXM,8,0.4,fp8\n")
    )
    assert fp8.shape.resident_bytes < plain.shape.resident_bytes


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"{HEAD}\n", "no rows"),
        (f"{HEAD}\n,H100-SXM,8,0.5\n", "`model`"),
        (f"{HEAD}\nQwen3-8B,,8,0.5\n", "`gpu`"),
        (f"{HEAD}\nnone,H100-SXM,8,0.5\n", "row 1: model: none"),
        (f"{HEAD}\nQwen3-8B,H1000,8,0.5\n", "row 1: gpu: H1000"),
        (f"{HEAD}\nQwen3-8B,H100-SXM,8,\n", "energy_per_prompt_token_j"),
        (f"{HEAD}\nQwen3-8B,H100-SXM,8,-1\n", "energy_per_output_token_j"),
        (f"{HEAD}\nQwen3-8B,H100-SXM,many,1\n", "batch"),
        (f"{HEAD},colour\nQwen3-8B,H100-SXM,8,1,red\n", "colour"),
        (f"{HEAD},use\nQwen3-8B,H100-SXM,8,1,perhaps\n", "perhaps"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_rows(table(tmp_path, text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"\.csv or \.json"):
        read_rows(table(tmp_path, "", "rows.txt"))
    with pytest.raises(InputError, match="list of rows"):
        read_rows(table(tmp_path, "{}", "rows.json"))


def test_shipped_rows_have_their_source_and_their_use() -> None:
    rows = shipped_rows(PUBLISHED)
    assert all(row.source and (row.use == "score" or row.note) for row in rows)
    scored = [row for row in rows if row.use == "score"]
    assert len(scored) == 48
    assert {row.gpu.name for row in scored} == {"H100-SXM"}
    artefacts = [row.label for row in rows if row.use == "artefact"]
    assert len(artefacts) == 3
    assert "earlier toolkit Llama-3.1-8B" in artefacts


def test_shipped_windows_are_the_measured_ones() -> None:
    windows = {row.label: row for row in shipped_rows(WINDOWS)}
    one = windows["decode 16/512 64 users"]
    assert one.output_j == pytest.approx(8482 / 111469, rel=1e-5)
    assert one.throughput == pytest.approx(111469 / 14, rel=1e-5)
    assert windows["prefill 2048/1 16 users"].prompt_j == pytest.approx(9769 / 589824, rel=1e-5)
