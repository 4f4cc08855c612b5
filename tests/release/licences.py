"""The licences of what an extra brings, read from the metadata of the packages that are installed for development."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from license_expression import AND, OR, ExpressionError, LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing

from tests.release.artefacts import ROOT
from tests.release.environments import DEVELOPMENT, run

LISTED: Mapping[str, Any] = tomllib.loads((ROOT / "tests" / "release" / "licences.toml").read_text("utf-8"))
_SPDX = get_spdx_licensing()
_BROUGHT = """
import json
from importlib.metadata import metadata
from benchmarks import install_sizes
extras = install_sizes.set_of(install_sizes.project()["optional-dependencies"])
brought = {extra: sorted(install_sizes.closure([extra])) for extra in ("", *extras)}
said = {}
for name in sorted(set().union(*brought.values())):
    fields = metadata(name)
    classifiers = [each.rpartition(" :: ")[2] for each in fields.get_all("Classifier", []) if each.startswith("License :: ")]
    said[name] = {"expression": fields.get("License-Expression"), "classifiers": classifiers, "text": fields.get("License")}
print(json.dumps({"brought": brought, "said": said}))
"""


@dataclass(frozen=True)
class Said:
    """What a package says of its licence."""

    expression: str | None
    """An SPDX expression, which newer packages have."""
    classifiers: tuple[str, ...]
    """The last parts of its classifiers, such as `MIT License`."""
    text: str | None
    """A field in which a name, an identifier or the whole licence stands."""

    def spdx(self) -> str:
        """Return an SPDX expression; of several classifiers all hold. Empty if the package says nothing."""
        if self.expression:
            return self.expression
        names: Mapping[str, str] = LISTED["names"]
        if self.classifiers and self.classifiers != ("OSI Approved",):
            return " AND ".join(f"({names.get(each, each)})" for each in self.classifiers)
        line = (self.text or "").strip().replace("\n", " ").partition("  Permission")[0]
        return names.get(line, line)


@cache
def brought() -> tuple[Mapping[str, list[str]], Mapping[str, Said]]:
    """Return the packages of each extra ("" for none), and what each package says."""
    found = json.loads(run(DEVELOPMENT, "-c", _BROUGHT))
    said = {
        name: Said(each["expression"], tuple(each["classifiers"]), each["text"]) for name, each in found["said"].items()
    }
    return found["brought"], said


def complaint(name: str, said: Said) -> str | None:
    """Return what is wrong with the licence of a package: unknown, or not in the list; None if it may be used."""
    text = said.spdx()
    try:
        tree = _SPDX.parse(text, validate=True)
    except ExpressionError:
        tree = None
    if tree is None:
        return f"{name}: unknown licence {' '.join(text.split())[:80]!r}"
    allowed = {*LISTED["allowed"], LISTED["exceptions"].get(name)}
    return None if _may_be_used(tree, allowed) else f"{name}: licence {text} is not allowed"


def _may_be_used(tree: Any, allowed: set[str]) -> bool:
    """Return whether one branch of every `OR` and all branches of every `AND` are allowed."""
    if isinstance(tree, OR):
        return any(_may_be_used(each, allowed) for each in tree.args)
    if isinstance(tree, AND):
        return all(_may_be_used(each, allowed) for each in tree.args)
    assert isinstance(tree, LicenseSymbol | LicenseWithExceptionSymbol)
    return tree.render("{symbol.key}") in allowed
