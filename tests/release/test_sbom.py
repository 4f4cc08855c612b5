"""What the base install consists of, as CycloneDX: valid, the same each time, and what is really installed."""

import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.release.artefacts import RELEASE
from tests.release.conftest import Release
from tests.release.environments import run, uv


def sbom(release: Release, python: Path, file: Path) -> str:
    """Write the bill of an environment, without a serial number and a time; return it."""
    # The version is read from the source when the package is built, and so is missing in pyproject.toml.
    version = release.wheel.name.split("-")[1]
    written, count = re.subn(
        r"^dynamic = .*$", f'version = "{version}"', release.files["pyproject.toml"].decode(), flags=re.MULTILINE
    )
    assert count == 1
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "pyproject.toml")
        project.write_text(written)
        options = [
            "--pyproject",
            project,
            "--sv",
            "1.6",
            "--of",
            "JSON",
            "--output-reproducible",
            "--mc-type",
            "library",
        ]
        run(sys.executable, "-m", "cyclonedx_py", "environment", *options, "--output-file", file, python)
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def bill(release: Release, base: Path) -> str:
    return sbom(release, base, RELEASE / f"{release.wheel.name.removesuffix('-py3-none-any.whl')}.cdx.json")


def test_it_is_valid_and_the_same_each_time(bill: str, release: Release, base: Path, tmp_path: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert sbom(release, base, tmp_path / "again.json") == bill


def test_a_bill_that_breaks_the_schema_would_be_noticed(bill: str) -> None:
    broken = json.dumps({**json.loads(bill), "specVersion": 7})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_it_names_what_is_installed_with_version_and_licence(bill: str, release: Release, base: Path) -> None:
    components = json.loads(bill)["components"]
    named = {each["name"].lower().replace("_", "-"): each["version"] for each in components}
    packages = json.loads(uv("pip", "list", "--quiet", "--format", "json", "--python", base))
    listed = {each["name"]: each["version"] for each in packages}
    # The package itself is what the bill is of.
    assert named | {"hf-gateway": release.wheel.name.split("-")[1]} == listed
    assert "hf-gateway" not in named
    assert [each["name"] for each in components if not each.get("licenses")] == []
    root = json.loads(bill)["metadata"]["component"]
    assert (root["name"], root["version"]) == ("hf-gateway", release.wheel.name.split("-")[1])
    assert [each["license"]["id"] for each in root["licenses"]] == ["Apache-2.0"]
