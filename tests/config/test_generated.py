"""What is generated from the models stands in step with them."""

from pathlib import Path

import yaml

from inference_energy.config.docgen import json_schema, markdown, recommented
from inference_energy.config.root import Config
from inference_energy.contracts.files_page import files_page
from inference_energy.present.doc_pages import reasons_page

ROOT = Path(__file__).parents[2]
BASE = ROOT / "config.yaml"
HINT = "run `make docs`"


def test_comments_of_the_shipped_configurations() -> None:
    for path in (BASE, *sorted((ROOT / "config").glob("*.yaml"))):
        assert path.read_text() == recommented(path, BASE), HINT


def test_schema_and_page() -> None:
    assert (ROOT / "workflow/schemas/config.schema.json").read_text() == json_schema(), HINT
    assert (ROOT / "docs/reference/configuration.md").read_text() == markdown(), HINT


def test_commenting_keeps_values_and_head(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# my head\n" + yaml.safe_dump(yaml.safe_load(BASE.read_text())))
    text = recommented(path, path)
    assert text.startswith("# my head\n")
    assert yaml.safe_load(text) == yaml.safe_load(BASE.read_text())
    path.write_text(text)
    assert recommented(path, path) == text


def test_every_key_has_a_description() -> None:
    def undescribed(schema: dict[str, object]) -> list[str]:
        definitions = {"Config": schema, **schema["$defs"]}
        return [
            f"{name}.{key}"
            for name, definition in definitions.items()
            for key, field in definition.get("properties", {}).items()
            if "description" not in field and "const" not in field
        ]

    assert undescribed(Config.model_json_schema()) == []


def test_files() -> None:
    assert (ROOT / "docs/reference/files.md").read_text() == files_page(), HINT


def test_reason_codes() -> None:
    assert (ROOT / "docs/reference/reasons.md").read_text() == reasons_page(), HINT
