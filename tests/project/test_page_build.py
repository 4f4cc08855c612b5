"""The page's built files in the package: what the source gives, byte for byte, small, and under licences that may be carried."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.page_build import BUILT, SOURCE, WORK, build, missing

FIRST_LOAD_BYTES = 80_000
"""Maximum of what the first load transfers, compressed."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def needs_npm() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)


@pytest.mark.xdist_group("page build")
def test_the_built_files_are_what_the_source_gives(tmp_path: Path) -> None:
    needs_npm()
    build(tmp_path / "page")
    assert contents(tmp_path / "page") == contents(BUILT), "run `make page`"


def named() -> list[str]:
    """Return the addresses that the page itself names, which are loaded with it."""
    return re.findall(r'(?:src|href)="([^"]*)"', (BUILT / "index.html").read_text(encoding="utf-8"))


def test_the_first_load_is_small() -> None:
    files = contents(BUILT)
    loaded = ["index.html", *(address.removeprefix("./") for address in named())]
    assert sum(len(gzip.compress(files[name], 9)) for name in loaded) < FIRST_LOAD_BYTES


def test_the_chart_is_not_part_of_the_first_load() -> None:
    files = contents(BUILT)
    drawing = [name for name, data in files.items() if name.endswith(".js") and b"uplot" in data]
    assert len(drawing) == 1
    assert f"./{drawing[0]}" not in named()


def test_the_page_names_no_file_of_another_host() -> None:
    index = (BUILT / "index.html").read_text(encoding="utf-8")
    addresses = named()
    assert len(addresses) == 3
    assert all(address.startswith("./assets/") for address in addresses)
    assert "<style" not in index
    assert re.findall(r"<script\b[^>]*>(.*?)</script>", index) == [""]


def test_the_lock_names_no_registry_and_has_every_hash() -> None:
    packages = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    del packages[""]
    assert not [place for place, each in packages.items() if "resolved" in each]
    assert not [place for place, each in packages.items() if "integrity" not in each]


def test_a_licence_outside_the_list_fails_the_build(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    lock = {"packages": {"": {}, "node_modules/strange": {"version": "1.0.0", "license": "SSPL-1.0"}}}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    module = json.dumps((SOURCE / "scripts" / "licenses.mjs").as_uri())
    code = f"import {{ licenceText }} from {module}; licenceText(process.argv[1])"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "strange 1.0.0 has the licence SSPL-1.0" in done.stderr


def test_the_licences_are_of_the_packages_in_the_lock() -> None:
    packages = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    text = (BUILT / "THIRD_PARTY_LICENSES.txt").read_text(encoding="utf-8")
    carried = [
        f"{place.removeprefix('node_modules/')} {each['version']}"
        for place, each in packages.items()
        if place and not each.get("dev")
    ]
    assert carried
    assert all(name in text for name in carried)
    assert WORK.parts[-3:] == ("npm", "web", "page")
