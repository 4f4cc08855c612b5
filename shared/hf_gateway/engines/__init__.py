"""In-process inference. An engine is a module with a class `Engine` and the names of its `OPTIONS`.

`ENGINES` is the order of preference, the fastest first. What an engine cannot serve in the model's own space it refuses
with `EngineFailed`, and the next one takes over.
"""

import contextlib
import importlib
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from hf_gateway.chat import ChatRequest
from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.engines.generation import Generation
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import ConfigError, EngineFailed, EngineMissing
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


class ChatEngine(Protocol):
    """A loaded model that answers in a conversation, whichever engine runs it."""

    name: str

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def context(self) -> int | None:
        """Tokens it takes, prompt and answer together; None where its files do not say."""

    def start(self, request: ChatRequest) -> Generation:
        """Prepare an answer, which is made while it is read. Raises InvalidRequest."""


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


def require_chat_engine() -> None:
    """Raise EngineMissing, with the `pip install` line, when no engine for chats is installed."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise EngineMissing("chat models in this process need torch and transformers: pip install 'hf-gateway[torch]'")


def open_chat_engine(
    files: ModelFiles, options: Mapping[str, Any], revision: str | None = None, name: str | None = None
) -> ChatEngine:
    """Return an engine for the chat model; one that is loaded already is shared by everybody in the process.

    name: what answers and errors call the model, by default its folder. Raises EngineFailed, EngineMissing, ConfigError.
    """
    key = ("chat", str(files.path), name, revision, tuple(sorted(options.items())))
    with _loading:
        engine: ChatEngine | None = _loaded.get(key)
        if engine is None:
            made = importlib.import_module("hf_gateway.engines.transformers_chat")
            engine = _loaded[key] = made.Engine(files, options, revision=revision, name=name)
        return engine


def trusts_code(files: ModelFiles, options: Mapping[str, Any], revision: str | None) -> bool:
    """Say whether a repository's code may run, and hold every engine to safetensors. Raises ConfigError, EngineFailed."""
    trusted = bool(options.get("trust_remote_code", False))
    if trusted and files.source != "path" and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ConfigError(
            "trust_remote_code runs the repository's code, so it needs a revision that is a whole commit (40 characters)"
        )
    if not any(files.path.rglob("*.safetensors")):
        raise EngineFailed(
            f"{files.path} has no weights in safetensors; pickled ones (*.bin) are not loaded, since a pickle runs code"
        )
    return trusted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for loading weights that are on this disk."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
