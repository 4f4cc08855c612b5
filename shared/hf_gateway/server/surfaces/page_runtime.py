"""What runs models in a browser: the files that `hf-gateway browser-runtime` has fetched, served to pages of this server alone.

They are no secret, and no part of the package: without them a page says which command fetches them.
"""

import asyncio
from pathlib import Path

from pydantic import BaseModel

from hf_gateway.engines.browser_runtime import COMMAND, LICENSES, RUNTIME
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.dispatch.call import Answer, Call, RawHeaders
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.page import SECURITY, takes_gzip
from hf_gateway.server.surfaces.session import SURFACE
from hf_gateway.values.logs import logger
from hf_gateway.wire.json import dumps

log = logger(__name__)

_TYPES = {
    ".js": b"text/javascript; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".wasm": b"application/wasm",
    ".txt": b"text/plain; charset=utf-8",
}
_FOREVER, _ASK_AGAIN = b"public, max-age=31536000, immutable", b"no-cache"
_MISSING = f"the server has nothing to run models in a browser with; run `{COMMAND}` on its machine"


class RuntimeAnswer(BaseModel):
    """The answer of GET /ui/runtime."""

    available: bool
    """Whether the files are on the server's machine."""
    name: str
    """What they are, with its version."""
    files: dict[str, str]
    """Name of each file → its digest, by which `v` in the query has it kept for good."""
    reason: str | None
    """What to do if they are not there; null if they are."""


async def describe(_: Call) -> Answer:
    """Answer whether the server has what runs models in a browser."""
    available = await asyncio.to_thread(RUNTIME.folder.is_dir)
    found = {
        "available": available,
        "name": RUNTIME.name,
        "files": RUNTIME.files if available else {},
        "reason": None if available else _MISSING,
    }
    return Answer(dumps(found), headers=[(b"cache-control", _ASK_AGAIN), *SECURITY])


async def runtime_file(call: Call) -> Answer:
    """Answer with a file; `v` in the query may be its digest, and the answer is then kept for good."""
    name = call.params["name"]
    digest = RUNTIME.files.get(name)
    if digest is None and name != LICENSES:
        raise Problem(404, "not_found", f"there is no file {name[:200]!r}: GET /ui/runtime names those that there are")
    etag = b'"%b"' % (digest or RUNTIME.name).encode()
    caching = _FOREVER if digest is not None and call.query("v") == digest else _ASK_AGAIN
    headers: RawHeaders = [(b"etag", etag), (b"cache-control", caching), (b"vary", b"accept-encoding"), *SECURITY]
    if etag in call.headers.get(b"if-none-match", b""):
        return Answer(status=304, headers=headers)
    compressed = digest is not None and takes_gzip(call.headers.get(b"accept-encoding", b""))
    content = await asyncio.to_thread(_read, RUNTIME.folder / (f"{name}.gz" if compressed else name))
    if compressed:
        headers.append((b"content-encoding", b"gzip"))
    return Answer(content, media_type=_TYPES[Path(name).suffix], headers=headers)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Problem(404, "runtime_missing", _MISSING) from None
    except OSError as error:
        log.error("a file for browsers cannot be read: %s", error)
        raise Problem(503, "files_unavailable", "the server cannot read files for browsers; its log says why") from None


ROUTES = (
    Route(
        "GET",
        "/ui/runtime",
        SURFACE,
        PUBLIC,
        describe,
        "Whether the server has what runs models in a browser",
        answer=RuntimeAnswer,
    ),
    Route(
        "GET",
        "/ui/runtime/{name}",
        SURFACE,
        PUBLIC,
        runtime_file,
        "A file of what runs models in a browser",
        media_type="application/octet-stream",
        statuses=(304, 404, 503),
    ),
)
