"""Embedding models for browsers: files of the models that chains run in this process, as transformers.js reads them.

A model is named by its chain, or by its id; nothing else names a file, and nothing is downloaded for a caller. A caller needs the
right to use the chain.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_gateway.engines.sources import find
from hf_gateway.errors import ConfigError, EngineFailed
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.page import SECURITY
from hf_gateway.server.surfaces.session import SURFACE
from hf_gateway.values.logs import logger
from hf_gateway.values.target import is_path
from hf_gateway.values.vector_space import canonical

if TYPE_CHECKING:
    from hf_gateway.engines.browser_files import BrowserFile

log = logger(__name__)

NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_quantized.onnx")
"""The files that a model has here; engines/browser_files.py makes them."""
_ASK_AGAIN, _FOREVER = b"private, no-cache", b"private, max-age=31536000, immutable"


async def model_file(call: Call) -> Answer:
    """Answer with a file of a model; `v` in the query may be its digest, and the answer is then kept for good."""
    path = call.params["path"]
    name = next((each for each in NAMES if path.endswith(f"/{each}")), None)
    model = None if name is None else _model(call, path.removesuffix(f"/{name}"))
    if name is None or model is None:
        raise problems.not_found(
            f"there is no file {path[:200]!r}: a local embedding chain's name, or its model's id, and one of {', '.join(NAMES)}"
        )
    known = call.headers.get(b"if-none-match", b"")
    file, content = await asyncio.to_thread(_read, model, name, known)
    caching = _FOREVER if call.query("v") == file.sha256 else _ASK_AGAIN
    headers = [(b"etag", _etag(file)), (b"cache-control", caching), *SECURITY]
    if content is None:
        return Answer(status=304, headers=headers)
    media_type = b"application/json" if name.endswith(".json") else b"application/octet-stream"
    return Answer(content, media_type=media_type, headers=headers)


def _etag(file: "BrowserFile") -> bytes:
    return b'"%b"' % file.sha256.encode()


@dataclass(frozen=True)
class _Model:
    """A model that a chain runs in this process."""

    name: str
    revision: str | None


def _model(call: Call, named: str) -> _Model | None:
    """Return the model that a chain's name, or a model's id, means; None if the caller may use none."""
    return next((model for wanted, model in _models(call) if named == wanted), None)


def _models(call: Call) -> Iterator[tuple[str, _Model]]:
    """Yield the models that the caller may use: by their chains' names first, then by their ids."""
    found = []
    for chain in call.table:
        if chain.space is not None and call.caller.may_use(chain.name):
            for target in chain.gateway.targets:
                name = target.model or chain.gateway.model
                if target.kind == "local" and name is not None:
                    found.append((chain.name, _Model(name, target.revision)))
    yield from found
    for _, model in found:
        if not is_path(model.name):
            yield from ((model.name, model), (canonical(model.name), model))


def _read(model: _Model, name: str, known: bytes) -> "tuple[BrowserFile, bytes | None]":
    """Return a file of a model, made if it is missing, and its bytes; None if the caller has them. Raises Problem."""
    from hf_gateway.engines.browser_files import browser_files

    try:
        files = find(model.name, model.revision)
        if files is None:
            raise Problem(
                404,
                "model_not_here",
                "the model is not on the server's machine yet; it is after the chain's first call",
            )
        file = browser_files(files)[name]
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
        "A file of an embedding model, for browsers",
        media_type="application/octet-stream",
        statuses=(304, 404, 503),
        other_scopes=("embed",),
    ),
)
