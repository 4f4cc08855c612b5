"""A package index on loopback, as pip and uv read it: the JSON pages of PEP 691, and the files."""

import hashlib
import os

import pytest

from tests.servers.loopback import Loopback, Recorded, Reply

JSON = "application/vnd.pypi.simple.v1+json"


class PackageIndex(Loopback):
    """Serves the given files as those of one package."""

    def __init__(self, package: str, files: dict[str, bytes]) -> None:
        """Take the package's name, and its files by their names."""
        super().__init__()
        self.package = package
        self.files = files

    @property
    def simple(self) -> str:
        """URL of the index."""
        return f"{self.url}/simple"

    def handle(self, request: Recorded) -> Reply:
        """Answer with the package's page, a file, or 404."""
        if request.path == f"/simple/{self.package}/":
            files = [
                {
                    "filename": name,
                    "url": f"{self.url}/files/{name}",
                    "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                }
                for name, data in self.files.items()
            ]
            return Reply(
                200, {"meta": {"api-version": "1.0"}, "name": self.package, "files": files}, {"content-type": JSON}
            )
        data = self.files.get(request.path.removeprefix("/files/"))
        return Reply(404, b"not here") if data is None else Reply(200, data, {"content-type": "application/zip"})


def only_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let pip and uv ask this index alone, once, and take nothing from a cache."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
