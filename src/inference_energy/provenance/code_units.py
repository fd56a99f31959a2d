"""Units of code: what each top-level statement of a module binds, says and refers to, read from its syntax tree.

`code_digest` follows the references and decides what counts.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from inference_energy.provenance.code_prose import chain_of, is_prose, last_name, without_message, without_prose

AFFECTS_RESULTS = "AFFECTS_RESULTS"
"""Name of the constant by which a module declares itself outside of all results."""

_MAY_NAME_A_FILE = re.compile(r"[\w./-]{1,100}")
_SKIPPED_FIELDS = {"ctx", "kind", "type_comment"}

# Decorators that only change the name they decorate, and do not read annotations.
_PURE_DECORATORS = {
    *("abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager"),
    *("dataclass", "final", "lru_cache", "njit", "overload", "override", "property", "runtime_checkable"),
    *("setter", "staticmethod", "total_ordering", "unique", "wraps"),
}
_RESOURCE_CALLS = {"PackageLoader", "files", "getLogger"}
_SEES_WHOLE_MODULE = {"__file__", "eval", "exec", "globals", "vars"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef

Import = tuple[str, str, str | None]
"""The local name, the module, and the name in that module; None where the module itself is imported."""


class Content(NamedTuple):
    """What a unit says, without prose, and what it refers to.

    Attributes:
        dump: its syntax tree as text.
        chains: global names with the attributes taken of them, such as ("np", "random", "default_rng").
        strings: its string constants that may name a file, a module or a definition.
        imports: import statements inside it.
        resources: packages whose files it reads.
        sees_whole_module: it may refer to anything in its module.
    """

    dump: str
    chains: frozenset[tuple[str, ...]]
    strings: frozenset[str]
    imports: tuple[Import, ...]
    resources: frozenset[str]
    sees_whole_module: bool


class Unit:
    """A top-level statement that is neither prose nor an import.

    Attributes:
        position: its place among the units of the module.
        names: what it binds.
        has_effect: importing the module does more than binding these names.
        is_ordered: its place relative to other such units matters.
    """

    def __init__(self, position: int, node: ast.stmt, origin: "Origin", *, has_effect: bool) -> None:
        self.position = position
        self.names = _bound_names(node)
        self.has_effect = has_effect
        self.is_ordered = has_effect
        self._node = node
        self._origin = origin

    @cached_property
    def content(self) -> Content:
        """What the statement says and refers to."""
        return _Reader(self._origin).read(self._node)


class Origin(NamedTuple):
    """Dotted names of a module and of the package that its relative imports start from."""

    module: str
    package: str

    @property
    def root(self) -> str:
        """The outermost package."""
        return self.module.partition(".")[0]


class ModuleUnits(NamedTuple):
    """A module's units, and what binds its names.

    Attributes:
        affects_results: False where the module declares so.
        units: in the order of the file.
        bindings: the units that bind a name.
        imports: import statements at the top level, by local name; those under `TYPE_CHECKING` too.
        imported: what importing the module imports: pairs of a module and a name in it, if any.
    """

    affects_results: bool
    units: list[Unit]
    bindings: dict[str, list[Unit]]
    imports: dict[str, list[Import]]
    imported: list[tuple[str, str | None]]


@lru_cache(maxsize=2048)
def parse_units(source: bytes, origin: Origin) -> ModuleUnits:
    """Split a module's source into units.

    Raises:
        ValueError: it is not Python, or imports from above its package.
    """
    tree = parse(source, origin.module)
    result = ModuleUnits(_affects_results(tree), [], {}, {}, [])
    _split(tree.body, result, origin, {node.name for node in tree.body if isinstance(node, _Function)}, executed=True)
    for unit in result.units:
        for name in unit.names:
            result.bindings.setdefault(name, []).append(unit)
    for bound_by in result.bindings.values():
        for unit in bound_by:
            unit.is_ordered |= len(bound_by) > 1
    return result


@lru_cache(maxsize=2048)
def all_imports(source: bytes, origin: Origin) -> tuple[Import, ...]:
    """Return the import statements anywhere in a module's source; raises as `parse_units` does."""
    return tuple(record for node in ast.walk(parse(source, origin.module)) for record in _imports(node, origin))


