"""The digest follows what a module imports, and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference_energy.provenance.code_digest import closure, digest, direct_imports

FILES = {
    "__init__.py": '"""Root."""\nVERSION = "1"\n',
    "main.py": "import json\nfrom sample.deep import first\nfrom .deep.second import value\n",
    "lazy.py": "def work():\n    from sample.deep.inner import third\n    return third\n",
    "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sample.plain import A\n",
    "starred.py": "from .plain import *\n",
    "plain.py": "A = 1\n",
    "other.py": "B = 2\n",
    "ring.py": "from . import gnir\n",
    "gnir.py": "import sample.ring as ring\n",
    "broken.py": "from sample.nowhere import thing\n",
    "above.py": "from ... import thing\n",
    "latin.py": "def (:\n",
    "deep/__init__.py": '"""Deep."""\n',
    "deep/first.py": "from .. import plain\n",
    "deep/second.py": "from ..plain import A\nvalue = A\n",
    "deep/inner/__init__.py": "",
    "deep/inner/third.py": "C = 3\n",
    "page/__init__.py": "",
    "page/report.py": "D = 4\n",
    "page/templates/report.html.j2": "<p>{{ text }}</p>\n",
    "page/data/table.csv": "a,b\n1,2\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here" / "sample"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_closure_holds_what_is_imported_and_the_sub_packages_but_not_the_root(package: Path) -> None:
    inside = {"sample.main", "sample.deep", "sample.deep.first", "sample.deep.second", "sample.plain"}
    assert closure("sample.main") == inside


def test_several_modules_give_the_union(package: Path) -> None:
    assert closure("sample.main", "sample.other") == closure("sample.main") | {"sample.other"}
    assert digest("sample.main", "sample.other") == digest("sample.other", "sample.main") != digest("sample.main")


@pytest.mark.parametrize(
    ("module", "sees"),
    [
        ("sample.lazy", "sample.deep.inner.third"),
        ("sample.lazy", "sample.deep.inner"),
        ("sample.lazy", "sample.deep"),
        ("sample.typed", "sample.plain"),
        ("sample.starred", "sample.plain"),
        ("sample.deep.first", "sample.plain"),
        ("sample.gnir", "sample.ring"),
    ],
)
def test_imports_are_seen_wherever_they_stand(package: Path, module: str, sees: str) -> None:
    assert sees in closure(module)


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("main.py", True),
        ("plain.py", True),
        ("deep/second.py", True),
        ("deep/__init__.py", True),
        ("other.py", False),
        ("deep/inner/third.py", False),
        ("__init__.py", False),
    ],
)
def test_only_edits_in_the_closure_change_the_digest(package: Path, edited: str, changes: bool) -> None:
    before = digest("sample.main")
    path = package / edited
    path.write_text(path.read_text() + "# a comment\n")
    assert (digest("sample.main") != before) is changes


def test_the_digest_is_16_hexadecimal_digits_and_stays(package: Path) -> None:
    value = digest("sample.main")
    assert len(value) == 16
    assert int(value, 16) >= 0
    assert digest("sample.main") == value


def test_a_package_that_moved_has_the_same_digest(package: Path, tmp_path: Path) -> None:
    shutil.move(package, tmp_path / "there" / "sample")
    program = "import sys; from inference_energy.provenance.code_digest import digest; print(digest(sys.argv[1]))"
    values = set()
    for folder in ("there", "elsewhere/again"):
        if not (tmp_path / folder).exists():
            shutil.copytree(tmp_path / "there", tmp_path / folder)
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / folder)!r}); {program}"]
        values.add(subprocess.run([*command, "sample.main"], capture_output=True, text=True, check=True).stdout)
    assert len(values) == 1


def test_renaming_a_file_of_the_closure_changes_the_digest(package: Path) -> None:
    before = digest("sample.deep.first")
    (package / "plain.py").rename(package / "simple.py")
    (package / "deep" / "first.py").write_text("from .. import simple\n")
    assert digest("sample.deep.first") != before


def test_data_beside_a_module_count(package: Path) -> None:
    before = digest("sample.page.report"), digest("sample.main")
    (package / "page" / "data" / "table.csv").write_text("a,b\n1,3\n")
    assert digest("sample.page.report") != before[0]
    assert digest("sample.main") == before[1]


def test_templates_beside_a_module_count(package: Path) -> None:
    before = digest("sample.page.report"), digest("sample.main")
    (package / "page" / "templates" / "report.html.j2").write_text("<b>{{ text }}</b>\n")
    assert digest("sample.page.report") != before[0]
    assert digest("sample.main") == before[1]


def test_cycles_terminate(package: Path) -> None:
    assert closure("sample.ring") == {"sample.ring", "sample.gnir"}


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("sample.absent", "sample.absent"),
        ("sample.deep.absent", "sample.deep.absent"),
        ("sample.broken", "sample.nowhere, which sample.broken imports"),
        ("sample.above", "sample.above, line 1"),
        ("sample.latin", "sample.latin is not Python"),
        ("sample", "sample is a package"),
        ("sample.deep", "sample.deep is a package"),
        ("no_such_package_anywhere.module", "no_such_package_anywhere"),
    ],
)
def test_what_cannot_be_found_is_an_error_that_names_it(package: Path, module: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        digest(module)


def test_direct_imports_are_of_the_own_package_only(package: Path) -> None:
    assert direct_imports("sample.main") == {"sample.deep.first", "sample.deep.second"}
    assert direct_imports("sample.typed") == {"sample.plain"}


def test_nothing_is_imported(package: Path) -> None:
    (package / "plain.py").write_text("raise RuntimeError('imported')\n")
    assert "sample.plain" in closure("sample.main")
    assert "sample.plain" not in sys.modules
    assert "sample" not in sys.modules


def test_it_imports_nothing_of_its_own_package() -> None:
    assert direct_imports("inference_energy.provenance.code_digest") == frozenset()
