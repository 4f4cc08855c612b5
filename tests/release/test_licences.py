"""Nobody who installs an extra gets a licence that is not in the list."""

import tomllib
from collections import Counter

import pytest

from tests.release.artefacts import ROOT
from tests.release.licences import LISTED, Said, brought, complaint

EXTRAS = ["", *tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]]


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "dev"], ids=lambda extra: extra or "none")
def test_an_extra_brings_allowed_licences_only(extra: str) -> None:
    packages, said = brought()
    assert [found for name in packages[extra] if (found := complaint(name, said[name])) is not None] == []


def test_every_exception_is_needed_and_named_where_users_choose_their_extras() -> None:
    _, said = brought()
    page = (ROOT / "docs" / "install.md").read_text("utf-8").partition("## Licences")[2].partition("\n## ")[0]
    for name, licence in LISTED["exceptions"].items():
        assert licence in said[name].spdx()
        assert f"`{name}`" in page, name
        assert licence.removesuffix("-only") in page


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Said("MIT", (), None), None),
        (Said(None, ("MIT License",), "see LICENSE"), None),
        (Said(None, (), "Apache-2.0"), None),
        (Said("MIT OR GPL-3.0-only", (), None), None),
        (Said("MIT AND GPL-3.0-only", (), None), "some: licence MIT AND GPL-3.0-only is not allowed"),
        (Said("MPL-2.0", (), None), "some: licence MPL-2.0 is not allowed"),
        (Said("AGPL-3.0-or-later", (), None), "some: licence AGPL-3.0-or-later is not allowed"),
        (
            Said(None, ("MIT License", "GNU General Public License v3 (GPLv3)"), None),
            "some: unknown licence '(MIT) AND (GNU General Public License v3 (GPLv3))'",
        ),
        (Said(None, (), None), "some: unknown licence ''"),
        (Said(None, (), "Proprietary,\n  ask us"), "some: unknown licence 'Proprietary, ask us'"),
    ],
)
def test_what_is_unknown_or_copyleft_is_named(said: Said, expected: str | None) -> None:
    assert complaint("some", said) == expected


def test_the_list_has_no_licence_twice() -> None:
    assert [name for name, count in Counter(LISTED["allowed"]).items() if count > 1] == []
