"""The digest follows the names that code uses, and is blind to prose."""

import ast
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.provenance.rewording import reword_package

import inference_energy
from inference_energy.provenance import code_digest
from inference_energy.provenance.code_digest import digest, direct_imports, file_digest, reach
from inference_energy.provenance.code_units import Origin, parse_units
from inference_energy.stages.registry import STAGES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

FILES = {
    "__init__.py": '"""Root."""\nVERSION = "1"\n',
    "main.py": "import json\nfrom sample.deep import first\nfrom .deep.second import value\n"
    "def run():\n    return first.scaled(value), json.dumps({})\n",
    "lazy.py": "def work():\n    from sample.deep.inner import third\n    return third.C\n",
    "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sample.plain import A\n"
    "    from sample.deep.inner.third import Shape\n"
    "def area(shape: 'Shape') -> 'A':\n    return shape.area()\n",
    "starred.py": "from .plain import *\n",
    "passed.py": "from sample import plain\ndef read(name):\n    return getattr(plain, name)\n",
    "started.py": "MODULE = 'sample.deep.inner.third'\ndef start():\n    return ['python', '-m', MODULE]\n",
    "named.py": "STAGE = 'sample.plain:A'\n",
    "plain.py": "A = 1\nUNUSED = 2\n",
    "other.py": "B = 2\n",
    "acting.py": "import sys\nREGISTRY = {}\ndef register(name):\n    REGISTRY[name] = 1\n    return name\n"
    "register('one')\nKEPT = register('two')\nFREE = len('three')\n@register\ndef four():\n    return 4\n"
    "def five():\n    return 5\nif __name__ == '__main__':\n    sys.exit(five())\n",
    "acted.py": "import sample.acting\nX = 1\n",
    "display.py": "AFFECTS_RESULTS = False\nfrom sample.plain import A\nWIDTH = 80\ndef show(x):\n    return A\n",
    "showing.py": "from sample.display import show\ndef work():\n    return show(3)\n",
    "ring.py": "from . import gnir\ndef a():\n    return gnir.b\n",
    "gnir.py": "import sample.ring as ring\ndef b():\n    return ring.a\n",
    "broken.py": "from sample.nowhere import thing\n",
    "above.py": "from ... import thing\n",
    "latin.py": "def (:\n",
    "deep/__init__.py": '"""Deep."""\n',
    "deep/first.py": "from .. import plain\ndef scaled(x, factor=3):\n    return x * factor * plain.A\n"
    "def unused():\n    return 'unused'\n",
    "deep/second.py": "from ..plain import A\nvalue = A\n",
    "deep/inner/__init__.py": "",
    "deep/inner/third.py": "C = 3\nclass Shape:\n    def area(self):\n        return 2\n",
    "page/__init__.py": "",
    "page/report.py": "from importlib.resources import files\nD = 4\ndef page():\n"
    "    return files('sample.page').joinpath('templates/report.html.j2').read_text()\n",
    "page/table.py": "from pathlib import Path\ndef rows(name):\n    return Path('data', name)\n",
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


def changes(package: Path, entry: str, path: str, old: str, new: str) -> bool:
    """Whether the digest of an entry changes with a text in a file, which is put back."""
    file = package / path
    before, content = digest(entry), file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))
    after = digest(entry)
    file.write_text(content)
    return after != before


def test_only_definitions_that_are_used_are_reached(package: Path) -> None:
    assert reach("sample.main").definitions == {
        "sample.main": {"run"},
        "sample.deep.first": {"scaled"},
        "sample.deep.second": {"value"},
        "sample.plain": {"A"},
    }


def test_an_entry_may_be_one_definition(package: Path) -> None:
    assert reach("sample.deep.first:unused").definitions == {"sample.deep.first": {"unused"}}
    assert digest("sample.plain:A") != digest("sample.plain")


def test_several_entries_give_the_union(package: Path) -> None:
    both = reach("sample.main", "sample.other").definitions
    assert both == reach("sample.main").definitions | {"sample.other": {"B"}}
    assert digest("sample.main", "sample.other") == digest("sample.other", "sample.main") != digest("sample.main")


