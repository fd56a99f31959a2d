"""Digest of the code that a result depends on, made of syntax trees; the digested code is never imported.

A Snakemake rule has `digest("module:function")` among its parameters, so an edit reruns exactly the rules whose results
it can change.

What counts. Each top-level statement of a module is a unit: a function, a class, a constant. From its entries the
digest follows the names that units use, across modules: global names, attributes of imported modules, base classes,
decorators, default values, classes that annotate parameters (a caller outside may pass such an object), and string
constants that name a module (`python -m package.module`), a definition (`package.module:name`) or a file beside the
code. Statements that act when they are imported count in every module that is imported on the way. A whole module
counts where names cannot be known: star imports, a module that is passed around, `__file__`, `globals()`, a name that
its module does not visibly bind.

What does not count. Comments, formatting, docstrings, annotations of functions and variables, and prose: messages of
raised errors, log and progress calls, help texts and descriptions. An error's message is prose even where a result
quotes it. Imports under `TYPE_CHECKING` count only for the annotations that use them. A module that says
`AFFECTS_RESULTS = False` at its top level, such as a progress display, is not followed. The root package is left out:
its `__init__` holds the version, and a new version must not repeat a measurement.

What is assumed. Calls of other packages' functions and of our own classes in an assignment act on nothing else; code
neither looks up subclasses nor reads docstrings.
"""

import hashlib
import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from inference_energy.provenance.code_units import ModuleUnits, Origin, Unit, all_imports, parse_units

_DIGITS = 16


def digest(*entries: str) -> str:
    """Return a digest of everything that `reach(*entries)` holds.

    It depends on the code and its place in the package, not on where the package lies, on dates, or on the version of
    Python.

    Args:
        entries: `package.module` for a whole module, or `package.module:name` for one top-level definition.

    Returns:
        16 hexadecimal digits, the start of a SHA-256.

    Raises:
        ValueError: as in `reach`.
    """
    return reach(*entries).digest()


