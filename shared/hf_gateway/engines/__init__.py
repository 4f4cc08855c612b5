"""In-process inference. An engine is a module with a class `Engine` and the names of its `OPTIONS`.

`choosing.ENGINES` is the order of preference, the fastest first. An engine that cannot produce the model's own
vectors raises `EngineFailed`, and the next one is tried.
"""

import contextlib
import importlib
import re
import weakref
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from hf_gateway.engines.choosing import ENGINES, PACKAGES, cuda_is_here, engine_order, installed
from hf_gateway.engines.forked import LOADING, compute_guard
from hf_gateway.engines.generation import Generation
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import ConfigError, EngineFailed, EngineMissing, GatewayError
from hf_gateway.values.chat import ChatRequest
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest
from hf_gateway.values.logs import logger
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.sparse import SparseAnswer
from hf_gateway.values.vector_space import VectorSpace

log = logger(__name__)


class EmbeddingEngine(Protocol):
    """A loaded embedding model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def precision(self) -> str:
        """Number type of its computations: fp32, bf16, fp16."""

    @property
    def dimension(self) -> int | None:
        """Values per vector."""

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32."""


class CrossEncoderEngine(Protocol):
    """A loaded model that scores pairs of texts."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document; None without a limit."""

    def rerank(self, request: RerankRequest) -> RerankAnswer:
        """Return the logit of each document. Raises ContextOverflow, EngineFailed."""


class SparseEngine(Protocol):
    """A loaded sparse model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    def embed(self, request: EmbedRequest) -> SparseAnswer:
        """Embed n texts of one role."""


class ChatEngine(Protocol):
    """A loaded chat model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of prompt and answer together; None if the model's files do not say."""

    def start(self, request: ChatRequest) -> Generation:
        """Prepare an answer, which is generated while it is read. Raises InvalidRequest."""


class ImageEngine(Protocol):
    """A loaded model that makes images, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    def draw(self, request: ImageRequest) -> ImageAnswer:
        """Make one image. Raises GatewayError."""


class ClassifyEngine(Protocol):
    """A loaded model for labels."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text; None for a model for images."""

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        """Label texts or images. Raises InvalidRequest, ContextOverflow, Unsupported, EngineFailed."""


def runnable() -> tuple[str, ...]:
    """Return the embedding engines whose packages are installed, the fastest first."""
    return tuple(name for name in ENGINES if all(installed(package) for package in PACKAGES[name]))


def require_engine(options: Mapping[str, Any] | None = None) -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine that `options` allow is installed."""
    named = (options or {}).get("engine")
    wanted = engine_order(options or {}, cuda=False) if named is not None else ENGINES
    if set(wanted).isdisjoint(runnable()):
        if named is not None:
            extra = "torch" if wanted == ("sentence_transformers",) else "local"
            raise EngineMissing(f"the engine {named!r} is not installed: pip install 'hf-gateway[{extra}]'")
        raise EngineMissing(
            "models in this process need an engine: pip install 'hf-gateway[local]' for a small and fast one, which runs "
            "BERT-like models, those with an ONNX file and converted ones; pip install 'hf-gateway[torch]' for all models"
        )


_engines: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()
_loading = fork_lock()


def open_engine(
    files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], revision: str | None = None
) -> EmbeddingEngine:
    """Return an engine for an embedding model; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        space: vector space of the model, with its prompts.
        options: the target's options.
        revision: revision of the files.

    Raises:
        EngineFailed, EngineMissing: no engine can run the model; with the reason of each engine.
        ConfigError: invalid options.
    """
    key = (str(files.path), space, revision, tuple(sorted(options.items())))
    with _loading:
        engine: EmbeddingEngine | None = _engines.get(key)
        if engine is None:
            wanted = engine_order(options, cuda=cuda_is_here())
            here = runnable()
            missing = {name: "is not installed" for name in wanted if name not in here}
            with compute_guard.using(LOADING):
                engine = _engines[key] = _first(
                    files, space, options, revision, [name for name in wanted if name in here], missing
                )
        return engine


def _first(
    files: ModelFiles,
    space: VectorSpace,
    options: Mapping[str, Any],
    revision: str | None,
    wanted: list[str],
    missing: Mapping[str, str],
) -> EmbeddingEngine:
    """Open the first engine that can run the model, and log why the engines before it cannot."""
    failures: dict[str, EngineFailed] = {}
    for name in wanted:
        try:
            module = importlib.import_module(f"hf_gateway.engines.{name}")
            engine: EmbeddingEngine = _load_or_fail(module.Engine, files, space, options, revision=revision)
        except EngineFailed as error:
            failures[name] = error
            continue
        if failures:
            log.info("%s: runs on %s, since %s", space.model, engine.name, _reasons(failures))
        return engine
    if len(failures) == 1 and not missing:
        raise next(iter(failures.values()))
    kind = EngineMissing if all(isinstance(error, EngineMissing) for error in failures.values()) else EngineFailed
    lacking = "".join(f"; {_words(name)} {reason}" for name, reason in missing.items())
    raise kind(f"no engine can run {space.model}: {_reasons(failures)}{lacking}")


def _load_or_fail(engine: Any, *arguments: Any, **named: Any) -> Any:
    """Load a model; other exceptions become EngineFailed, so that the next engine or target is tried."""
    try:
        return engine(*arguments, **named)
    except GatewayError:
        raise
    except Exception as error:
        raise EngineFailed(f"the model cannot be loaded: {type(error).__name__}: {error}") from error


def _reasons(failures: Mapping[str, EngineFailed]) -> str:
    """Return each reason once, after the engines that it applies to."""
    engines: dict[str, list[str]] = {}
    for name, error in failures.items():
        engines.setdefault(error.message, []).append(_words(name))
    return "; ".join(f"{', '.join(names)}: {message}" for message, names in engines.items())


def _words(name: str) -> str:
    return name.replace("_", "-")


def require_chat_engine() -> None:
    """Raise EngineMissing, with the `pip install` line, if no chat engine is installed."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise EngineMissing("chat models in this process need torch and transformers: pip install 'hf-gateway[torch]'")


