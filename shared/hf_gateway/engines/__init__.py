"""In-process inference. An engine is a module with a class `Engine` and the names of its `OPTIONS`.

`choosing.ENGINES` is the order of preference, the fastest first. An engine that cannot produce the model's own
vectors raises `EngineFailed`, and the next one is tried.
"""

import contextlib
import importlib
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hf_gateway.engines.choosing import (
    CLASSIFIER_PACKAGES,
    EMBEDDING_ENGINES,
    ENGINES,
    PACKAGES,
    cuda_is_here,
    engine_order,
    installed,
)
from hf_gateway.engines.forked import LOADING, compute_guard
from hf_gateway.engines.protocols import (
    ChatEngine,
    ClassifyEngine,
    CrossEncoderEngine,
    EmbeddingEngine,
    ImageEngine,
    SparseEngine,
)
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.static_files import read_static
from hf_gateway.errors import ConfigError, EngineFailed, EngineMissing, GatewayError
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.vector_space import VectorSpace

log = logger(__name__)


def runnable(
    torch: Sequence[str] = PACKAGES["sentence_transformers"], engines: Sequence[str] = ENGINES
) -> tuple[str, ...]:
    """Return the engines whose packages are installed, the fastest first.

    Args:
        torch: packages that a task needs to run models on torch.
        engines: those that a task has.
    """
    packages = {**PACKAGES, "sentence_transformers": torch}
    return tuple(name for name in engines if all(map(installed, packages[name])))


def require_engine(options: Mapping[str, Any] | None = None) -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine that `options` allow is installed."""
    named = (options or {}).get("engine")
    wanted = engine_order(options or {}, cuda=False) if named is not None else ENGINES
    if set(wanted).isdisjoint(runnable(engines=EMBEDDING_ENGINES)):
        if named is not None:
            extra = "torch" if wanted == ("sentence_transformers",) else "local"
            raise EngineMissing(f"the engine {named!r} is not installed: pip install 'hf-gateway[{extra}]'")
        raise EngineMissing(
            "models in this process need an engine: pip install 'hf-gateway[local]' for a small and fast one, which runs "
            "most embedding models without torch; pip install 'hf-gateway[torch]' for all models"
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
    static = is_static(files)
    wanted = engine_order(options, cuda=not static and cuda_is_here(), static=static)

    def load(name: str) -> Any:
        if name == "sentence_transformers":
            refuse_blocks(options)
        return importlib.import_module(f"hf_gateway.engines.{name}").Engine(files, space, options, revision=revision)

    key = (str(files.path), _stamps(files), space, revision)
    engine: EmbeddingEngine = _open_first(
        key, space.model, options, _Candidates(wanted, runnable(engines=EMBEDDING_ENGINES), load)
    )
    return engine


def is_static(files: ModelFiles) -> bool:
    """Return whether a model is a table of token vectors, as far as its files on this machine say. Raises ConfigError."""
    return read_static(lambda name: read_json(files.path / name)) is not None


def refuse_static(files: ModelFiles) -> None:
    """Raise EngineFailed for a table of token vectors, of which engines for networks make no vectors."""
    if is_static(files):
        raise EngineFailed("it is a static model, a table of token vectors, which runs on the engine 'static' only")


def _stamps(files: ModelFiles) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes with the files of a user's folder, whose model may be trained again; the Hub's cache keeps its own."""
    if files.source != "path":
        return ()
    found = (
        path for pattern in ("*.json", "*.safetensors") for at in ("", "*/") for path in files.path.glob(at + pattern)
    )
    stamps = ((str(path), path.stat()) for path in sorted(found) if path.is_file())
    return tuple((name, about.st_mtime_ns, about.st_size, about.st_ino) for name, about in stamps)


@dataclass(frozen=True)
class _Candidates:
    """Engines that may run a model."""

    wanted: Sequence[str]
    """Names of those that the options allow, the preferred first."""
    here: Sequence[str]
    """Names of those that are installed."""
    load: Callable[[str], Any]
    """Loads the model into one of them."""


