"""The page: files that were built from web/page and lie in the package, served from memory.

Nothing is read from disk after the first request and nothing is written, so that a read-only disk will do. All addresses in the
page are relative, so that it works under whatever path a proxy serves the server.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hf_gateway.server import problems
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.dispatch.call import Answer, Call, RawHeaders
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.surfaces.session import SURFACE

FOLDER = Path(__file__).parents[1] / "page"
"""The built files; `make page` makes them."""
LICENSES = "THIRD_PARTY_LICENSES.txt"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: nothing of another host, no inline script, no eval; WebAssembly may be compiled, and workers started."""
SECURITY: RawHeaders = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Together these two isolate the page from others, which is what threads in WebAssembly need.
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
_FOREVER = b"public, max-age=31536000, immutable"
_ASK_AGAIN = b"no-cache"


@dataclass(frozen=True)
class PageFile:
    """A file of the page, ready to send."""

    content: bytes
    """Its bytes."""
    compressed: bytes
    """The same by gzip."""
    media_type: bytes
    """Its type."""
    etag: bytes
    """Its name for caches, which changes with its content."""


@cache
def page_files() -> Mapping[str, PageFile]:
    """Return the files by their paths in the folder; blocks at the first call."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            etag = b'"%b"' % hashlib.sha256(content).hexdigest()[:20].encode()
            name = path.relative_to(FOLDER).as_posix()
            found[name] = PageFile(content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix], etag)
    return found


async def to_index(_: Call) -> Answer:
    """Send the browser to the page, by a path that is relative to this one."""
    return Answer(status=308, headers=[(b"location", b"ui/"), *SECURITY])


async def index(call: Call) -> Answer:
    """Answer with the page."""
    return await _file(call, "index.html", _ASK_AGAIN)


async def asset(call: Call) -> Answer:
    """Answer with a file of the page, whose name changes with its content."""
    return await _file(call, f"assets/{call.params['name']}", _FOREVER)


async def licenses(call: Call) -> Answer:
    """Answer with the licences of the packages in the page."""
    return await _file(call, LICENSES, _ASK_AGAIN)


async def _file(call: Call, name: str, caching: bytes) -> Answer:
    files = await asyncio.to_thread(page_files) if page_files.cache_info().currsize == 0 else page_files()
    file = files.get(name)
    if file is None:
        words = "a file of the page is missing" if name == "index.html" else "the page has no such file; load it again"
        raise problems.not_found(words)
    headers: RawHeaders = [(b"etag", file.etag), (b"cache-control", caching), (b"vary", b"accept-encoding"), *SECURITY]
    if file.etag in call.headers.get(b"if-none-match", b""):
        return Answer(status=304, headers=headers)
    if takes_gzip(call.headers.get(b"accept-encoding", b"")):
        headers.append((b"content-encoding", b"gzip"))
        return Answer(file.compressed, media_type=file.media_type, headers=headers)
    return Answer(file.content, media_type=file.media_type, headers=headers)


def takes_gzip(accepted: bytes) -> bool:
    """Return whether an Accept-Encoding header names gzip, and not with the weight 0."""
    for each in accepted.lower().split(b","):
        name, _, weight = each.partition(b";")
        if name.strip() == b"gzip":
            return weight.replace(b" ", b"").rstrip(b"0.") != b"q="
    return False


ROUTES = (
    Route("GET", "/ui", SURFACE, PUBLIC, to_index, "To the page", success=308),
    Route("GET", "/ui/", SURFACE, PUBLIC, index, "The page", media_type="text/html", statuses=(304,)),
    Route(
        "GET",
        "/ui/assets/{name}",
        SURFACE,
        PUBLIC,
        asset,
        "A file of the page",
        media_type="text/javascript",
        statuses=(304, 404),
    ),
    Route(
        "GET",
        f"/ui/{LICENSES}",
        SURFACE,
        PUBLIC,
        licenses,
        "The licences of what the page contains",
        media_type="text/plain",
        statuses=(304,),
    ),
)
