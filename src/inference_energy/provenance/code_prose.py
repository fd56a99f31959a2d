"""Prose in code: statements, texts and arguments that speak to people and cannot change a result."""

import ast
import re

_LOG_OBJECTS = {"log", "_log", "logger", "_logger", "logging"}
_LOG_METHODS = {"critical", "debug", "error", "exception", "info", "log", "warning"}
_PROSE_METHODS = {"add_note", "say"}
_ERROR_NAME = re.compile(r"(Error|Exception|Warning|Exit|failure)$")
_DESCRIBED_CALLS = {
    *("Argument", "ArgumentParser", "Field", "Meta", "Option", "Parameter", "Typer", "add_argument"),
    *("add_argument_group", "add_parser", "add_subparsers", "callback", "command"),
}
_DESCRIPTIONS = {
    *("deprecated", "description", "epilog", "examples", "help", "metavar", "prog", "rich_help_panel", "title"),
}


def is_prose(node: ast.stmt) -> bool:
    """Return whether a statement only speaks: a docstring, or a call that logs, shows progress or adds a note."""
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    if not isinstance(node.value, ast.Call):
        return False
    function = node.value.func
    chain = chain_of(function)
    speaks = (
        last_name(function) in _PROSE_METHODS
        or (last_name(function) in _LOG_METHODS and bool(_LOG_OBJECTS & set(chain[:-1])))
        or "progress" in chain[:-1]
        or chain == ("warnings", "warn")
        or (chain == ("print",) and any(chain_of(word.value) == ("sys", "stderr") for word in node.value.keywords))
    )
    acts = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
    return speaks and not any(isinstance(inner, acts) for inner in ast.walk(node.value))


def _is_text(node: ast.AST) -> bool:
    """Return whether an expression can only be a text."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add | ast.Mod) and (_is_text(node.left) or _is_text(node.right))
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _is_text(node.func.value) and node.func.attr in {"format", "join"}
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def chain_of(node: ast.AST) -> tuple[str, ...]:
    """Return ("a", "b", "c") for `a.b.c`, and nothing where the root is not a name."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else ()


def last_name(node: ast.AST) -> str:
    """Return the last identifier of a name, an attribute, or a call of one of these."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def without_prose(call: ast.Call) -> ast.Call:
    """Return a call without help texts and descriptions."""
    if last_name(call.func) not in _DESCRIBED_CALLS:
        return call
    return ast.Call(call.func, call.args, [keyword for keyword in call.keywords if keyword.arg not in _DESCRIPTIONS])


def without_message(error: ast.expr | None) -> ast.expr | None:
    """Return what a statement raises without the error's message."""
    if not isinstance(error, ast.Call):
        return error
    if not any(_ERROR_NAME.search(last_name(part)) for part in ast.walk(error.func)):
        return error
    return ast.Call(error.func, [argument for argument in error.args if not _is_text(argument)], error.keywords)
