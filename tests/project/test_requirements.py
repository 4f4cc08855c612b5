"""What an installation may not be newer than: a bound for each library that our classes are built on, and for no other."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.project.test_floors import MODULES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SUBCLASSED = {
    "fastapi": "fastapi",
    "httpcore": "httpcore",
    "httpx": "httpx",
    "langchain-core": "langchain_core",
    "llama-index-core": "llama_index",
    "pydantic": "pydantic",
    "uvicorn": "uvicorn",
}
"""Doors: our classes are subclasses of theirs, which a new major version may call in other ways. → the module."""
OTHERS = {
    "diffusers": "its pipelines are told apart by their classes and the names of their arguments",
    "huggingface-hub": "its second major version has another HTTP library under the same names",
    "redis": "limits goes with no newer one, and says so for its own extra",
    "sentence-transformers": "what is computed here is compared with what it computes",
    "transformers": "files of models are read as this major version writes them",
}
"""Bounds for another reason."""


def runtime_requirements() -> Iterator[Requirement]:
    """Yield what users install: each requirement of the package and of its extras but `dev`."""
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]:
        yield Requirement(line)


def upper_bound(requirement: Requirement) -> Version | None:
    bounds = [Version(each.version) for each in requirement.specifier if each.operator in ("<", "<=", "==", "~=")]
    return min(bounds) if bounds else None


BOUNDS = {
    canonicalize_name(each.name): bound for each in runtime_requirements() if (bound := upper_bound(each)) is not None
}


def test_upper_bounds_are_for_doors_and_for_what_has_a_reason() -> None:
    assert set(BOUNDS) == set(SUBCLASSED) | set(OTHERS)


def test_a_bound_is_a_next_version_and_excludes_no_release_of_the_present_one() -> None:
    for each in runtime_requirements():
        bound = upper_bound(each)
        if bound is not None:
            assert [specifier.operator for specifier in each.specifier if specifier.operator not in (">=", "<")] == []
            # 2, or 0.15 for a library whose minor versions break: nothing that cuts off the patches of a version.
            assert len(bound.release) == (2 if bound.major == 0 else 1), str(each)


@pytest.mark.parametrize("name", SUBCLASSED)
def test_our_classes_are_subclasses_of_those_of_a_door(name: str) -> None:
    assert SUBCLASSED[name] in all_bases()


@functools.cache
def all_bases() -> set[str]:
    return {each for path in MODULES.values() for each in bases(path.read_text("utf-8"))}


def bases(source: str) -> set[str]:
    """Return the top modules that the base classes of a module's classes come from."""
    tree = ast.parse(source)
    homes: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            homes |= {
                (alias.asname or alias.name).partition(".")[0]: alias.name.partition(".")[0] for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            homes |= {alias.asname or alias.name: node.module.partition(".")[0] for alias in node.names}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {re.split(r"[.\[]", ast.unparse(base))[0] for each in classes for base in each.bases}
    return {homes[name] for name in names if name in homes}


def test_the_bound_of_redis_is_that_of_limits() -> None:
    (theirs,) = (
        found
        for line in requires("limits") or ()
        if (found := Requirement(line)).name == "redis" and '"redis"' in str(found.marker)
    )
    assert upper_bound(theirs) == Version(f"{BOUNDS[canonicalize_name('redis')]}.0.0")


def test_the_oldest_python_and_the_classifiers_agree() -> None:
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">=3.{min(map(int, named))}"
    assert list(map(int, named)) == list(range(min(map(int, named)), max(map(int, named)) + 1))
