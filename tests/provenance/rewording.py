"""Other words in the place of all docstrings, comments and messages of errors, in a copy of the package."""

import ast
import re
from pathlib import Path


def reword_package(folder: Path) -> int:
    """Reword and reformat every Python file below a folder; how many texts were reworded."""
    reworder = _Reworder()
    for path in folder.rglob("*.py"):
        tree = reworder.visit(ast.parse(path.read_text()))
        # Unparsing formats the whole file anew and leaves its comments out.
        path.write_text("# Other words.\n" + ast.unparse(ast.fix_missing_locations(tree)))
    return reworder.count


def change_definitions(path: Path) -> None:
    """Change what every function and class of a Python file does, by a statement without an effect."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body.append(ast.Expr(ast.Constant(1)))
    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))


class _Reworder(ast.NodeTransformer):
    def __init__(self) -> None:
        self.count = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            self.count += 1
            return ast.Expr(ast.Constant(node.value.value + " In other words."))
        self.generic_visit(node)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call) and re.search(r"Error\b", ast.unparse(node.exc.func)):
            for position, argument in enumerate(node.exc.args):
                if isinstance(argument, ast.Constant | ast.JoinedStr):
                    self.count += 1
                    node.exc.args[position] = ast.Constant("other words")
        return node
