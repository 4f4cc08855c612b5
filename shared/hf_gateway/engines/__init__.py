"""In-process inference. An engine is a module with a class `Engine` and the names of its `OPTIONS`.

`ENGINES` is the order of preference, the fastest first. What an engine cannot serve in the model's own space it refuses
with `EngineFailed`, and the next one takes over.
"""

import importlib
import threading
import weakref
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.space import VectorSpace

ENGINES = ("sentence_transformers",)


class EmbeddingEngine(Protocol):
    """A loaded model, whichever engine runs it."""

    name: str

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def dimension(self) -> int | None:
        """Numbers a vector."""

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32."""


_PACKAGES = ("sentence_transformers",)
"""What the engines stand on; one of them is enough."""


def require_engine() -> None:
    """Raise EngineMissing, with the `pip install` line, when no engine's package is installed."""
    if not any(find_spec(package) for package in _PACKAGES):
        raise EngineMissing("models in this process need sentence-transformers: pip install 'hf-gateway[torch]'")


_loaded: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def open_engine(
    files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], revision: str | None = None
) -> EmbeddingEngine:
    """Return an engine for the model; one that is loaded already is shared by everybody in the process.

    Raises the last engine's EngineFailed or EngineMissing when none can serve it.
    """
    key = (str(files.path), space, revision, tuple(sorted(options.items())))
    with _loading:
        engine: EmbeddingEngine | None = _loaded.get(key)
        failure: EngineFailed | None = None
        for name in ENGINES:
            if engine is not None:
                return engine
            try:
                engine = importlib.import_module(f"hf_gateway.engines.{name}").Engine(
                    files, space, options, revision=revision
                )
                _loaded[key] = engine
            except EngineFailed as error:
                failure = error
        if engine is None:
            raise failure or EngineFailed("no engine is known")
        return engine