def _open_first(key: tuple[Any, ...], model: str, options: Mapping[str, Any], candidates: _Candidates) -> Any:
    """Return the first engine that can run the model, loading it if needed, and log why the engines before it cannot.

    Args:
        key: what the engine depends on, but for the options.
        model: the model's name, for the log and errors.
        options: the target's options.
        candidates: the engines.

    Raises:
        EngineFailed, EngineMissing: none can run it; with the reason of each engine.
        ConfigError: invalid options.
    """
    key = (*key, tuple(sorted(options.items())))
    with _loading:
        engine = _engines.get(key)
        if engine is None:
            with compute_guard.using(LOADING):
                engine = _engines[key] = _first(model, candidates)
        return engine


def _first(model: str, candidates: _Candidates) -> Any:
    missing = [name for name in candidates.wanted if name not in candidates.here]
    failures: dict[str, EngineFailed] = {}
    for name in candidates.wanted:
        if name in missing:
            continue
        try:
            engine = _load_or_fail(candidates.load, name)
        except EngineFailed as error:
            failures[name] = error
            continue
        if failures:
            log.info("%s: runs on %s, since %s", model, engine.name, _reasons(failures))
        return engine
    if len(failures) == 1 and not missing:
        raise next(iter(failures.values()))
    kind = EngineMissing if all(isinstance(error, EngineMissing) for error in failures.values()) else EngineFailed
    lacking = "".join(f"; {_words(name)} is not installed{_INSTALL.get(name, '')}" for name in missing)
    raise kind(f"no engine can run {model}: {_reasons(failures)}{lacking}")


_INSTALL = {"sentence_transformers": " (pip install 'hf-gateway[torch]')"}
"""How to install an engine that is not there."""


def refuse_blocks(options: Mapping[str, Any]) -> None:
    """Raise EngineFailed for the option `weights`, which torch does not support here."""
    if (weights := options.get("weights")) is not None:
        raise EngineFailed(f"it does not support weights={weights!r}")


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


def require_cross_encoder(options: Mapping[str, Any]) -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine that `options` allow is installed for rerankers."""
    if not _any_runs(options, runnable()):
        raise EngineMissing(
            "rerankers in this process need an engine: pip install 'hf-gateway[local]' for most, without torch, pip install "
            "'hf-gateway[torch]' for all; the target 'lexical' needs no model"
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
    engine: CrossEncoderEngine = _open_labelled("cross_encoder", runnable(), files, options, revision)
    return engine


def _open_labelled(
    module: str, here: Sequence[str], files: ModelFiles, options: Mapping[str, Any], revision: str | None
) -> Any:
    """Return an engine for a model with a head for labels: a graph built of its weights, or torch.

    Args:
        module: name of the module that runs it on torch; that for graphs has `graph_` before it.
        here: names of the engines that are installed.
        files: the model's files.
        options: the target's options.
        revision: revision of the files.
    """

    def load(name: str) -> Any:
        if name == "sentence_transformers":
            refuse_blocks(options)
            return importlib.import_module(f"hf_gateway.engines.{module}").Engine(files, options, revision=revision)
        graph = importlib.import_module(f"hf_gateway.engines.graph_{module}")
        return graph.Engine(files, options, name, revision=revision)

    candidates = _Candidates(engine_order(options, cuda=cuda_is_here()), here, load)
    key = (module, str(files.path), _stamps(files), revision)
    return _open_first(key, str(files.path), options, candidates)


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


def _any_runs(options: Mapping[str, Any], here: Sequence[str]) -> bool:
    return not set(engine_order(options, cuda=False)).isdisjoint(here)


def require_classifier(options: Mapping[str, Any]) -> None:
    """Raise EngineMissing, with the `pip install` line, if no engine that `options` allow is installed for labels."""
    if not _any_runs(options, runnable(CLASSIFIER_PACKAGES)):
        raise EngineMissing(
            "models for labels in this process need an engine: pip install 'hf-gateway[local]' for most of texts, "
            "without torch, pip install 'hf-gateway[torch]' for all"
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
    engine: ClassifyEngine = _open_labelled("classifier", runnable(CLASSIFIER_PACKAGES), files, options, revision)
    return engine


def _open_shared(module: str, files: ModelFiles, options: Mapping[str, Any], **named: Any) -> Any:
    """Return the loaded engine of a module of this folder, loading it first if needed.

    Args:
        module: name of the module.
        files: the model's files.
        options: the target's options.
        named: further arguments of its `Engine`.
    """
    key = (module, str(files.path), _stamps(files), tuple(named.items()), tuple(sorted(options.items())))
    with _loading:
        engine = _engines.get(key)
        if engine is None:
            refuse_blocks(options)
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