def parse(source: bytes, module: str) -> ast.Module:
    """Return the syntax tree of a module.

    Raises:
        ValueError: it is not Python.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{module} is not Python: {error}") from error


def _split(body: Iterable[ast.stmt], into: ModuleUnits, origin: Origin, own: set[str], *, executed: bool) -> None:
    """Add statements to a module; `own` are the names of its functions, and gets those that come from the package."""
    for node in body:
        if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING":
            _split(node.body, into, origin, own, executed=False)
            _split(node.orelse, into, origin, own, executed=executed)
            continue
        is_main = isinstance(node, ast.If) and any(
            chain == ("__name__",) for chain in map(chain_of, ast.walk(node.test))
        )
        if not isinstance(node, _Function | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.Expr):
            for record in (record for inner in ast.walk(node) for record in _imports(inner, origin)):
                into.imports.setdefault(record[0], []).append(record)
                if executed and not is_main:
                    into.imported.append(record[1:])
                if record[1].partition(".")[0] == origin.root:
                    own.add(record[0])
        is_unit = not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) and _declares_effect(node) is None
        if is_unit and not is_prose(node):
            has_effect = executed and not is_main and _has_effect(node, own)
            into.units.append(Unit(len(into.units), node, origin, has_effect=has_effect))


def _imports(node: ast.AST, origin: Origin) -> Iterator[Import]:
    """Yield what an import statement binds, with absolute names of modules; nothing for another node."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], alias.name, None
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, origin)
        for alias in node.names:
            yield alias.asname or alias.name, base, alias.name


def _absolute(node: ast.ImportFrom, origin: Origin) -> str:
    if node.level == 0:
        return str(node.module)
    parts = origin.package.split(".")
    kept = parts[: len(parts) - (node.level - 1)]
    if not origin.package or not kept:
        raise ValueError(f"{origin.module}, line {node.lineno}: imports from above its package")
    return ".".join([*kept, *([node.module] if node.module else [])])


def _affects_results(tree: ast.Module) -> bool:
    return all(_declares_effect(node) is not False for node in tree.body)


def _declares_effect(node: ast.stmt) -> bool | None:
    """Return the value of `AFFECTS_RESULTS`, or None for another statement."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    if isinstance(target, ast.Name) and target.id == AFFECTS_RESULTS:
        value = getattr(node, "value", None)
        return not (isinstance(value, ast.Constant) and value.value is False)
    return None


def _has_effect(node: ast.stmt, own: set[str]) -> bool:
    """Return whether a top-level statement may do more than bind its names."""
    if isinstance(node, _Function | ast.ClassDef):
        return any(last_name(decorator) not in _PURE_DECORATORS for decorator in node.decorator_list)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not all(isinstance(target, ast.Name | ast.Tuple | ast.List) for target in targets):
            return True
        calls = (inner for inner in ast.walk(node) if isinstance(inner, ast.Call))
        return any(_calls_own_function(call, own) for call in calls)
    return type(node).__name__ != "TypeAlias"


def _calls_own_function(call: ast.Call, own: set[str]) -> bool:
    """Return whether a call is of a function of the package; classes, by their capital letter, only make an object."""
    chain = chain_of(call.func)
    return bool(chain) and chain[0] in own and not chain[-1].lstrip("_")[:1].isupper()


def _bound_names(node: ast.stmt) -> tuple[str, ...]:
    """Return the names that a top-level statement binds, and perhaps more where it holds functions."""
    if isinstance(node, _Function | ast.ClassDef):
        return (node.name,)
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            names.add(inner.id)
        elif isinstance(inner, _Function | ast.ClassDef):
            names.add(inner.name)
    return tuple(sorted(names))


class _Scope:
    """Names that a function, a lambda or a comprehension binds, and those it loads; a class's body hides none."""

    def __init__(self, *, hides: bool) -> None:
        self.hides = hides
        self.bound: set[str] = set()
        self.declared_global: set[str] = set()
        self.loaded: set[tuple[str, ...]] = set()

    def free(self) -> set[tuple[str, ...]]:
        """What is loaded from the scopes around."""
        bound = self.bound - self.declared_global if self.hides else set()
        return {chain for chain in self.loaded if chain[0] not in bound}