def file_digest(path: Path) -> str:
    """Return a digest of the code of one file, without what it imports; for a script outside of the package.

    Raises:
        ValueError: it is not Python.
    """
    units = parse_units(path.read_bytes(), Origin(path.stem, ""))
    lines = [unit.content.dump for unit in units.units] + sorted(map(repr, units.imports.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


def reach(*entries: str) -> "Reach":
    """Follow everything that entries depend on in their own package.

    Raises:
        ValueError: an entry, or a module that is imported on the way, does not exist or is not Python; or an entry is a
            package, which would stand for its `__init__` alone.
    """
    result = Reach()
    for entry in entries:
        result.enter(entry)
    return result


def direct_imports(module: str) -> frozenset[str]:
    """Return the modules of its own package that a module's file imports anywhere, whether or not they are used.

    `from package import name` gives `package.name` where that is a module, else `package`.

    Raises:
        ValueError: the module does not exist, is not Python, or imports from above its package.
    """
    file = _locate(module)
    if file is None:
        raise ValueError(f"there is no module {module}")
    imports = set()
    for _, base, name in all_imports(file.source(), file.origin):
        if _root_of(base) == _root_of(module):
            is_module = name is not None and _locate(f"{base}.{name}") is not None
            imports.add(f"{base}.{name}" if is_module else base)
    return frozenset(imports)


class Reach:
    """The units, external imports and files that entries depend on."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module | None] = {}
        self._imported: set[str] = set()
        self._units: dict[str, dict[int, Unit]] = defaultdict(dict)
        self._external: dict[str, set[str]] = defaultdict(set)
        self._files: dict[str, Path] = {}
        self._beside: dict[Path, dict[str, list[Path]]] = {}
        self._waiting: list[tuple[str, Unit]] = []

    def enter(self, entry: str) -> None:
        """Add an entry and all it depends on; raises as `reach` does."""
        name, _, definition = entry.partition(":")
        module = self._module(name)
        if module is None:
            raise ValueError(f"there is no module {name}")
        if module.file.is_package:
            raise ValueError(f"{name} is a package, which stands for its __init__ alone; name a module inside it")
        if not definition:
            self._need_module(name, name)
        elif module.binds(definition):
            self._need_name(name, (definition,))
        else:
            raise ValueError(f"there is no {definition} in the module {name}")
        while self._waiting:
            self._follow(*self._waiting.pop())

    @property
    def definitions(self) -> dict[str, frozenset[str]]:
        """The names whose definitions count, by module."""
        return {
            module: frozenset(name for unit in units.values() for name in unit.names)
            for module, units in self._units.items()
            if units
        }

    @property
    def files(self) -> frozenset[str]:
        """Data files and templates that count, as paths from the folder that holds the package."""
        return frozenset(self._files)

    def digest(self) -> str:
        """Return the digest of all this."""
        total = hashlib.sha256()
        for module in sorted(self._units.keys() | self._external.keys()):
            units = [unit for _, unit in sorted(self._units[module].items())]
            # Order matters where statements act or bind a name again; functions and constants may change places.
            lines = [f"module {module}", *sorted(unit.content.dump for unit in units if not unit.is_ordered)]
            lines += [unit.content.dump for unit in units if unit.is_ordered]
            lines += sorted(self._external[module])
            if len(lines) > 1:
                total.update("".join(f"{line}\n" for line in lines).encode())
        for name, path in sorted(self._files.items()):
            content = path.read_bytes()
            total.update(f"file {name} {len(content)}\n".encode())
            total.update(content)
        return total.hexdigest()[:_DIGITS]

    def _module(self, name: str) -> "_Module | None":
        if name not in self._modules:
            file = _locate(name)
            self._modules[name] = _Module(file, parse_units(file.source(), file.origin)) if file else None
        return self._modules[name]

    def _existing(self, name: str, importer: str) -> "_Module":
        module = self._module(name)
        if module is None:
            raise ValueError(f"there is no module {name}, which {importer} imports")
        return module

    def _import(self, name: str, importer: str) -> None:
        """Count what importing a module does, and what it imports in turn."""
        if name in self._imported or name == _root_of(name):
            return
        self._imported.add(name)
        module = self._existing(name, importer)
        if not module.units.affects_results:
            return
        self._import(name.rpartition(".")[0], name)
        for base, alias in module.units.imported:
            if _root_of(base) == _root_of(name):
                self._import(base, name)
                if alias == "*":
                    self._need_module(base, name)
                elif alias is not None and self._module(f"{base}.{alias}"):
                    self._import(f"{base}.{alias}", name)
        for unit in module.units.units:
            if unit.has_effect:
                self._take(name, unit)

    def _take(self, module: str, unit: Unit) -> None:
        if unit.position not in self._units[module]:
            self._units[module][unit.position] = unit
            self._waiting.append((module, unit))

    def _need_module(self, name: str, importer: str) -> None:
        """Count a whole module; of a package that is named or passed around, all that lies in it."""
        module = self._existing(name, importer)
        self._import(name, importer)
        if not module.units.affects_results:
            return
        for unit in module.units.units:
            self._take(name, unit)
        if module.file.is_package:
            for path in sorted(module.file.folder.glob("*.py")):
                if path.stem != "__init__":
                    self._need_module(f"{name}.{path.stem}", importer)

    def _need_name(self, module_name: str, chain: tuple[str, ...]) -> None:
        """Count what a module binds to a name, and the attribute taken of it where that is a module."""
        module = self._existing(module_name, module_name)
        self._import(module_name, module_name)
        if not module.units.affects_results:
            return
        for unit in module.units.bindings.get(chain[0], ()):
            self._take(module_name, unit)
        for local, base, alias in module.units.imports.get(chain[0], ()):
            self._need_import(module_name, local, base, alias, chain[1:])

    def _need_import(
        self, importer: str, local: str, base: str, alias: str | None, attributes: tuple[str, ...]
    ) -> None:
        if _root_of(base) != _root_of(importer):
            self._external[importer].add(f"import {local} = {base}:{alias or ''}")
        elif alias is not None:
            self._need_attribute(base, (alias, *attributes), importer)
        else:
            self._import(base, importer)
            # `import a.b` binds a; `import a.b as c` binds a.b to c.
            self._need_attribute(local if local == _root_of(base) else base, attributes, importer)

    def _need_attribute(self, module_name: str, attributes: tuple[str, ...], importer: str) -> None:
        """Count `module.attribute...`: down through packages to a name in a module, else that whole module."""
        while attributes and self._module(f"{module_name}.{attributes[0]}"):
            module_name, attributes = f"{module_name}.{attributes[0]}", attributes[1:]
        if module_name == _root_of(module_name):
            return
        if attributes and self._existing(module_name, importer).binds(attributes[0]):
            self._need_name(module_name, attributes)
        else:
            self._need_module(module_name, importer)

    def _follow(self, module_name: str, unit: Unit) -> None:
        """Count what a unit of a module refers to."""
        module, content = self._existing(module_name, module_name), unit.content
        if content.sees_whole_module:
            self._need_module(module_name, module_name)
        inner_imports = defaultdict(list)
        for record in content.imports:
            inner_imports[record[0]].append(record)
            if _root_of(record[1]) == _root_of(module_name):
                self._import(record[1], module_name)
        for chain in content.chains:
            for record in inner_imports.get(chain[0], ()):
                self._need_import(module_name, *record, chain[1:])
            self._need_name(module_name, chain)
        folders = [module.file.folder]
        folders += [file.folder for file in map(_locate, content.resources) if file]
        for text in content.strings:
            self._need_named(module_name, text)
            for folder in folders:
                self._need_file(module_name, folder, text)

    def _need_named(self, importer: str, text: str) -> None:
        """Count the modules and definitions of the package that a string names."""
        root = _root_of(importer)
        if root not in text:
            return
        for match in re.finditer(rf"\b{root}(?:\.\w+)+(?::\w+)?", text):
            name, _, definition = match[0].partition(":")
            module = self._module(name)
            if module is not None and module.binds(definition):
                self._need_name(name, (definition,))
            elif module is not None:
                self._need_module(name, importer)

    def _need_file(self, importer: str, folder: Path, text: str) -> None:
        """Count the file, or the files of the folder, that a string names beside a module."""
        if folder not in self._beside:
            self._beside[folder] = _files_beside(folder)
        for path in self._beside[folder].get(text, ()):
            name = path.relative_to(_package_folder(_root_of(importer)).parent)
            if path.suffix == ".py":
                self._need_module(".".join(name.with_suffix("").parts), importer)
            else:
                self._files[name.as_posix()] = path


class _File(NamedTuple):
    """Where a module's code is; no path for a folder without `__init__.py`."""

    module: str
    folder: Path
    path: Path | None
    is_package: bool

    @property
    def origin(self) -> Origin:
        """The names that its imports are relative to."""
        return Origin(self.module, self.module if self.is_package else self.module.rpartition(".")[0])

    def source(self) -> bytes:
        """Read the code."""
        return self.path.read_bytes() if self.path else b""


class _Module(NamedTuple):
    """A module's file and what it holds."""

    file: _File
    units: ModuleUnits

    def binds(self, name: str) -> bool:
        """Return whether the module visibly binds a name."""
        return name in self.units.bindings or name in self.units.imports


def _locate(module: str) -> _File | None:
    """Return the file of a module, or None where there is none."""
    root, *inner = module.split(".")
    folder = _package_folder(root).joinpath(*inner)
    if (folder / "__init__.py").is_file():
        return _File(module, folder, folder / "__init__.py", True)
    file = folder.with_name(f"{folder.name}.py")
    if inner and file.is_file():
        return _File(module, file.parent, file, False)
    return _File(module, folder, None, True) if folder.is_dir() else None


def _package_folder(root: str) -> Path:
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"there is no package {root}")
    return Path(next(iter(spec.submodule_search_locations)))


def _files_beside(folder: Path) -> dict[str, list[Path]]:
    """Return what strings may name in a folder of code: its files, and folders without code as all their files."""
    named: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".pyc":
            named[path.name] = [path]
        elif path.is_dir() and not (path / "__init__.py").exists() and path.name != "__pycache__":
            files = [file for file in path.rglob("*") if file.is_file() and _is_visible(file.relative_to(path))]
            named[path.name] = files
            named |= {file.relative_to(folder).as_posix(): [file] for file in files}
    return named


def _is_visible(path: Path) -> bool:
    return not any(part.startswith((".", "__pycache__")) for part in path.parts)


def _root_of(module: str) -> str:
    return module.partition(".")[0]
