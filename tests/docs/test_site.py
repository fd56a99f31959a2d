"""The documentation site builds without a warning: pages, links, anchors, and the Python API."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT

from inference_energy.api.load_test.settings import LoadTest, PowerLog

pytestmark = pytest.mark.slow


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "index.html").read_text()
    for host in ("fonts.googleapis.com", "unpkg.com", "cdn.jsdelivr.net"):
        assert host not in page, f"a reader's browser would fetch from {host}"

    api = (tmp_path / "site/reference/python-api/index.html").read_text()
    _, _, fields = api.partition('id="inference_energy.api.load_test.settings.LoadTest"')
    shown = html.unescape(re.sub(r"<[^>]+>", "", fields))
    for model in (LoadTest, PowerLog):
        for name, field in model.model_fields.items():
            assert f'id="inference_energy.api.load_test.settings.{model.__name__}.{name}"' in fields
            # Without its first letter, which the page writes large, and the marks of code.
            assert str(field.description)[1:].replace("`", "") in " ".join(shown.split())
    assert re.search(r"duration_s\s*:\s*float\s*=\s*600\.0", shown), "type and default"


def test_files_outside_the_site_link_to_existing_pages() -> None:
    """MkDocs checks the links below docs/; this checks those of the README and of CONTRIBUTING."""
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_code_and_configurations_name_existing_pages() -> None:
    folders = ("src", "tests", "workflow", "config", "scripts", "benchmarks", "envs", "profiles")
    files = [
        ROOT / "Makefile",
        ROOT / "config.yaml",
        *(path for name in folders for path in (ROOT / name).rglob("*.*")),
    ]
    for file in files:
        if file.suffix in {".pyc", ".parquet", ".arrows", ".zip", ".png"} or not file.is_file():
            continue
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(errors="ignore")):
            assert (ROOT / page).exists(), f"{file.relative_to(ROOT)} names {page}"
