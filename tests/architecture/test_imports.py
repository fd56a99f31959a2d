"""Which part of the package may import which, and what a measurement depends on."""

import ast
from pathlib import Path

import pytest

import inference_energy
from inference_energy.provenance.code_digest import closure, direct_imports

PACKAGE = Path(inference_energy.__file__).parent
PROJECT = Path(__file__).parents[2]
LINES_LIMIT = 500

# Part: the parts it may import, besides itself. Imports run one way:
# cli -> present -> {metrics, impact, estimate} -> analysis -> plan -> config. Acquisition and the bench stand beside,
# tied to the rest by the data contracts alone. Provenance recomputes summaries, so it stands above impact; validation
# puts the bench through all of them.
_BASE = {"contracts", "errors"}
_PLAN = {"config", *_BASE}
_ANALYSIS = {"plan", *_PLAN}
_RESULTS = {"analysis", *_ANALYSIS}
_PRESENT = {"metrics", "impact", "estimate", *_RESULTS}
ALLOWED = {
    "errors": set(),
    "contracts": {"errors"},
    "config": _BASE,
    "plan": _PLAN,
    "analysis": _ANALYSIS,
    "metrics": _RESULTS,
    "impact": _RESULTS,
    "estimate": _RESULTS,
    "present": _PRESENT,
    "provenance": {"metrics", "impact", "estimate", *_RESULTS},
    "acquire": {"config", *_BASE},
    "bench": _BASE,
    "validation": {"bench", "impact", *_RESULTS},
    "cli": {"acquire", "bench", "present", "provenance", "validation", *_PRESENT},
}

SESSION = "inference_energy.acquire.session.run"
# Editing any of these repeats every measurement, for the rule `session` has their digest among its parameters. Before
# you add one, ask whether measuring truly depends on it; a helper that acquisition and analysis share does not belong
# here, nor does anything of the configuration.
SESSION_CLOSURE = [
    "inference_energy.acquire",
    "inference_energy.acquire.gpus",
    "inference_energy.acquire.load",
    "inference_energy.acquire.load.http",
    "inference_energy.acquire.load.http.client",
    "inference_energy.acquire.load.http.request",
    "inference_energy.acquire.load.http.sse",
    "inference_energy.acquire.load.http.transport",
    "inference_energy.acquire.load.http.transport_aiohttp",
    "inference_energy.acquire.load.http.transport_httptools",
    "inference_energy.acquire.load.live_counts",
    "inference_energy.acquire.load.loops",
    "inference_energy.acquire.load.pacer",
    "inference_energy.acquire.load.request_log",
    "inference_energy.acquire.load.schedule_partition",
    "inference_energy.acquire.load.settings",
    "inference_energy.acquire.load.worker",
    "inference_energy.acquire.load.worker_main",
    "inference_energy.acquire.load.worker_pool",
    "inference_energy.acquire.load.worker_runtime",
    "inference_energy.acquire.power",
    "inference_energy.acquire.power.base",
    "inference_energy.acquire.power.characterize",
    "inference_energy.acquire.power.characterize.averaging_window",
    "inference_energy.acquire.power.characterize.gpu",
    "inference_energy.acquire.power.characterize.measure",
    "inference_energy.acquire.power.characterize.profile",
    "inference_energy.acquire.power.characterize.sensor_timing",
    "inference_energy.acquire.power.characterize.square_wave",
    "inference_energy.acquire.power.choose",
    "inference_energy.acquire.power.credentials",
    "inference_energy.acquire.power.polling",
    "inference_energy.acquire.power.power_log",
    "inference_energy.acquire.power.reconnect",
    "inference_energy.acquire.power.sampler",
    "inference_energy.acquire.power.sampler_handle",
    "inference_energy.acquire.power.settings",
    "inference_energy.acquire.power.simulated",
    "inference_energy.acquire.power.sources",
    "inference_energy.acquire.power.sources.amd_smi",
    "inference_energy.acquire.power.sources.cputime",
    "inference_energy.acquire.power.sources.dcgm",
    "inference_energy.acquire.power.sources.dcgm_feeds",
    "inference_energy.acquire.power.sources.gpu_selection",
    "inference_energy.acquire.power.sources.http",
    "inference_energy.acquire.power.sources.ipmi",
    "inference_energy.acquire.power.sources.modelled",
    "inference_energy.acquire.power.sources.nvidia_smi",
    "inference_energy.acquire.power.sources.nvml",
    "inference_energy.acquire.power.sources.nvml.device",
    "inference_energy.acquire.power.sources.nvml.power",
    "inference_energy.acquire.power.sources.nvml.processes",
    "inference_energy.acquire.power.sources.nvml.source",
    "inference_energy.acquire.power.sources.pcm_power",
    "inference_energy.acquire.power.sources.pdu",
    "inference_energy.acquire.power.sources.rapl",
    "inference_energy.acquire.power.sources.redfish",
    "inference_energy.acquire.power.sources.sanity",
    "inference_energy.acquire.power.sources.smart_plug",
    "inference_energy.acquire.power.sources.tools",
    "inference_energy.acquire.power.stuck",
    "inference_energy.acquire.server",
    "inference_energy.acquire.server.attach",
    "inference_energy.acquire.server.guardian",
    "inference_energy.acquire.server.guardian_client",
    "inference_energy.acquire.server.launch",
    "inference_energy.acquire.server.locks",
    "inference_energy.acquire.server.metrics",
    "inference_energy.acquire.server.preflight",
    "inference_energy.acquire.server.settings",
    "inference_energy.acquire.session",
    "inference_energy.acquire.session.live_stats",
    "inference_energy.acquire.session.load_phase",
    "inference_energy.acquire.session.measurement",
    "inference_energy.acquire.session.run",
    "inference_energy.acquire.session.server",
    "inference_energy.acquire.session.settings",
    "inference_energy.config",
    "inference_energy.config.base",
    "inference_energy.config.load",
    "inference_energy.config.load.client",
    "inference_energy.contracts",
    "inference_energy.contracts.engine_metrics",
    "inference_energy.contracts.io",
    "inference_energy.contracts.load_client",
    "inference_energy.contracts.phases",
    "inference_energy.contracts.power",
    "inference_energy.contracts.requests",
    "inference_energy.contracts.schedule",
    "inference_energy.contracts.server_metrics",
    "inference_energy.errors",
]


