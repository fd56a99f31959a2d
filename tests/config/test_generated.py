"""What is generated from the models stands in step with them."""

import json
import re
from pathlib import Path

import yaml

from inference_energy.config.docgen import json_schema, markdown, recommented
from inference_energy.config.root import Config
from inference_energy.present.doc_pages import reasons_page
from inference_energy.present.files_page import files_page

ROOT = Path(__file__).parents[2]
BASE = ROOT / "config.yaml"
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
HINT = "run `make docs`"


def test_comments_of_the_shipped_configurations() -> None:
    for path in (BASE, *sorted((ROOT / "config").glob("*.yaml"))):
        assert path.read_text() == recommented(path, BASE, SCHEMA), HINT


def test_schema_and_page() -> None:
    assert SCHEMA.read_text() == json_schema(), HINT
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


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    page = markdown()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors)
    assert {"`analysis`", "`windows.*`", "`windows.*.arrival` with process: poisson"} <= set(headings)


def test_editors_find_the_schema_and_need_no_key_that_another_file_has() -> None:
    for path in (BASE, *sorted((ROOT / "config").glob("*.yaml"))):
        named = path.read_text().splitlines()[0].partition("$schema=")[2]
        assert (path.parent / named).resolve() == SCHEMA
    assert "required" not in json.loads(json_schema())
