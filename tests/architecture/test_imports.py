"""Which part of the package may import which, and what a measurement depends on."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inference_energy
from inference_energy.provenance.code_digest import direct_imports, reach

PACKAGE = Path(inference_energy.__file__).parent
PROJECT = Path(__file__).parents[2]
LINES_LIMIT = 500

# Part: the parts it may import, besides itself. Imports run one way:
# cli -> present -> {metrics, estimate} -> analysis -> plan -> config. Acquisition and the bench stand beside,
# tied to the rest by the data contracts alone. The stages run all of them. Provenance recomputes summaries, and
# validation puts the bench through the stages, so both stand above these.
_BASE = {"contracts", "errors"}
_PLAN = {"config", *_BASE}
_ANALYSIS = {"plan", *_PLAN}
_RESULTS = {"analysis", *_ANALYSIS}
_PRESENT = {"metrics", "estimate", *_RESULTS}
ALLOWED = {
    "errors": set(),
    "contracts": {"errors"},
    "config": _BASE,
    "plan": _PLAN,
    "analysis": _ANALYSIS,
    "metrics": _RESULTS,
    "estimate": _RESULTS,
    "present": _PRESENT,
    "stages": {"acquire", "metrics", "estimate", *_RESULTS},
    "provenance": {"stages", "present", *_PRESENT},
    "acquire": {"config", *_BASE},
    "bench": _BASE,
    "validation": {"bench", "stages", *_RESULTS},
    "api": {"acquire", "bench", "present", "provenance", "stages", "validation", *_PRESENT},
    "cli": {"acquire", "api", "bench", "present", "provenance", "stages", "validation", *_PRESENT},
}

SESSION = "inference_energy.acquire.session.run"
MEASURING = {"acquire", "contracts", "errors"}
# Names in code whose effects the digest cannot follow, see `code_digest`.
NOT_FOLLOWED = {"__doc__", "__import__", "__init_subclass__", "__subclasses__", "getdoc"}


def modules() -> list[str]:
    names = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def source(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def forbidden(module: str, imported: frozenset[str]) -> list[str]:
    """What a module imports though it must not; the root, which holds the version, is open to all."""
    mine = part(module)
    if mine not in ALLOWED:
        return [f"{mine} is not in ALLOWED: say there what it may import"]
    return sorted(name for name in imported if part(name) and part(name) not in {mine, *ALLOWED[mine]})


@pytest.mark.parametrize("module", [name for name in modules() if part(name)])
def test_imports_run_one_way(module: str) -> None:
    assert forbidden(module, direct_imports(module)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("inference_energy.acquire.session.run", "inference_energy.plan.cells"),
        ("inference_energy.acquire.power.base", "inference_energy.provenance.code_digest"),
        ("inference_energy.contracts.io", "inference_energy.config.root"),
        ("inference_energy.analysis.fit.models", "inference_energy.metrics.sci"),
        ("inference_energy.plan.cells", "inference_energy.analysis.idle"),
        ("inference_energy.analysis.footprint", "inference_energy.present.page"),
        ("inference_energy.present.page", "inference_energy.cli.main"),
        ("inference_energy.bench.engine", "inference_energy.acquire.power.base"),
        ("inference_energy.novel.thing", "inference_energy.errors"),
    ],
)
def test_the_check_finds_an_import_against_the_direction(module: str, imported: str) -> None:
    assert forbidden(module, frozenset({imported}))


def test_the_root_imports_the_api_alone_and_only_when_it_is_used() -> None:
    assert {part(module) for module in direct_imports("inference_energy")} <= {"api"}
    code = "import sys, inference_energy; print(*[name for name in sys.modules if 'energy.' in name])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded.split() == []


def test_the_root_exports_what_it_says() -> None:
    for name in inference_energy.__all__:
        assert getattr(inference_energy, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        inference_energy.no_such_name  # noqa: B018


def test_the_digest_stands_alone() -> None:
    """Else an edit of code that it imports could change how it reads that very code."""
    for module in modules():
        if module.startswith("inference_energy.provenance.code_"):
            assert all(name.startswith("inference_energy.provenance.code_") for name in direct_imports(module))


def test_a_measurement_depends_on_measuring_code_alone() -> None:
    """A reader of results who edits analysis, pages or commands repeats no measurement."""
    reached = reach(SESSION).definitions
    settings = {
        f"inference_energy.config{name}" for name in ("", ".base", ".load", ".load.client", ".power", ".servers")
    }
    assert {part(module) for module in reached.keys() - settings} <= MEASURING
    assert {"inference_energy.acquire.load.worker_pool", "inference_energy.acquire.power.sampler"} <= reached.keys()


def test_a_measurement_depends_on_no_progress_display() -> None:
    displays = {module for module in modules() if "\nAFFECTS_RESULTS = False\n" in source(module).read_text()}
    assert "inference_energy.acquire.session.live_stats" in displays
    assert displays.isdisjoint(reach(SESSION).definitions)


@pytest.mark.parametrize("module", [name for name in modules() if part(name) in {*MEASURING, "analysis", "metrics"}])
def test_results_come_from_code_that_the_digest_can_follow(module: str) -> None:
    names = {
        getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(ast.parse(source(module).read_text()))
    }
    assert names & NOT_FOLLOWED == set()


def test_package_init_files_hold_a_docstring_only() -> None:
    """Every module's digest holds those of the packages around it, so code there would tie all modules together."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(PACKAGE)} lacks a docstring"
        # The root holds the version and the names of the API; no digest holds it.
        assert not body[1:] or path.parent == PACKAGE, f"{path.relative_to(PACKAGE)} holds code"


def test_no_source_file_is_too_long() -> None:
    files = [path for name in ("src", "tests", "workflow", "scripts") for path in (PROJECT / name).rglob("*")]
    sources = [path for path in files if path.suffix in {".py", ".smk", ".j2"}] + [PROJECT / "Snakefile"]
    lines = {path.relative_to(PROJECT): len(path.read_text().splitlines()) for path in sources if path.is_file()}
    assert {path: count for path, count in lines.items() if count > LINES_LIMIT} == {}