def modules() -> list[str]:
    names = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


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
        ("inference_energy.analysis.fit.models", "inference_energy.impact.footprint"),
        ("inference_energy.plan.cells", "inference_energy.analysis.idle"),
        ("inference_energy.impact.footprint", "inference_energy.present.page"),
        ("inference_energy.present.page", "inference_energy.cli.main"),
        ("inference_energy.bench.engine", "inference_energy.acquire.power.base"),
        ("inference_energy.novel.thing", "inference_energy.errors"),
    ],
)
def test_the_check_finds_an_import_against_the_direction(module: str, imported: str) -> None:
    assert forbidden(module, frozenset({imported}))


def test_the_root_imports_nothing_of_the_package() -> None:
    assert direct_imports("inference_energy") == frozenset()


def test_codehash_stands_alone() -> None:
    assert closure("inference_energy.provenance.code_digest") == {
        "inference_energy.provenance",
        "inference_energy.provenance.code_digest",
    }


def test_what_a_measurement_depends_on() -> None:
    assert sorted(closure(SESSION)) == SESSION_CLOSURE


def test_package_init_files_hold_a_docstring_only() -> None:
    """Every module's digest holds those of the packages around it, so code there would tie all modules together."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(PACKAGE)} lacks a docstring"
        rest = body[1:]
        if path.parent == PACKAGE:
            rest = [node for node in rest if not _sets_version(node)]
        assert not rest, f"{path.relative_to(PACKAGE)} holds code"


def test_no_source_file_is_too_long() -> None:
    files = [path for name in ("src", "tests", "workflow", "scripts") for path in (PROJECT / name).rglob("*")]
    sources = [path for path in files if path.suffix in {".py", ".smk", ".j2"}] + [PROJECT / "Snakefile"]
    lines = {path.relative_to(PROJECT): len(path.read_text().splitlines()) for path in sources if path.is_file()}
    assert {path: count for path, count in lines.items() if count > LINES_LIMIT} == {}


def _sets_version(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]
