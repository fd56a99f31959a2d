"""Content digest of a module and of all it imports from its own package; nothing is imported.

A Snakemake rule has the digest of its module among its parameters, so editing a file reruns exactly the rules whose
code can have changed. This module imports nothing of ours itself.

Seen are import statements anywhere in a file: inside functions and under TYPE_CHECKING too. Not seen are modules that
are only named in a string (`importlib.import_module`, `python -m`): whoever starts a module that way imports it too.
Files below a folder `templates` or `data` beside a module of the closure count as its code.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

BESIDE = ("templates", "data")
_DIGITS = 16


def digest(*modules: str) -> str:
    """A digest of the content of `closure(*modules)` and of its templates and data.

    It depends on the files' content and their place in the package, not on where the package lies nor on dates.

    Args:
        modules: dotted names.

    Returns:
        16 hexadecimal digits, the start of a SHA-256.

    Raises:
        ValueError: as in `closure`.
    """
    files: dict[str, Path] = {}
    for module in closure(*modules):
        file = _locate(module)
        if file is None or file.path is None:
            continue
        folder = file.path.parent
        top = _package_folder(_root_of(module)).parent
        for path in (file.path, *_beside(folder)):
            files[path.relative_to(top).as_posix()] = path
    total = hashlib.sha256()
    for name in sorted(files):
        content = files[name].read_bytes()
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:_DIGITS]


def closure(*modules: str) -> frozenset[str]:
    """The modules, all they import from their own package, and the sub-packages these lie in.

    The root package is left out: its `__init__` holds the version, and a new version must not repeat a measurement.

    Args:
        modules: dotted names.

    Raises:
        ValueError: a module, or one that it imports from its own package, does not exist or is not Python; or a module
            is a package: its digest would miss the modules inside it.
    """
    for module in modules:
        file = _locate(module)
        if file is not None and file.is_package:
            raise ValueError(f"{module} is a package, which stands for its __init__ alone; name a module inside it")
    seen: set[str] = set()
    waiting = [(module, "") for module in modules]
    while waiting:
        module, importer = waiting.pop()
        if module in seen:
            continue
        if _locate(module) is None:
            raise ValueError(f"there is no module {module}" + (f", which {importer} imports" if importer else ""))
        seen.add(module)
        waiting += [(found, module) for found in (*_parents(module), *direct_imports(module))]
    return frozenset(seen - {_root_of(module) for module in seen})


def direct_imports(module: str) -> frozenset[str]:
    """The modules of its own package that a module's file imports, without those that these import in turn.

    `from package import name` gives `package.name` where that is a module, else `package`.

    Raises:
        ValueError: the module does not exist, is not Python, or imports from above its package.
    """
    file = _locate(module)
    if file is None:
        raise ValueError(f"there is no module {module}")
    if file.path is None:
        return frozenset()
    package = module if file.is_package else module.rpartition(".")[0]
    found = set()
    for base, name in _import_statements(file.path.read_bytes(), module, package):
        if _root_of(base) != _root_of(module):
            continue
        is_module = name is not None and _locate(f"{base}.{name}") is not None
        found.add(f"{base}.{name}" if is_module else base)
    return frozenset(found)


class _File(NamedTuple):
    """Where a module's code is; no path for a folder without `__init__.py`."""

    path: Path | None
    is_package: bool


@lru_cache(maxsize=4096)
def _import_statements(source: bytes, module: str, package: str) -> tuple[tuple[str, str | None], ...]:
    """Pairs (module, name): `import a.b` gives (a.b, None), `from a import b` gives (a, b), with absolute names."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{module} is not Python: {error}") from error
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, package)
            found += [(base, None if alias.name == "*" else alias.name) for alias in node.names]
    return tuple(found)


def _absolute(node: ast.ImportFrom, module: str, package: str) -> str:
    """The absolute name of the module that a `from` statement names."""
    if node.level == 0:
        return str(node.module)
    parts = package.split(".")
    kept = parts[: len(parts) - (node.level - 1)]
    if not package or not kept:
        raise ValueError(f"{module}, line {node.lineno}: imports from above its package")
    return ".".join([*kept, *([node.module] if node.module else [])])


def _locate(module: str) -> _File | None:
    """The file of a module, or None where there is none."""
    root, *inner = module.split(".")
    folder = _package_folder(root).joinpath(*inner)
    if (folder / "__init__.py").is_file():
        return _File(folder / "__init__.py", True)
    file = folder.with_name(f"{folder.name}.py")
    if inner and file.is_file():
        return _File(file, False)
    return _File(None, True) if folder.is_dir() else None


def _package_folder(root: str) -> Path:
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"there is no package {root}")
    return Path(next(iter(spec.submodule_search_locations)))


def _beside(folder: Path) -> Iterator[Path]:
    for path in (path for name in BESIDE for path in (folder / name).rglob("*")):
        inner = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in inner):
            yield path


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(2, len(parts))]


def _root_of(module: str) -> str:
    return module.partition(".")[0]
