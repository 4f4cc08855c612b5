"""A registry of npm on loopback, as `npm pack` asks it: a package's document, and its tarball."""

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tests.servers.loopback import Loopback, Recorded, Reply


def tarball(files: dict[str, bytes]) -> bytes:
    """Return a package's tarball with the given files, of one date, and so of one hash."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    # The header of gzip has the time.
    content = bytearray(made.getvalue())
    content[4:8] = bytes(4)
    return bytes(content)


def integrity(data: bytes) -> str:
    """Return a tarball's hash as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


class NpmRegistry(Loopback):
    """Serves the given tarballs, each as the version 1.0.0 of its package."""

    def __init__(self, packages: dict[str, bytes]) -> None:
        """Take tarballs by the names of their packages."""
        super().__init__()
        self.packages = packages

    def handle(self, request: Recorded) -> Reply:
        """Answer with a package's document, its tarball, or 404."""
        name = request.path.lstrip("/").replace("%2f", "/").replace("%2F", "/")
        if name in self.packages:
            dist = {"tarball": f"{self.url}/files/{name}", "integrity": integrity(self.packages[name])}
            version = {"name": name, "version": "1.0.0", "dist": dist}
            return Reply(200, {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})
        data = self.packages.get(name.removeprefix("files/"))
        return Reply(404, {"error": "not here"}) if data is None else Reply(200, data)


def only_registry(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Let npm ask this registry alone, once, and read no settings and no cache of the user.

    Args:
        monkeypatch: of the test.
        url: of the registry.
        home: a folder for what npm writes.
    """
    for name, value in {
        "registry": url,
        "userconfig": str(home / "npmrc"),
        "globalconfig": str(home / "global-npmrc"),
        "cache": str(home / "npm-cache"),
        "fetch_retries": "0",
    }.items():
        monkeypatch.setenv(f"npm_config_{name}", value)
