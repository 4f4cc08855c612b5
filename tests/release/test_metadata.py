"""What the index would show of the package: addresses from one constant, classifiers, and what it requires."""

import shutil
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from hatch_build import VERSION_FILE, documentation_url
from tests.release.artefacts import ROOT, build, lay_out
from tests.release.conftest import Release

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_there_are_as_many_addresses_as_the_owner_has_given(release: Release) -> None:
    urls = metadata(release.wheel).get_all("Project-URL", [])
    assert bool(urls) is bool(documentation_url(ROOT))
    assert "urls" not in PROJECT, "they come from the constant"


def test_with_an_address_the_metadata_has_it_and_nothing_else_changes(release: Release, tmp_path: Path) -> None:
    written = release.files[VERSION_FILE].decode()
    given = written.replace('DOCUMENTATION_URL = ""', 'DOCUMENTATION_URL = "https://docs.invalid"')
    assert given != written
    source = lay_out({**release.files, VERSION_FILE: given.encode()}, tmp_path / "tree", mode=0o644, modified_s=1)
    (wheel,) = build(source, tmp_path / "dist", "--wheel")
    assert metadata(wheel).get_all("Project-URL") == [
        "Documentation, https://docs.invalid/",
        "Changelog, https://docs.invalid/CHANGELOG/",
        "Security, https://docs.invalid/SECURITY/",
        "Errors, https://docs.invalid/errors/",
    ]
    assert not [
        each
        for each in metadata(wheel).items()
        if each not in metadata(release.wheel).items() and each[0] != "Project-URL"
    ]
    shutil.rmtree(source)


@pytest.mark.parametrize("field", ["Author", "Author-email", "Maintainer-email", "Home-page", "Download-URL"])
def test_nothing_is_said_that_the_owner_has_not_said(field: str, release: Release) -> None:
    assert field not in metadata(release.wheel)