@pytest.mark.parametrize(
    ("entry", "module", "names"),
    [
        ("sample.lazy", "sample.deep.inner.third", {"C"}),
        ("sample.typed", "sample.deep.inner.third", {"Shape"}),
        ("sample.starred", "sample.plain", {"A", "UNUSED"}),
        ("sample.passed", "sample.plain", {"A", "UNUSED"}),
        ("sample.started", "sample.deep.inner.third", {"C", "Shape"}),
        ("sample.named", "sample.plain", {"A"}),
        ("sample.ring", "sample.gnir", {"b"}),
        ("sample.acted:X", "sample.acting", {"KEPT", "REGISTRY", "four", "register"}),
        ("sample.acting", "sample.acting", {"FREE", "KEPT", "REGISTRY", "five", "four", "register"}),
    ],
)
def test_names_are_followed_and_where_they_are_unsure_the_whole_module(
    package: Path, entry: str, module: str, names: set[str]
) -> None:
    assert reach(entry).definitions[module] == names


def test_a_result_type_that_only_annotates_is_not_followed(package: Path) -> None:
    assert "sample.plain" not in reach("sample.typed").definitions


def test_what_declares_itself_outside_of_results_is_not_followed(package: Path) -> None:
    assert set(reach("sample.showing").definitions) == {"sample.showing"}
    assert not changes(package, "sample.showing", "display.py", "return A", "return 2 * A")
    assert changes(package, "sample.showing", "showing.py", "show(3)", "show(4)")


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("deep/first.py", "factor=3", "factor=4", True),
        ("deep/first.py", "x * factor", "x + factor", True),
        ("deep/first.py", "'unused'", "'never used'", False),
        ("deep/first.py", "def scaled", "# a comment\n\n\ndef scaled", False),
        ("deep/first.py", "def scaled(x, factor=3):\n", "def scaled(x: int, factor: float = 3) -> float:\n", False),
        ("deep/first.py", "def scaled(x, factor=3):\n", 'def scaled(x, factor=3):\n    """Scale."""\n', False),
        ("deep/first.py", "return x * factor * plain.A", "return ((x * factor)\n        * plain.A)", False),
        ("deep/second.py", "value = A", "value: int = A", False),
        ("deep/second.py", "value = A", "value = A\nother = A", False),
        ("plain.py", "A = 1", "A = 2", True),
        ("plain.py", "UNUSED = 2", "UNUSED = 3", False),
        ("plain.py", "UNUSED = 2", "UNUSED = 2\nA = 5", True),
        ("plain.py", "UNUSED = 2", "UNUSED = 2\nprint(A)", True),
        ("deep/__init__.py", "Deep.", "Deeper.", False),
        ("deep/__init__.py", '"""Deep."""', "import os\nos.umask(0)", True),
        ("main.py", "import json", "import simplejson as json", True),
        ("other.py", "B = 2", "B = 3", False),
        ("deep/inner/third.py", "C = 3", "C = 4", False),
        ("__init__.py", 'VERSION = "1"', 'VERSION = "2"', False),
    ],
)
def test_code_that_is_reached_counts_and_nothing_else(
    package: Path, path: str, old: str, new: str, expected: bool
) -> None:
    assert changes(package, "sample.main", path, old, new) is expected


def test_definitions_may_change_places(package: Path) -> None:
    before = digest("sample.deep.inner.third")
    constant, shape = FILES["deep/inner/third.py"].split("class", 1)
    (package / "deep/inner/third.py").write_text(f"class{shape}{constant}")
    assert digest("sample.deep.inner.third") == before


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


def test_renaming_a_module_changes_the_digest(package: Path) -> None:
    before = digest("sample.deep.first")
    (package / "plain.py").rename(package / "simple.py")
    (package / "deep" / "first.py").write_text(FILES["deep/first.py"].replace("plain", "simple"))
    assert digest("sample.deep.first") != before


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("sample.page.report", "sample/page/templates/report.html.j2"),
        ("sample.page.table:rows", "sample/page/data/table.csv"),
    ],
)
def test_files_that_code_names_count(package: Path, entry: str, file: str) -> None:
    assert reach(entry).files == {file}
    before = digest(entry), digest("sample.page.report:D")
    (package.parent / file).write_text("changed\n")
    assert digest(entry) != before[0]
    assert digest("sample.page.report:D") == before[1]


