"""What each extra installs: `python -m benchmarks.install_sizes` writes the table in docs/install.md.

It is counted in the environment for development, where every extra is installed: the distributions that an extra requires, here
and by themselves, and the sizes of their files. A test holds the table to this.
"""

import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Report, Row, Table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "install.md"
HEAD = "| extras | distributions | MB |"
SET_UP = "langchain,llamaindex,local,fast,cli,loaders"
"""The extras of `make quickstart`."""
COMBINATIONS = ("langchain,local", "llamaindex,local", "langchain,local,fast", SET_UP)
"""Extras that are often installed together."""
DEVELOPMENT = "dev"
"""The extra that is for working on this package."""


@dataclass(frozen=True)
class Install:
    """What an install brings."""

    extras: str
    """The extras, separated by commas; "" for none."""
    names: frozenset[str]
    """Names of the distributions, this package's own left out."""

    @property
    def megabytes(self) -> float:
        """Size of their files, in 10^6 bytes, without bytecode."""
        return sum(map(size, self.names)) / 1e6

    @property
    def row(self) -> str:
        """Its line in the table."""
        extras = ", ".join(f"`{each}`" for each in self.extras.split(",")) if self.extras else "none"
        return f"| {extras} | {len(self.names)} | {self.megabytes:,.0f} |"


def installs() -> list[Install]:
    """Return what no extra, each extra, and the usual combinations bring."""
    extras = project()["optional-dependencies"]
    return [Install(each, closure(each.split(","))) for each in ("", *(set_of(extras)), *COMBINATIONS)]


def set_of(extras: Iterable[str]) -> list[str]:
    """Return the extras that users install."""
    return [each for each in extras if each != DEVELOPMENT]


@cache
def project() -> dict[str, dict[str, list[str]]]:
    """Return the requirements in pyproject.toml: without an extra under "dependencies"."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"dependencies": {"": table["dependencies"]}, "optional-dependencies": table["optional-dependencies"]}


def closure(extras: Iterable[str]) -> frozenset[str]:
    """Return the names of all distributions that this package requires with these extras."""
    seen: set[tuple[str, str]] = set()
    pending = [("hf-gateway", extra) for extra in ("", *extras)]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in requirements(name, extra):
            wanted = canonicalize_name(requirement.name)
            pending += [(wanted, each) for each in ("", *requirement.extras)]
    return frozenset(name for name, _ in seen) - {"hf-gateway"}


@cache
def requirements(name: str, extra: str) -> tuple[Requirement, ...]:
    """Return what a distribution requires on this machine.

    Args:
        name: name of the distribution.
        extra: only what this extra adds; "" for what is required without one.
    """
    if name == "hf-gateway":
        tables = project()
        lines = tables["dependencies"][""] if not extra else tables["optional-dependencies"][extra]
        return tuple(map(Requirement, lines))
    found = [Requirement(line) for line in installed(name).requires or ()]
    return tuple(each for each in found if applies(each, extra))


def applies(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement is one of this extra, and of this machine.

    Args:
        requirement: a line of a distribution's metadata.
        extra: the extra; "" for what is required without one.
    """
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and not (extra and requirement.marker.evaluate({"extra": ""}))


@cache
def installed(name: str) -> Distribution:
    """Return an installed distribution. Raises PackageNotFoundError."""
    return distribution(name)


@cache
def size(name: str) -> int:
    """Return the bytes of a distribution's files, without bytecode."""
    return sum(file.size or 0 for file in installed(name).files or () if file.suffix != ".pyc")


def table() -> str:
    """Return the table."""
    return "\n".join([HEAD, "|---|---:|---:|", *(each.row for each in installs())]) + "\n"


def written_table(page: str) -> str:
    """Return the table in a page."""
    lines = page[page.index(HEAD) :].splitlines(keepends=True)
    end = next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return "".join(lines[:end])


def run(_: Bench) -> Report:
    """Count what each extra brings, as the table in docs/install.md has it."""
    found = Table("Installed by each extra", "MB", None, columns=["distributions"])
    for each in installs():
        distributions = {"distributions": str(len(each.names))}
        found.rows.append(Row(each.extras or "none", ours=True, values={0: each.megabytes}, extra=distributions))
    notes = [
        "In 10^6 bytes, without bytecode; what an extra requires is included. torch is counted in its build for CPUs.",
        f"`{SET_UP}` are the extras of `make quickstart`.",
    ]
    return Report("Sizes of the extras", [found], notes)


def main() -> int:
    """Write the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(written_table(page), table()), encoding="utf-8")
    print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
