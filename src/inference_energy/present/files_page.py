"""The page of all files (docs/reference/files.md), generated from the types of the documents and the Parquet schemas.

Prose that no type holds is in `templates/files.md.j2`. The meaning of a key is its entry of `Attributes:` in the
docstring of its class, the meaning of a column its entry of `Columns of <file>:` in the docstring of its module.
"""

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from inference_energy.contracts import phases, power, receipts, requests, schedule, server_metrics
from inference_energy.contracts.documents import by_hand, energy, estimates, experiment, machine, session, windows
from inference_energy.contracts.documents.document import VERSION, Document
from inference_energy.contracts.figure import Figure, Reason

TEMPLATE = "files.md.j2"

DOCUMENTS: tuple[type[Document], ...] = (
    machine.EnvironmentDocument,
    machine.ServerEnvironmentDocument,
    machine.ModelDocument,
    session.IdleDocument,
    session.SessionDocument,
    windows.LaunchDocument,
    windows.WarmupDocument,
    windows.SteadyLoadDocument,
    energy.EnergyDocument,
    energy.CarbonDocument,
    energy.FitDocument,
    estimates.EstimatesDocument,
    experiment.MetricsDocument,
    experiment.ExperimentDocument,
    experiment.SummaryDocument,
    by_hand.LoadTestDocument,
    by_hand.LogAnalysisDocument,
)
"""Every JSON document, in the order of the page."""

TABLES: dict[str, tuple[types.ModuleType, pa.Schema]] = {
    "power.parquet": (power, power.SCHEMA),
    "requests.parquet": (requests, requests.SCHEMA),
    "chunks.parquet": (requests, requests.CHUNKS_SCHEMA),
    "answers.parquet": (requests, requests.ANSWERS_SCHEMA),
    "server_metrics.parquet": (server_metrics, server_metrics.SCHEMA),
    "phases.parquet": (phases, phases.SCHEMA),
    "prompts.parquet": (schedule, schedule.PROMPTS),
    "schedule.parquet": (schedule, schedule.SCHEDULE),
    "receipts.parquet": (receipts, receipts.SCHEMA),
}
"""Every Parquet file: the module that describes it, and its schema."""

_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null", Any: "any value"}
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


def files_page() -> str:
    """Return docs/reference/files.md."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string(files(__package__).joinpath("templates", TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        version=VERSION, columns=_column_table, documents=_document_sections(), figure=_key_table(Figure, {})
    )


def meanings(docstring: str | None, heading: str) -> dict[str, str]:
    """Return the meanings under a heading of a docstring, by name.

    Args:
        docstring: a docstring with an indented list of `name[, name]: meaning` under the heading.
        heading: the heading's line, such as `Attributes:`.
    """
    lines = iter(_dedented(docstring or ""))
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line == heading:
            break
    for line in lines:
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


@dataclass(frozen=True)
class _Row:
    """A key of a document: its path, type and meaning."""

    path: str
    type_name: str
    meaning: str


def _column_table(name: str) -> str:
    module, schema = TABLES[name]
    text = meanings(module.__doc__, f"Columns of {name}:")
    rows = [f"| `{field.name}` | {_arrow_name(field.type)} | {text[field.name]} |" for field in schema]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def _arrow_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow_name(kind.value_type)}"
    return {"double": "float64"}.get(str(kind), str(kind))


def _document_sections() -> str:
    """Return a section for each document; a part that an earlier document has is named and not repeated."""
    shown: dict[type[msgspec.Struct], str] = {}
    sections = []
    for document in DOCUMENTS:
        title, _, rest = inspect.cleandoc(document.__doc__ or "").partition("\n")
        more = rest.partition("Attributes:")[0].strip()
        name = document.FILE.replace("<", "\\<").replace(">", "\\>")
        sections.append("\n\n".join([f"### {name}", *filter(None, [title, more]), _key_table(document, shown)]))
    return "\n\n".join(sections)


def _key_table(kind: type[msgspec.Struct], shown: dict[type[msgspec.Struct], str]) -> str:
    file = kind.FILE if issubclass(kind, Document) else ""
    rows = [f"| `{row.path}` | {row.type_name} | {row.meaning} |" for row in _rows(kind, "", file, shown)]
    return "\n".join(["| key | type | meaning |", "|---|---|---|", *rows])


def _rows(kind: type[msgspec.Struct], prefix: str, file: str, shown: dict[type[msgspec.Struct], str]) -> Iterator[_Row]:
    """Yield the keys of a struct, each followed by those of the struct that it holds."""
    text = _attribute_meanings(kind)
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        type_name, part, suffix = _describe(hints[field.name])
        path = f"{prefix}{field.encode_name}"
        meaning = text[field.name]
        optional = field.default is msgspec.UNSET or (kind.__struct_config__.omit_defaults and not field.required)
        if optional and field.default is None:
            type_name = type_name.removesuffix(" or null")
        absent = ", may be absent" if optional else ""
        if part is None or part in (Figure, Reason):
            yield _Row(path, type_name + absent, meaning)
        elif issubclass(part, Document):
            yield _Row(
                path, type_name + absent, f"{meaning} See {part.FILE.replace('<', '&lt;').replace('>', '&gt;')}."
            )
        elif part in shown:
            yield _Row(path, type_name + absent, f"{meaning} Keys as of `{shown[part]}`.")
        else:
            yield _Row(path, type_name + absent, meaning)
            shown[part] = f"{path}{suffix}" + (f"` in `{file}" if file else "")
            yield from _rows(part, f"{path}{suffix}.", file, shown)


def _attribute_meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the meaning of each attribute of a struct, those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, msgspec.Struct):
            found |= meanings(base.__doc__, "Attributes:")
    return found


def _describe(hint: Any) -> tuple[str, type[msgspec.Struct] | None, str]:
    """Return the name of a type, the struct that it holds, and what stands between a path and that struct's keys."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not msgspec.UnsetType]
        if set(members) >= {int, float}:
            members.remove(int)
        described = [_describe(member) for member in members]
        structs = [(struct, suffix) for _, struct, suffix in described if struct]
        return " or ".join(name for name, *_ in described), *(structs[0] if structs else (None, ""))
    if origin is Literal:
        return "string", None, ""
    if origin in (list, tuple):
        name, part, suffix = _describe(arguments[0])
        return f"list of {name}", part, f"[]{suffix}" if part else ""
    if origin is dict:
        name, part, suffix = _describe(arguments[1])
        return f"object of {name}", part, f".<name>{suffix}" if part else ""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        known = {Figure: "[figure](#a-figure)", Reason: "[reason](#a-figure)"}
        return known.get(hint, "object"), hint, ""
    return _NAMES.get(hint, "string"), None, ""


def _dedented(docstring: str) -> list[str]:
    """Return the lines of a docstring without the indentation of its class."""
    return inspect.cleandoc(docstring).splitlines()
