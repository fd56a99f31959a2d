"""Which part of the package may import which, and what a measurement depends on."""

import ast
from pathlib import Path

import pytest

import inference_energy
from inference_energy.provenance.codehash import closure, direct_imports

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
    "acquire": _BASE,
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
    "inference_energy.acquire.load.api_key",
    "inference_energy.acquire.load.exchange",
    "inference_energy.acquire.load.exchange.answer",
    "inference_energy.acquire.load.exchange.body",
    "inference_energy.acquire.load.exchange.client",
    "inference_energy.acquire.load.exchange.events",
    "inference_energy.acquire.load.exchange.observer",
    "inference_energy.acquire.load.exchange.request",
    "inference_energy.acquire.load.exchange.settings",
    "inference_energy.acquire.load.exchange.transport",
    "inference_energy.acquire.load.exchange.transport.base",
    "inference_energy.acquire.load.exchange.transport.connection",
    "inference_energy.acquire.load.exchange.transport.general",
    "inference_energy.acquire.load.exchange.transport.plain",
    "inference_energy.acquire.load.exchange.transport.pool",
    "inference_energy.acquire.load.live",
    "inference_energy.acquire.load.log",
    "inference_energy.acquire.load.log.merge",
    "inference_energy.acquire.load.log.names",
    "inference_energy.acquire.load.log.recorder",
    "inference_energy.acquire.load.log.stream",
    "inference_energy.acquire.load.loops",
    "inference_energy.acquire.load.loops.cell",
    "inference_energy.acquire.load.loops.closed",
    "inference_energy.acquire.load.loops.conversation",
    "inference_energy.acquire.load.loops.open",
    "inference_energy.acquire.load.loops.repeat",
    "inference_energy.acquire.load.loops.sending",
    "inference_energy.acquire.load.pacer",
    "inference_energy.acquire.load.pacer.pacer",
    "inference_energy.acquire.load.pacer.timer",
    "inference_energy.acquire.load.worker",
    "inference_energy.acquire.load.worker.control",
    "inference_energy.acquire.load.worker.footprint",
    "inference_energy.acquire.load.worker.housekeeping",
    "inference_energy.acquire.load.worker.main",
    "inference_energy.acquire.load.worker.member",
    "inference_energy.acquire.load.worker.priority",
    "inference_energy.acquire.load.worker.process",
    "inference_energy.acquire.load.worker.sender",
    "inference_energy.acquire.load.worker.share",
    "inference_energy.acquire.load.worker.spec",
    "inference_energy.acquire.load.worker.team",
    "inference_energy.acquire.power",
    "inference_energy.acquire.power.base",
    "inference_energy.acquire.power.characterise",
    "inference_energy.acquire.power.characterise.profiles",
    "inference_energy.acquire.power.choose",
    "inference_energy.acquire.power.credentials",
    "inference_energy.acquire.power.deadlines",
    "inference_energy.acquire.power.polled",
    "inference_energy.acquire.power.poller",
    "inference_energy.acquire.power.process",
    "inference_energy.acquire.power.reopen",
    "inference_energy.acquire.power.sampler",
    "inference_energy.acquire.power.settings",
    "inference_energy.acquire.power.simulated",
    "inference_energy.acquire.power.sources",
    "inference_energy.acquire.power.sources.amd_smi",
    "inference_energy.acquire.power.sources.averaging",
    "inference_energy.acquire.power.sources.cputime",
    "inference_energy.acquire.power.sources.dcgm",
    "inference_energy.acquire.power.sources.dcgm_feeds",
    "inference_energy.acquire.power.sources.http",
    "inference_energy.acquire.power.sources.ipmi",
    "inference_energy.acquire.power.sources.modelled",
    "inference_energy.acquire.power.sources.nvidia_smi",
    "inference_energy.acquire.power.sources.nvml",
    "inference_energy.acquire.power.sources.nvml.device",
    "inference_energy.acquire.power.sources.nvml.errors",
    "inference_energy.acquire.power.sources.nvml.mig",
    "inference_energy.acquire.power.sources.nvml.power",
    "inference_energy.acquire.power.sources.nvml.processes",
    "inference_energy.acquire.power.sources.nvml.samples",
    "inference_energy.acquire.power.sources.nvml.source",
    "inference_energy.acquire.power.sources.pcm_power",
    "inference_energy.acquire.power.sources.pdu",
    "inference_energy.acquire.power.sources.plausible",
    "inference_energy.acquire.power.sources.rapl",
    "inference_energy.acquire.power.sources.redfish",
    "inference_energy.acquire.power.sources.redfish_login",
    "inference_energy.acquire.power.sources.selection",
    "inference_energy.acquire.power.sources.smart_plug",
    "inference_energy.acquire.power.sources.streaming",
    "inference_energy.acquire.power.sources.tool",
    "inference_energy.acquire.power.spec",
    "inference_energy.acquire.power.still",
    "inference_energy.acquire.power.stream",
    "inference_energy.acquire.server",
    "inference_energy.acquire.server.access",
    "inference_energy.acquire.server.ancestors",
    "inference_energy.acquire.server.attach",
    "inference_energy.acquire.server.endpoint",
    "inference_energy.acquire.server.environment",
    "inference_energy.acquire.server.guardian",
    "inference_energy.acquire.server.handle",
    "inference_energy.acquire.server.launch",
    "inference_energy.acquire.server.listening",
    "inference_energy.acquire.server.locks",
    "inference_energy.acquire.server.log",
    "inference_energy.acquire.server.metrics",
    "inference_energy.acquire.server.metrics_log",
    "inference_energy.acquire.server.metrics_page",
    "inference_energy.acquire.server.preflight",
    "inference_energy.acquire.server.spec",
    "inference_energy.acquire.session",
    "inference_energy.acquire.session.load",
    "inference_energy.acquire.session.partial",
    "inference_energy.acquire.session.power",
    "inference_energy.acquire.session.progress",
    "inference_energy.acquire.session.run",
    "inference_energy.acquire.session.server",
    "inference_energy.acquire.session.so_far",
    "inference_energy.acquire.session.spec",
    "inference_energy.acquire.session.watching",
    "inference_energy.contracts",
    "inference_energy.contracts.answers",
    "inference_energy.contracts.chunks",
    "inference_energy.contracts.engines",
    "inference_energy.contracts.phases",
    "inference_energy.contracts.power",
    "inference_energy.contracts.requests",
    "inference_energy.contracts.schedule",
    "inference_energy.contracts.server_metrics",
    "inference_energy.contracts.tables",
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
        ("inference_energy.acquire.session.run", "inference_energy.config.root"),
        ("inference_energy.acquire.power.base", "inference_energy.provenance.codehash"),
        ("inference_energy.contracts.tables", "inference_energy.config.root"),
        ("inference_energy.analysis.fit.stage", "inference_energy.impact.carbon"),
        ("inference_energy.plan.cells", "inference_energy.analysis.idle"),
        ("inference_energy.impact.carbon", "inference_energy.present.page"),
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
    assert closure("inference_energy.provenance.codehash") == {
        "inference_energy.provenance",
        "inference_energy.provenance.codehash",
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