def test_cycles_terminate(package: Path) -> None:
    assert reach("sample.ring").definitions == {"sample.ring": {"a"}, "sample.gnir": {"b"}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("sample.absent", "sample.absent"),
        ("sample.deep.absent", "sample.deep.absent"),
        ("sample.plain:Z", "no Z in the module sample.plain"),
        ("sample.broken", "sample.nowhere, which sample.broken imports"),
        ("sample.above", "sample.above, line 1"),
        ("sample.latin", "sample.latin is not Python"),
        ("sample", "sample is a package"),
        ("sample.deep", "sample.deep is a package"),
        ("no_such_package_anywhere.module", "no_such_package_anywhere"),
    ],
)
def test_what_cannot_be_found_is_an_error_that_names_it(package: Path, entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digest(entry)


def test_direct_imports_are_of_the_own_package_only(package: Path) -> None:
    assert direct_imports("sample.main") == {"sample.deep.first", "sample.deep.second"}
    assert direct_imports("sample.typed") == {"sample.plain", "sample.deep.inner.third"}


def test_nothing_is_imported(package: Path) -> None:
    (package / "plain.py").write_text("A = 1\nraise RuntimeError('imported')\n")
    assert "sample.plain" in reach("sample.main").definitions
    assert "sample.plain" not in sys.modules
    assert "sample" not in sys.modules


def unit_of(source: str) -> tuple[str, frozenset[tuple[str, ...]]]:
    """What the last top-level statement says and refers to."""
    content = parse_units(source.encode(), Origin("sample.made", "sample")).units[-1].content
    return content.dump, content.chains


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("raise ValueError('few')", "raise ValueError(f'{len(x)} are' + ' few')"),
        ("raise RunError('few: ' + why(x)) from x", "raise RunError('%s' % x) from x"),
        ("log.info('begins', x)", "pass"),
        ("self.progress.begin('launch')", "self.progress.begin('start')"),
        ("x.add_note('kept')", "x.add_note('is kept')"),
        ("print('late', file=sys.stderr)", "print('is late', file=sys.stderr, flush=True)"),
        ("return Field(1.0, description='a', ge=0)", "return Field(1.0, ge=0, description='b')"),
        ("parser.add_argument('--x', help='a')", "parser.add_argument('--x', help='b')"),
        ("y: int = 1", "y = 1"),
    ],
)
def test_prose_does_not_count(one: str, other: str) -> None:
    assert unit_of(f"def f(self, x):\n    {one}\n")[0] == unit_of(f"def f(self, x):\n    {other}\n")[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("raise ValueError(3)", "raise ValueError(4)"),
        ("raise ValueError('few')", "raise TypeError('few')"),
        ("print('ready')", "print('started')"),
        ("log.write('a')", "log.write('b')"),
        ("log.info(await x.one())", "log.info(await x.two())"),
        ("return Reason('gap', 'a gap')", "return Reason('gap', 'a hole')"),
        ("return Field(1.0, ge=0)", "return Field(1.0, ge=1)"),
        ("return 1", "return 1.0"),
        ("return 1", "return True"),
        ("return '1'", "return b'1'"),
        ("return x[1:]", "return x[:1]"),
        ("return [a, [b]]", "return [[a], b]"),
        ("return a - b", "return b - a"),
        ("return a.b.c", "return a.b"),
    ],
)
def test_what_code_does_counts(one: str, other: str) -> None:
    assert unit_of(f"async def f(self, x):\n    {one}\n")[0] != unit_of(f"async def f(self, x):\n    {other}\n")[0]