class _Reader:
    """Writes a statement's syntax tree without prose, and collects what it refers to."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._out: list[str] = []
        self._scope = _Scope(hides=False)
        self._strings: set[str] = set()
        self._imports: list[Import] = []
        self._resources: set[str] = set()
        self._special: dict[type[ast.AST], Callable[[Any], None]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.Raise: self._raise,
            ast.FunctionDef: self._function,
            ast.AsyncFunctionDef: self._function,
            ast.Lambda: self._lambda,
            ast.ClassDef: self._class,
            ast.AnnAssign: self._annotated,
            ast.Import: self._import,
            ast.ImportFrom: self._import,
            ast.Global: self._global,
            **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), self._comprehension),
            **dict.fromkeys((ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping), self._binder),
        }

    def read(self, node: ast.stmt) -> Content:
        """Read one top-level statement."""
        self._node(node)
        chains = self._scope.free()
        return Content(
            dump=hashlib.sha256("\n".join(self._out).encode("utf-8", "surrogatepass")).hexdigest(),
            chains=frozenset(chains),
            strings=frozenset(self._strings),
            imports=tuple(self._imports),
            resources=frozenset(self._resources),
            sees_whole_module=any(chain[0] in _SEES_WHOLE_MODULE for chain in chains),
        )

    def _node(self, node: ast.AST) -> None:
        special = self._special.get(type(node))
        if special is None:
            self._generic(node)
        else:
            special(node)

    def _generic(self, node: ast.AST, skip: Container[str] = ()) -> None:
        self._out.append(type(node).__name__)
        for name in node._fields:
            if name not in _SKIPPED_FIELDS and name not in skip:
                # Fields without content are left out, because versions of Python differ in which there are.
                value = getattr(node, name, None)
                if value is not None and value != []:
                    self._out.append(name)
                    self._value(value)
        self._out.append(")")

    def _value(self, value: object) -> None:
        if isinstance(value, ast.AST):
            self._node(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, ast.stmt):
                    if not (isinstance(item, ast.Pass) or is_prose(item)):
                        self._node(item)
                else:
                    self._value(item)
            self._out.append("]")
        else:
            self._out.append(repr(value))

    def _constant(self, node: ast.Constant) -> None:
        text = node.value
        self._out.append(repr(text))
        if isinstance(text, str) and (self._origin.root in text or _MAY_NAME_A_FILE.fullmatch(text)):
            self._strings.add(text)

    def _name(self, node: ast.Name) -> None:
        self._out.append(node.id)
        if isinstance(node.ctx, ast.Load):
            self._scope.loaded.add((node.id,))
        else:
            self._scope.bound.add(node.id)

    def _attribute(self, node: ast.Attribute) -> None:
        if chain := chain_of(node):
            self._out.append(".".join(chain))
            self._scope.loaded.add(chain)
        else:
            self._generic(node)

    def _global(self, node: ast.Global) -> None:
        self._scope.declared_global.update(node.names)
        self._scope.loaded.update((name,) for name in node.names)

    def _binder(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self._scope.bound.add(name)
        self._generic(node)

    def _call(self, node: ast.Call) -> None:
        name = last_name(node.func)
        if name in _RESOURCE_CALLS and node.args and isinstance(node.args[0], ast.Constant):
            # The package is named for its files; its modules are not meant.
            package = str(node.args[0].value)
            self._resources.add(package)
            self._out.append(package)
            if name == "PackageLoader":
                self._strings.add("templates")
            node = ast.Call(node.func, node.args[1:], node.keywords)
        self._generic(without_prose(node))

    def _raise(self, node: ast.Raise) -> None:
        self._generic(ast.Raise(without_message(node.exc), node.cause))

    def _function(self, node: _Function) -> None:
        self._out += [type(node).__name__, node.name]
        self._scope.bound.add(node.name)
        self._value(node.decorator_list)
        annotations_read = any(last_name(decorator) not in _PURE_DECORATORS for decorator in node.decorator_list)
        self._arguments(node.args, annotations_read=annotations_read)
        if annotations_read:
            self._value(node.returns)
        with self._inner_scope(_argument_names(node.args)):
            self._value(node.body)

    def _lambda(self, node: ast.Lambda) -> None:
        self._out.append("Lambda")
        self._arguments(node.args, annotations_read=False)
        with self._inner_scope(_argument_names(node.args)):
            self._node(node.body)

    def _arguments(self, arguments: ast.arguments, *, annotations_read: bool) -> None:
        """Write parameters; their annotations only where a decorator may read them.

        Classes that annotate parameters are referred to in any case: callers that do not count may pass their objects.
        """
        for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
            value = getattr(arguments, kind)
            self._out.append(kind)
            for argument in value if isinstance(value, list) else [value] if value else []:
                self._out.append(argument.arg)
                if argument.annotation:
                    self._annotation(argument.annotation, written=annotations_read)
        self._out.append("defaults")
        self._value(arguments.defaults)
        # None stands for a parameter without a default.
        self._value(arguments.kw_defaults)

    def _annotation(self, node: ast.expr, *, written: bool) -> None:
        length = len(self._out)
        self._node(node)
        for inner in ast.walk(node):
            # "A class" in quotes is one that is defined further down, or this one.
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
                self._scope.loaded.add((inner.value,))
        if not written:
            del self._out[length:]

    def _class(self, node: ast.ClassDef) -> None:
        self._scope.bound.add(node.name)
        self._generic(node, {"body"})
        with self._inner_scope(set(), hides=False):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign):
                    # Dataclasses and models are made from these.
                    self._out.append("field")
                    self._node(statement.target)
                    self._annotation(statement.annotation, written=True)
                    self._value(statement.value)
                else:
                    self._value([statement])

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._node(ast.Assign([node.target], node.value))

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._imports += _imports(node, self._origin)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        # The first iterable belongs to the scope around, where a name may be another than the loop's.
        first, *others = node.generators
        self._node(first.iter)
        with self._inner_scope(set()):
            self._generic(first, {"iter"})
            self._value(others)
            self._generic(node, {"generators"})

    @contextmanager
    def _inner_scope(self, bound: set[str], *, hides: bool = True) -> Iterator[None]:
        outer, self._scope = self._scope, _Scope(hides=hides)
        self._scope.bound = bound
        yield
        outer.loaded |= self._scope.free()
        self._scope = outer


def _argument_names(arguments: ast.arguments) -> set[str]:
    single = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *single)}