def open_chat_engine(
    files: ModelFiles, options: Mapping[str, Any], revision: str | None = None, name: str | None = None
) -> ChatEngine:
    """Return an engine for a chat model; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        options: the target's options.
        revision: revision of the files.
        name: the model's name in answers and errors; by default its folder.

    Raises:
        EngineFailed, EngineMissing: the model cannot be loaded.
        ConfigError: invalid options.
    """
    engine: ChatEngine = _open_shared("transformers_chat", files, options, revision=revision, name=name)
    return engine


def require_cross_encoder() -> None:
    """Raise EngineMissing, with the `pip install` line, if rerankers cannot run in this process."""
    if not installed("sentence_transformers"):
        raise EngineMissing(
            "rerankers in this process need sentence-transformers: pip install 'hf-gateway[torch]'; the target 'lexical' "
            "needs no model"
        )


def open_cross_encoder(
    files: ModelFiles, options: Mapping[str, Any], revision: str | None = None
) -> CrossEncoderEngine:
    """Return an engine for a reranker; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        options: the target's options.
        revision: revision of the files.

    Raises:
        EngineFailed, EngineMissing: the model cannot be loaded, or is not a reranker.
        ConfigError: invalid options.
    """
    engine: CrossEncoderEngine = _open_shared("cross_encoder", files, options, revision=revision)
    return engine


def require_image_engine() -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine for images is installed."""
    if not all(map(installed, ("diffusers", "torch", "transformers"))):
        raise EngineMissing("images in this process need diffusers and torch: pip install 'hf-gateway[images]'")


def open_image_engine(files: ModelFiles, options: Mapping[str, Any], name: str | None = None) -> ImageEngine:
    """Return an engine for a model that makes images; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        options: the target's options.
        name: the model's name in answers and errors; by default its folder.

    Raises:
        EngineFailed, EngineMissing: the model cannot be loaded.
        ConfigError: invalid options.
    """
    engine: ImageEngine = _open_shared("diffusion", files, options, name=name)
    return engine


def require_classifier() -> None:
    """Raise EngineMissing, with the `pip install` line, if what runs models for labels is not installed."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise EngineMissing(
            "models for labels in this process need torch and transformers: pip install 'hf-gateway[torch]'"
        )


def open_classifier(files: ModelFiles, options: Mapping[str, Any], revision: str | None = None) -> ClassifyEngine:
    """Return an engine for a model for labels; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        options: the target's options.
        revision: revision of the files.

    Raises:
        EngineFailed, EngineMissing: the model cannot be loaded.
        ConfigError: invalid options.
    """
    engine: ClassifyEngine = _open_shared("classifier", files, options, revision=revision)
    return engine


def _open_shared(module: str, files: ModelFiles, options: Mapping[str, Any], **named: Any) -> Any:
    """Return the loaded engine of a module of this folder, loading it first if needed.

    Args:
        module: name of the module.
        files: the model's files.
        options: the target's options.
        named: further arguments of its `Engine`.
    """
    key = (module, str(files.path), tuple(named.items()), tuple(sorted(options.items())))
    with _loading:
        engine = _engines.get(key)
        if engine is None:
            made = importlib.import_module(f"hf_gateway.engines.{module}")
            with compute_guard.using(LOADING):
                engine = _engines[key] = _load_or_fail(made.Engine, files, options, **named)
        return engine


def require_sparse_engine() -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine for sparse models is installed."""
    if not installed("sentence_transformers"):
        raise EngineMissing(
            "sparse models in this process need torch and sentence-transformers: pip install 'hf-gateway[torch]'"
        )


def open_sparse_engine(
    files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], revision: str | None = None
) -> SparseEngine:
    """Return an engine for a sparse model; one that is loaded already is shared within the process.

    Args:
        files: the model's files.
        space: vector space of the model, with its prompts.
        options: the target's options.
        revision: revision of the files.

    Raises:
        EngineFailed, EngineMissing: the model cannot be loaded.
        ConfigError: invalid options.
    """
    engine: SparseEngine = _open_shared("sparse_encoder", files, options, space=space, revision=revision)
    return engine


def trusts_remote_code(files: ModelFiles, options: Mapping[str, Any], revision: str | None) -> bool:
    """Return whether the repository's code may run, after a check that the weights are safetensors.

    Args:
        files: the model's files.
        options: the target's options.
        revision: revision of the files.

    Raises:
        ConfigError: the code is trusted without a pinned commit.
        EngineFailed: there are no safetensors.
    """
    trusted = trust_of(files, options, revision)
    if not any(files.path.rglob("*.safetensors")):
        raise EngineFailed(
            f"{files.path} has no weights in safetensors; pickled ones (*.bin) are not loaded, since a pickle runs code"
        )
    return trusted


def trust_of(files: ModelFiles, options: Mapping[str, Any], revision: str | None) -> bool:
    """Return whether the repository's code may run.

    Args:
        files: the model's files.
        options: the target's options.
        revision: revision of the files.

    Raises:
        ConfigError: the code is trusted without a pinned commit.
    """
    trusted = bool(options.get("trust_remote_code", False))
    if trusted and files.source != "path" and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ConfigError(
            "trust_remote_code runs the repository's code, so it needs a revision that is a full commit hash (40 characters)"
        )
    return trusted


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """Hide transformers' progress bar for loading weights from disk."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