@pytest.mark.parametrize(
    ("body", "roots"),
    [
        ("x = 1\n    return x + y", {"y"}),
        ("return [g for g in items]", {"items"}),
        ("return [items for items in items]", {"items"}),
        ("return [g for g in items], g(1)", {"g", "items"}),
        ("return lambda g: g + h", {"h"}),
        ("global g\n    g = 1", {"g"}),
        ("def inner(a):\n        return a + b\n    return inner", {"b"}),
        ("class C:\n        size = 1\n        def m(self):\n            return size\n    return C", {"size"}),
        ("try:\n        pass\n    except E as e:\n        raise e", {"E"}),
        ("raise ValueError(f'{g}')", {"ValueError"}),
        ("return (h := k) + h", {"k"}),
    ],
)
def test_local_names_are_not_global_ones(body: str, roots: set[str]) -> None:
    assert {chain[0] for chain in unit_of(f"def f():\n    {body}\n")[1]} == roots


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=40)


@given(texts, texts)
def test_any_docstring_and_comment_leaves_the_digest(docstring: str, comment: str) -> None:
    bare = "def f(x):\n    return x\n"
    spoken = f"def f(x):\n    {docstring!r}\n    # {comment}\n    return x\n"
    assert unit_of(spoken)[0] == unit_of(bare)[0]


constants = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.binary(), texts)


@given(constants, constants)
def test_constants_are_told_apart(one: object, other: object) -> None:
    same = unit_of(f"X = {one!r}")[0] == unit_of(f"X = {other!r}")[0]
    assert same is (repr(one) == repr(other))


def rules() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each rule's name and the entries of its digest."""
    yield from ((stage.name, stage.digest_entries) for stage in STAGES.values())
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            for call in re.findall(r"code=digest\(([^)]*)\)", rule):
                yield rule.partition(":")[0], tuple(re.findall(r'"([^"]+)"', call))


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that the digest looks at in place of this one."""
    folder = tmp_path / "inference_energy"
    shutil.copytree(Path(inference_energy.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "_package_folder", lambda _: folder)
    return folder


def test_other_words_in_every_file_of_the_package_rerun_no_rule(copied: Path) -> None:
    before = {rule: digest(*entries) for rule, entries in rules()}
    assert {"session", "idle_baseline", "integrate", "report"} <= before.keys()
    assert reword_package(copied) > 1000
    assert {rule: digest(*entries) for rule, entries in rules()} == before


def test_other_words_in_a_script_leave_its_digest(tmp_path: Path) -> None:
    before = {}
    for path in (ROOT / "scripts").glob("*.py"):
        copied = tmp_path / path.name
        copied.write_text(path.read_text())
        before[copied] = file_digest(copied)
    assert reword_package(tmp_path) > 0
    assert {path: file_digest(path) for path in before} == before
    for path, value in before.items():
        path.write_text(path.read_text() + "\nprint()\n")
        assert file_digest(path) != value


def numbers_of(node: ast.AST) -> list[ast.Constant]:
    """The numbers in a definition, in the order of the tree."""
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.Constant) and type(inner.value) in (int, float)]


def has_numbers_outside_of_prose(node: ast.AST) -> bool:
    """Whether a definition has numbers, all of which count."""
    spoken = [inner for inner in ast.walk(node) if isinstance(inner, ast.Raise | ast.JoinedStr)]
    return bool(numbers_of(node)) and not any(numbers_of(inner) for inner in spoken)


def test_a_changed_number_anywhere_in_what_a_session_uses_repeats_it(copied: Path) -> None:
    entries = dict(rules())["session"]
    before, definitions = digest(*entries), reach(*entries).definitions
    sites = []
    for module, names in sorted(definitions.items()):
        path = copied.parent.joinpath(*module.split(".")).with_suffix(".py")
        nodes = ast.parse(path.read_text()).body if path.exists() else []
        used = [node for node in nodes if getattr(node, "name", None) in names]
        sites += [(path, nodes.index(node)) for node in used if has_numbers_outside_of_prose(node)]
    assert len(sites) > 100
    for path, position in random.Random(1).sample(sites, 30):
        content = path.read_text()
        tree = ast.parse(content)
        numbers_of(tree.body[position])[-1].value += 1
        path.write_text(ast.unparse(tree))
        assert digest(*entries) != before, f"{path.name}: {ast.unparse(tree.body[position])}"
        path.write_text(content)
    assert digest(*entries) == before
