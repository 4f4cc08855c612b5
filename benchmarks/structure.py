"""The size and shape of the code: `python -m benchmarks.structure [ROOT]` prints the figures of a checkout.

Not a speed; it belongs here because figures before and after a change of structure are made with it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("shared/hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway")
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Give every module of the core and the doors: its dotted name and its file."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to((root / package).parent).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def room(name: str, is_package: bool) -> str:
    """Return the folder that a module lies in, or the module itself at the top of a package."""
    parts = name.split(".")
    inner = parts if is_package else parts[:-1]
    return ".".join(inner) if len(inner) > 1 else name


def imports(tree: ast.Module, there: set[str]) -> Iterator[str]:
    """Give the modules of `there` that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in there)
        elif isinstance(node, ast.ImportFrom) and node.module in there:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in there else node.module


def length(node: Definition) -> int:
    """Return the lines of a definition, its docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def main(arguments: list[str]) -> None:
    """Print the figures."""
    root = Path(arguments[0]) if arguments else Path()
    files = dict(modules(root))
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    rooms = {name: room(name, path.name == "__init__.py") for name, path in files.items()}
    arrows = {
        (rooms[name], rooms[target])
        for name, tree in trees.items()
        for target in imports(tree, set(files))
        if rooms[name] != rooms[target]
    }
    sizes = {
        kind: sorted(
            (
                (length(node), f"{name}.{node.name}")
                for name, tree in trees.items()
                for node in ast.walk(tree)
                if isinstance(node, kind)
            ),
            reverse=True,
        )
        for kind in (ast.ClassDef, ast.FunctionDef)
    }
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    longest = max(lines, key=lambda name: lines[name])
    core = root / PACKAGES[0]
    print(f"files {len(files)}, lines {sum(lines.values()):,}, longest {longest} {lines[longest]}")
    print(
        f"files at the core's top {len(list(core.glob('*.py')))}, rooms {len(set(rooms.values()))}, arrows {len(arrows)}"
    )
    mutual = {tuple(sorted(pair)) for pair in arrows if pair[::-1] in arrows}
    print(
        f"rooms that import each other {len(mutual)}: {', '.join('-'.join(pair) for pair in sorted(mutual)) or 'none'}"
    )
    for kind, found in sizes.items():
        print(f"largest {kind.__name__}: " + ", ".join(f"{name} {size}" for size, name in found[:3]))
    tests = list((root / "tests").rglob("*.py"))
    print(f"test files {len(tests)}, lines {sum(len(path.read_text().splitlines()) for path in tests):,}")


if __name__ == "__main__":
    main(sys.argv[1:])
