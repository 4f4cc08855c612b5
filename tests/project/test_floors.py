"""The house: which folder may import which, how many files lie at the top, and that no private name is reached from outside."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("floors")  # the modules are parsed once

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "hf_gateway": ROOT / "shared" / "hf_gateway",
    "langchain_hf_gateway": ROOT / "langchain_hf_gateway",
    "llamaindex_hf_gateway": ROOT / "llamaindex_hf_gateway",
}
FLOORS = (
    ("errors", "_version"),
    ("values",),
    ("chain",),
    ("storage",),
    ("observing",),
    ("keys",),
    ("runtime",),
    ("settings",),
    ("wire",),
    ("http",),
    ("spaces",),
    ("hub",),
    ("engines",),
    ("telemetry", "ledger"),
    ("backends",),
    ("tasks",),
    ("activation",),
    ("gateway",),
    ("vector_gateway",),
    tuple(f"tasks/{path.parent.name}" for path in sorted(PACKAGES["hf_gateway"].glob("tasks/*/gateway.py"))),
    ("verification", "configuration", "retrieval", "framework_base", "testing", "cache"),
    ("langchain_hf_gateway", "llamaindex_hf_gateway", "clients"),
    ("server", "corpus"),
    ("cli",),
)
"""From the ground up; a room may import the rooms before its own row, and those of its own folder."""
MAX_TOP_FILES = 10


@dataclass(frozen=True)
class Arrow:
    """One import of a room by another."""

    source: str
    """Dotted name of the module that imports."""
    line: int
    target: str
    """Dotted name of the module that is imported."""
    name: str | None
    """The name that is taken from it."""
    types_only: bool = False
    """Whether it stands under `if TYPE_CHECKING:`."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}" + (f".{self.name}" if self.name else "")


def modules(packages: dict[str, Path] = PACKAGES) -> dict[str, Path]:
    found = {}
    for package, folder in packages.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_for_types(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                yield from ast.walk(statement)


def arrows(there: dict[str, Path] = MODULES) -> Iterator[Arrow]:
    for module, path in there.items():
        tree = tree_of(path)
        typed = set(map(id, imports_for_types(tree)))
        for node in ast.walk(tree):
            types_only = id(node) in typed
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in there:
                        yield Arrow(module, node.lineno, alias.name, None, types_only)
            elif isinstance(node, ast.ImportFrom) and node.module in there:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield (
                        Arrow(module, node.lineno, inner, None, types_only)
                        if inner in there
                        else Arrow(module, node.lineno, node.module, alias.name, types_only)
                    )


FACTORY = {
    ("hf_gateway.gateway", "hf_gateway.tasks.embedding.gateway", "EmbeddingGateway"),
    ("hf_gateway.gateway", "hf_gateway.tasks.chat.gateway", "ChatGateway"),
    ("hf_gateway.gateway", "hf_gateway.tasks.rerank.gateway", "RerankGateway"),
    ("hf_gateway.gateway", "hf_gateway.tasks.image.gateway", "ImageGateway"),
    ("hf_gateway.gateway", "hf_gateway.tasks.classification.gateway", "ClassifyGateway"),
    ("hf_gateway.gateway", "hf_gateway.tasks.sparse.gateway", "SparseGateway"),
}
"""What type checkers alone see from below: `Gateway(..., task=...)` is overloaded by what it builds, of a higher floor."""


def is_of_the_factory(arrow: Arrow) -> bool:
    return arrow.types_only and (arrow.source, arrow.target, arrow.name) in FACTORY


@functools.cache
def all_arrows() -> list[Arrow]:
    return list(arrows())


@functools.cache
def house() -> list[Arrow]:
    """Return every arrow of the project but the factory's."""
    return [arrow for arrow in all_arrows() if not is_of_the_factory(arrow)]


def room(module: str) -> str:
    """Return the folder that a module lies in, or the file itself at the top of the core."""
    package, *inner = module.split(".")
    if package != "hf_gateway":
        return package
    if not inner:
        return "hf_gateway"
    path = MODULES[module]
    folder = inner if path.name == "__init__.py" else inner[:-1]
    return "/".join(folder) if folder else inner[0]


def floor(place: str) -> int | None:
    """Return the row of a room; a folder within a room that has no row of its own is on the room's."""
    while place:
        for number, row in enumerate(FLOORS):
            if place in row:
                return number
        place = place.rpartition("/")[0]
    return None


def outer(place: str) -> str:
    """Return the room that has a row in FLOORS."""
    while place and not any(place in row for row in FLOORS):
        place = place.rpartition("/")[0]
    return place


ENTRY = {"hf_gateway", "__main__"}
"""The package itself and its `python -m` take from every floor; only public, lazy names come from there."""


def test_no_arrow_leads_up() -> None:
    wrong = []
    for arrow in house():
        source, target = room(arrow.source), room(arrow.target)
        if source in ENTRY or target in ENTRY or outer(source) == outer(target):
            continue
        here, there = floor(source), floor(target)
        if here is None or there is None or there >= here:
            wrong.append(str(arrow))
    assert sorted(wrong) == []


def test_no_two_folders_import_each_other() -> None:
    pairs = {(room(arrow.source), room(arrow.target)) for arrow in house()}
    both = {
        tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1] and pair[::-1] in pairs and not ENTRY & set(pair)
    }
    assert sorted(both) == []


def test_every_room_has_a_floor() -> None:
    assert (
        sorted({room(module) for module in MODULES if room(module) not in ENTRY and floor(room(module)) is None}) == []
    )


def test_few_files_lie_at_the_top_of_the_core() -> None:
    assert len(list(PACKAGES["hf_gateway"].glob("*.py"))) <= MAX_TOP_FILES


def is_private(name: str | None) -> bool:
    return name is not None and name.startswith("_") and not name.startswith("__")


def private_reaches() -> Iterator[str]:
    for arrow in house():
        if is_private(arrow.name):
            yield str(arrow)
    for module, path in MODULES.items():
        tree = tree_of(path)
        taken = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
            if f"{node.module}.{alias.name}" in MODULES
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and is_private(node.attr)
                and isinstance(node.value, ast.Name)
                and node.value.id in taken
            ):
                yield f"{module}:{node.lineno} reaches {node.value.id}.{node.attr}"


def test_no_private_name_is_reached_from_another_module() -> None:
    assert sorted(private_reaches()) == []


@pytest.mark.parametrize("core", ["values", "chain", "wire"])
def test_decisions_and_wires_import_no_http_library(core: str) -> None:
    folder = PACKAGES["hf_gateway"] / core
    libraries = {"httpx", "httpx2", "httpcore", "aiohttp", "requests", "huggingface_hub"}
    found = {
        name.partition(".")[0]
        for path in folder.rglob("*.py")
        for node in ast.walk(tree_of(path))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert found & libraries == set()


def module_cycles() -> list[list[str]]:
    """Return the groups of modules that import each other when they are loaded."""
    direct: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, path in MODULES.items():
        loaded = (node for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom))
        lines = {node.lineno for node in loaded}
        direct[module] |= {arrow.target for arrow in house() if arrow.source == module and arrow.line in lines}
    sorter = graphlib.TopologicalSorter(direct)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert module_cycles() == []


def test_what_the_factory_builds_is_seen_by_type_checkers_alone() -> None:
    seen = {(arrow.source, arrow.target, arrow.name) for arrow in all_arrows() if is_of_the_factory(arrow)}
    assert seen == FACTORY
    source, target, name = next(iter(FACTORY))
    assert not is_of_the_factory(Arrow(source, 1, target, name))
    assert not is_of_the_factory(Arrow(source, 1, target, "another", types_only=True))
