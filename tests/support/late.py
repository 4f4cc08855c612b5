"""Imports that wait until a test runs, so that collecting the tests imports none of the heavy libraries."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

COLLECTED = False
"""Stands over a file's heavy imports and what needs them at once: `if COLLECTED:` is run before the file's first test."""

_run: set[str] = set()


def run_late_imports(name: str) -> None:
    """Run what stands under `if COLLECTED:` in a module of tests/, and before it in those that the module imports."""
    if name in _run:
        return
    _run.add(name)
    module = import_module(name)
    if module.__file__ is None:
        return
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    late = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "COLLECTED"]
    for node in [*tree.body, *(statement for block in late for statement in block.body)]:
        for imported in _modules_of_tests(node):
            run_late_imports(imported)
    body = [statement for block in late for statement in block.body]
    exec(compile(ast.Module(body, []), module.__file__, "exec"), vars(module))


def _modules_of_tests(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.startswith("tests."))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests":
        yield str(node.module)
        yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in sys.modules)
