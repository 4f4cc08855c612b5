"""What runs models in a browser, as the server hands it out: public, cached by digest, or the command that fetches it."""

import gzip
import hashlib
from collections.abc import Iterator

import httpx
import pytest

from hf_gateway.engines.browser_runtime import LICENSES, BrowserRuntime, NpmPackage
from tests.support.gateway_server import gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.server.surfaces import page_runtime

MODULE = b"\0asm\1\0\0\0"
DIGEST = hashlib.sha256(MODULE).hexdigest()
TINY = BrowserRuntime("tiny-1.0", (NpmPackage("runtime", "1.0.0", "", "MIT", {"dist/run.wasm": DIGEST}),))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(page_runtime, "RUNTIME", TINY)
    with gateway_server() as server, server.client() as made:
        yield made


def fetched() -> None:
    TINY.folder.mkdir(parents=True)
    (TINY.folder / "run.wasm").write_bytes(MODULE)
    (TINY.folder / "run.wasm.gz").write_bytes(gzip.compress(MODULE))
    (TINY.folder / LICENSES).write_text("MIT")


def test_a_server_without_it_names_the_command(client: httpx.Client) -> None:
    said = client.get("/ui/runtime").json()
    assert (said["available"], said["files"]) == (False, {})
    assert "hf-gateway browser-runtime" in said["reason"]
    for name in ("run.wasm", LICENSES):
        answer = client.get(f"/ui/runtime/{name}")
        assert answer.status_code == 404
        assert "hf-gateway browser-runtime" in answer.text


def test_files_are_named_and_kept_by_their_digests(client: httpx.Client) -> None:
    fetched()
    said = client.get("/ui/runtime").json()
    assert said == {"available": True, "name": "tiny-1.0", "files": {"run.wasm": DIGEST}, "reason": None}
    plain = client.get("/ui/runtime/run.wasm", headers={"accept-encoding": "identity"})
    assert (plain.content, plain.headers["content-type"]) == (MODULE, "application/wasm")
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.headers["cross-origin-embedder-policy"] == "require-corp"
    kept = client.get("/ui/runtime/run.wasm", params={"v": DIGEST}, headers={"accept-encoding": "gzip"})
    assert (kept.content, kept.headers["content-encoding"]) == (MODULE, "gzip")
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = client.get("/ui/runtime/run.wasm", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/ui/runtime/{LICENSES}").text == "MIT"


@pytest.mark.parametrize("name", ["run.wasm.gz", "other.js", "..%2f..%2fserved.toml", "%2e%2e", "package.json"])
def test_other_names_are_no_files(name: str, client: httpx.Client) -> None:
    fetched()
    answer = client.get(f"/ui/runtime/{name}")
    assert answer.status_code == 404
    assert MODULE not in answer.content
