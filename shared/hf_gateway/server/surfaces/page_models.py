"""Files of models as transformers.js reads them in browsers: of models that chains run in this process, and of the operator's.

A model is named by its chain, by its id, or by its name in `[server.browser_models]`; nothing else names a file, and nothing is
downloaded for a caller. A caller needs the right to use the chain, and for the operator's models the right to use all of them.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from hf_gateway.engines.sources import find
from hf_gateway.errors import ConfigError, EngineFailed
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.page import SECURITY
from hf_gateway.server.surfaces.session import SURFACE
from hf_gateway.tasks.registry import find_task
from hf_gateway.values.logs import logger
from hf_gateway.values.target import is_path
from hf_gateway.values.vector_space import canonical

if TYPE_CHECKING:
    from hf_gateway.engines.browser_files import BrowserFile

log = logger(__name__)

NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_quantized.onnx")
"""The files that a chain's model has here; engines/browser_files.py makes them."""
MAX_BYTES = 512 * 2**20
"""Maximum size of a file of the operator's: a browser keeps it in memory, and so does the server while it sends it."""
_OWN_FILE = re.compile(r"[A-Za-z0-9_]+\.json|onnx/[A-Za-z0-9_]+\.onnx(?:_data(?:_[0-9]+)?)?")
"""Names of the files of a model that transformers.js asks for."""
_ASK_AGAIN, _FOREVER = b"private, no-cache", b"private, max-age=31536000, immutable"


async def model_file(call: Call) -> Answer:
    """Answer with a file of a model; `v` in the query may be its digest, and the answer is then kept for good."""
    path = call.params["path"]
    name = next((each for each in NAMES if path.endswith(f"/{each}")), None)
    model = None if name is None else _model(call, path.removesuffix(f"/{name}"))
    if name is None or model is None:
        own = await asyncio.to_thread(_own, call, path)
        if own is not None:
            return own
        raise problems.not_found(
            f"there is no file {path[:200]!r}: the name of a local chain for embeddings or labels, its model's id, "
            f"or a name of [server.browser_models], and one of {', '.join(NAMES)}"
        )
    known = call.headers.get(b"if-none-match", b"")
    file, content = await asyncio.to_thread(_read, model, name, known)
    caching = _FOREVER if call.query("v") == file.sha256 else _ASK_AGAIN
    headers = [(b"etag", _etag(file)), (b"cache-control", caching), *SECURITY]
    if content is None:
        return Answer(status=304, headers=headers)
    return Answer(content, media_type=_media_type(name), headers=headers)


def _own(call: Call, path: str) -> Answer | None:
    """Return the answer with a file of `[server.browser_models]`; None if no file has this name, or not for the caller."""
    model, _, name = path.partition("/")
    folder = call.settings.browser_models.get(model)
    if (
        folder is None
        or not call.caller.may("read")
        or call.caller.chains is not None
        or _OWN_FILE.fullmatch(name) is None
    ):
        return None
    found = (folder / name).resolve()
    if not found.is_relative_to(folder.resolve()) or not found.is_file():
        return None
    try:
        stat = found.stat()
        if stat.st_size > MAX_BYTES:
            raise Problem(
                404,
                "model_not_for_browsers",
                f"{found.name} has {stat.st_size >> 20} MiB, and a browser gets at most {MAX_BYTES >> 20}",
            )
        etag = b'"%x-%x"' % (stat.st_size, stat.st_mtime_ns)
        headers = [(b"etag", etag), (b"cache-control", _ASK_AGAIN), *SECURITY]
        if etag in call.headers.get(b"if-none-match", b""):
            return Answer(status=304, headers=headers)
        return Answer(found.read_bytes(), media_type=_media_type(name), headers=headers)
    except OSError as error:
        log.error("%s for browsers cannot be read: %s", found, error)
        raise Problem(503, "files_unavailable", "the server cannot read this file; its log says why") from None


def _media_type(name: str) -> bytes:
    return b"application/json" if name.endswith(".json") else b"application/octet-stream"


def _etag(file: "BrowserFile") -> bytes:
    return b'"%b"' % file.sha256.encode()


@dataclass(frozen=True)
class _Model:
    """A model that a chain runs in this process."""

    name: str
    revision: str | None
    make: str
    """What makes its files, as `module:function`."""


def _model(call: Call, named: str) -> _Model | None:
    """Return the model that a chain's name, or a model's id, means; None if the caller may use none."""
    return next((model for wanted, model in _models(call) if named == wanted), None)


def _models(call: Call) -> Iterator[tuple[str, _Model]]:
    """Yield the models that the caller may use: by their chains' names first, then by their ids."""
    found = []
    for chain in call.table:
        ways = find_task(chain.task).for_browsers
        if ways is None or not call.caller.may_use(chain.name):
            continue
        if not (call.caller.may("read") or call.caller.may(ways.scope)):
            continue
        for target in chain.gateway.targets:
            name = target.model or chain.gateway.model
            if target.kind == "local" and name is not None:
                found.append((chain.name, _Model(name, target.revision, ways.make)))
    yield from found
    for _, model in found:
        if not is_path(model.name):
            yield from ((model.name, model), (canonical(model.name), model))


def _read(model: _Model, name: str, known: bytes) -> "tuple[BrowserFile, bytes | None]":
    """Return a file of a model, made if it is missing, and its bytes; None if the caller has them. Raises Problem."""
    try:
        files = find(model.name, model.revision)
        if files is None:
            raise Problem(
                404,
                "model_not_here",
                "the model is not on the server's machine yet; it is after the chain's first call",
            )
        file: BrowserFile = resolve_name(model.make)(files)[name]
        return file, None if _etag(file) in known else file.path.read_bytes()
    except (EngineFailed, ConfigError) as error:
        log.info("%s is not served to browsers: %s", model.name, error.message)
        raise Problem(
            404, "model_not_for_browsers", "this model has no files for browsers; the server's log says why"
        ) from None
    except OSError as error:
        log.error("files of %s for browsers cannot be made: %s", model.name, error)
        raise Problem(
            503, "files_unavailable", "the server cannot store files for browsers; its log says why", retry_after=30.0
        ) from None


ROUTES = (
    Route(
        "GET",
        "/ui/models/{path:path}",
        SURFACE,
        "read",
        model_file,
        "A file of a model, for browsers",
        media_type="application/octet-stream",
        statuses=(304, 404, 503),
        other_scopes=("embed", "classify"),
    ),
)
