"""`local`: the model runs in this process."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, Unpack

from hf_gateway.backends.base import Ability, ProbeReport, Server, ServerArguments
from hf_gateway.backends.chat import ChatAbility, emit_content
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.thoughts import PLAIN_REASONING
from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.engines import (
    converted,
    is_static,
    open_chat_engine,
    open_engine,
    require_chat_engine,
    require_engine,
    runnable,
    sources,
)
from hf_gateway.engines.choosing import OPTIONS, check_options
from hf_gateway.engines.layout import is_built
from hf_gateway.engines.networks.build import settings_refusal
from hf_gateway.engines.networks.heads import build_labelled
from hf_gateway.engines.protocols import ChatEngine, EmbeddingEngine, SparseEngine
from hf_gateway.errors import AuthenticationFailed, BatchTooLarge, EngineMissing, GatewayError, ModelNotFound
from hf_gateway.runtime.effects import Compute, Effects, Read
from hf_gateway.settings.base import ChainOptions
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.settings.config_file import hub_url
from hf_gateway.storage.notices import notice_once
from hf_gateway.values import kinds
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatRequest
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.http import json_size
from hf_gateway.values.reasoning import with_reasoning
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.wire import hf_inference

EngineT = TypeVar("EngineT")
VectorEngineT = TypeVar("VectorEngineT", bound=EmbeddingEngine | SparseEngine)
MAX_TEXTS = 1024
"""Enough to sort by length."""
MAX_BYTES = 256_000
"""Limits the time between two chances to cancel to a few seconds: some 60,000 tokens."""


def check_size(texts: Sequence[str], most: int, max_bytes: int, noun: str = "texts") -> None:
    """Raise BatchTooLarge for more than keeps cancelling quick; one text is never too much.

    Args:
        texts: what is computed at once.
        most: how many may be.
        max_bytes: how many bytes they may have in JSON.
        noun: what they are, for the error.
    """
    if len(texts) > 1 and (len(texts) > most or sum(map(json_size, texts)) > max_bytes):
        raise BatchTooLarge(f"takes {most} {noun} of {max_bytes:,} bytes at once", max_texts=most, max_bytes=max_bytes)


class LocalAbility(Ability, Generic[EngineT]):
    """Holds one engine, which is loaded when it is first needed.

    A task's class implements `require` and `open`, and overrides what differs.
    """

    server: "LocalServer"

    def __init__(self, server: Server, options: ChainOptions) -> None:
        super().__init__(server, options)
        self._engine: EngineT | None = None

    def prepare(self) -> None:
        """Find a key, if there is something to download."""
        if self._engine is None and self.find_model() is None:
            super().prepare()

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a missing model; loads and downloads nothing."""
        return self.server.find_model(self.require)

    def close(self) -> None:
        """Release the model and the thread."""
        self._engine = None
        super().close()

    def compute(self, work: Callable[[EngineT], Any]) -> Effects:
        """Do work with the engine on the server's thread, loading the model first if needed."""

        def run() -> Any:
            try:
                return work(self.engine())
            except GatewayError as error:
                error.target = error.target or self.target.label
                raise

        return (yield Compute(run, self.server.executor()))

    def engine(self) -> EngineT:
        """Return the engine, loading the model first if needed."""
        with self.server.loading:
            engine = self._engine
            if engine is None:
                self.require()  # before a model of gigabytes is downloaded in vain
                engine = self._engine = self.open(self.find_model() or self.fetch_model())
            return engine

    def require(self) -> None:
        """Raise EngineMissing if no engine is installed that could run the model."""
        raise NotImplementedError

    def open(self, files: sources.ModelFiles) -> EngineT:
        """Load the model. Raises GatewayError."""
        raise NotImplementedError

    def find_model(self) -> sources.ModelFiles | None:
        """Return the model's files; None if something must be downloaded."""
        assert self.target.model is not None
        files = sources.find(self.target.model, self.target.revision)
        return files if files is not None and self.is_complete(files) else None

    def is_complete(self, files: sources.ModelFiles) -> bool:
        """Return whether an engine could run a model without a download."""
        return sources.is_complete(files, "safetensors")

    def fetch_model(self) -> sources.ModelFiles:
        """Download the model."""
        assert self.target.model is not None
        trusted = bool(self.target.options.get("trust_remote_code"))
        return sources.fetch(self.target.model, self.target.revision, self.server.credential(), code=trusted)


class LocalVectors(LocalAbility[VectorEngineT], VectorAbility):
    """Makes vectors in this process, dense or sparse."""

    most_texts = MAX_TEXTS

    @property
    def authoritative(self) -> bool:
        """Always True: the model's own files make the vectors."""
        return True

    @property
    def mixes_roles(self) -> bool:
        """Always False: an engine puts the prompt of the request's role before all its texts."""
        return False

    def prepare(self) -> None:
        """Read the model's description; and find a key, if there is something to download."""
        self.model_space()
        super().prepare()

    def find_files(self, model: str) -> sources.ModelFiles | None:
        """Return the model's files on this machine. Raises ConfigError for a name that neither it nor the Hub can have."""
        return sources.find(model, self.target.revision)

    def whole_space(self) -> VectorSpace:
        """Return the space, read again: downloaded files contain more than was known without them."""
        self._model_space = self.read_model_space()
        return self.space()

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed in this process."""
        check_size(request.texts, MAX_TEXTS, MAX_BYTES)
        return (yield from self.compute(lambda engine: engine.embed(request)))


class LocalEmbedding(LocalVectors[EmbeddingEngine], EmbeddingAbility):
    """Embeds in this process."""

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a missing model; loads and downloads nothing."""
        engine = self._engine
        runs = f", in {engine.precision} on {engine.device} by {engine.name}" if engine is not None else ""
        return self.server.find_model(self.require, runs)

    def require(self) -> None:
        """Raise EngineMissing if no engine is installed that the options allow."""
        require_engine(self.target.options)

    def open(self, files: sources.ModelFiles) -> EmbeddingEngine:
        """Load the model into the fastest engine that supports it."""
        return open_engine(files, self.whole_space(), self.target.options, self.target.revision)

    def is_complete(self, files: sources.ModelFiles) -> bool:
        """Return whether there are weights in a form that can be used here."""
        return any(sources.is_complete(files, form) for form in _usable_weights(files))

    def fetch_model(self) -> sources.ModelFiles:
        """Download the model: what describes it, and its weights in the first form that can be used here."""
        model, revision, credential = self.target.model, self.target.revision, self.server.credential()
        assert model is not None
        trusted = bool(self.target.options.get("trust_remote_code"))
        if not _torch_runs():
            files = sources.fetch(model, revision, credential, weights="none")
        for form in ("safetensors",) if _torch_runs() else _usable_weights(files):
            files = sources.fetch(model, revision, credential, code=trusted, weights=form)
            # Tensors that were downloaded may turn out to be of a network that is not built.
            if sources.is_available(files, form) and form in _usable_weights(files):
                break
        return files


def _torch_runs() -> bool:
    return "sentence_transformers" in runnable()


def _usable_weights(files: sources.ModelFiles) -> tuple[sources.Weights, ...]:
    """Return the forms of a model's weights that an engine here can run, the preferred first.

    Tensors if torch is installed, if the model is a table of vectors, if a graph can be built of them, or if they were converted
    before; otherwise a graph.
    """
    if _torch_runs():
        return ("safetensors",)
    if is_static(files):
        return ("safetensors",)
    if is_built(files) or converted.is_converted(files):
        return ("safetensors", "graph")
    return ("graph",)


class LocalLabelled(LocalAbility[EngineT]):
    """Runs models with a head for labels: as graphs of their weights, or on torch."""

    on_torch: tuple[str, ...]
    """Packages that run them on torch."""

    def fetch_model(self) -> sources.ModelFiles:
        """Download the model; without torch, only one whose graph can be built by its settings.

        Raises EngineMissing before its weights are downloaded.
        """
        if "sentence_transformers" not in runnable(self.on_torch):
            model, revision = self.target.model, self.target.revision
            assert model is not None
            files = sources.fetch(model, revision, self.server.credential(), weights="none")
            if refused := settings_refusal(files.path, build_labelled):
                raise EngineMissing(
                    f"{model} runs on torch only, since {refused.message}: pip install 'hf-gateway[torch]'"
                )
        return super().fetch_model()


class LocalChat(ChatAbility):
    """Chat with a model in this process."""

    server: "LocalServer"

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        self._engines: dict[str, ChatEngine] = {}

    @property
    def context(self) -> int | None:
        """The model's maximum tokens, from its files on this machine."""
        model = self.target.model or ""
        if (engine := self._engines.get(model)) is not None:
            return engine.context
        files = sources.find(model, self.target.revision)
        return sources.context_of(files) if files else None

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer in this process; the pieces come from the engine's own thread.

        Args:
            request: the conversation.
            builder: collects the answer.
        """
        model = request.model or self.target.model or ""
        if self.target.options.get("send_reasoning") == "never":
            request = dataclasses.replace(request, messages=tuple(with_reasoning(request.messages, None)))
        if unsent := request.sampling.extra_body:
            notice_once(
                f"{self.target.label}: a model in this process does not support extra_body ({', '.join(unsent)})"
            )
        engine: ChatEngine = yield Compute(lambda: self.chat_engine(model), self.server.executor())
        generation = engine.start(request)
        while (event := (yield Read(generation, patient=True))) is not None:
            yield from emit_content(builder, [event])

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a missing model; loads and downloads nothing."""
        return self.server.find_model(require_chat_engine)

    def close(self) -> None:
        """Release the models and the thread."""
        self._engines = {}
        super().close()

    def chat_engine(self, model: str) -> ChatEngine:
        """Return the engine for a chat model, loading it first if needed."""
        with self.server.loading:
            engine = self._engines.get(model)
            if engine is None:
                target = self.target
                require_chat_engine()  # before a model of gigabytes is downloaded in vain
                revision = target.revision if model == target.model else None
                trusted = bool(target.options.get("trust_remote_code"))
                files = sources.fetch(model, revision, self.server.credential(), code=trusted)
                engine = self._engines[model] = open_chat_engine(files, target.options, revision, model)
            return engine


class LocalServer(Server):
    """This process: loads a model when it is first needed; async calls queue on one thread, so the event loop stays free.

    Options: `engine` ("openvino", "onnxruntime", "torch" or "static"; by default the fastest that supports the model),
    `device`, `dtype` ("auto", "fp32", "bf16", or torch's names), `weights` ("int8": kept in 8 bits in blocks of 64, by
    graphs that are built from weights), `batch_size` (texts at once, for embeddings),
    `trust_remote_code` (with a revision that is a whole commit), for chat `send_reasoning` ("auto": the chat template
    receives the reasoning of turns with tool calls, if it supports that; "never").
    """

    kind = kinds.LOCAL
    abilities = {
        "embedding": LocalEmbedding,
        "chat": LocalChat,
        "rerank": "hf_gateway.backends.local_rerank:LocalRerank",
        "image": "hf_gateway.backends.local_image:LocalImage",
        "sparse": "hf_gateway.backends.local_sparse:LocalSparse",
        "classification": "hf_gateway.backends.local_classification:LocalClassify",
    }
    option_types = {**OPTION_TYPES, "send_reasoning": PLAIN_REASONING}
    option_names = OPTIONS | {"send_reasoning"}
    tuning_options = frozenset({"engine", "device", "batch_size", "send_reasoning"})

    def __init__(self, target: Target, **given: Unpack[ServerArguments]) -> None:
        super().__init__(target, **given)
        check_options(self.target.options)
        # Two locks: the event loop asks for the thread, and must not wait for a model that is being loaded.
        self.loading = fork_lock()
        self._starting = fork_lock()
        self._threads: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    @property
    def key_url(self) -> str:
        """The Hub's URL, where the model is downloaded from."""
        return hub_url(self.environment)

    def find_model(self, require: Callable[[], None], runs: str = "") -> Effects:
        """Look for the model on this machine, and ask the Hub about a missing one; returns a `ProbeReport`.

        Args:
            require: raises if no engine could run it.
            runs: how it runs here, if it is loaded.
        """
        name = self.target.model
        assert name is not None

        def find() -> sources.ModelFiles | None:
            require()
            return sources.find(name, self.target.revision)

        found: sources.ModelFiles | None = yield Compute(find, self.executor())
        model = canonical(name)
        if found is not None:
            return ProbeReport([model], f"on this machine ({found.source}: {found.path}){runs}")
        try:
            access = hf_inference.decode_access((yield from self.ask(hf_inference.encode_routes(self.key_url, model))))
        except (AuthenticationFailed, ModelNotFound) as error:
            raise ModelNotFound(
                f"{model} is not on this machine, and not on the Hub, or private: {error.message}",
                target=self.target.label,
            ) from None
        return ProbeReport([model], "not on this machine yet; the first call downloads it from the Hub", access)

    def close(self) -> None:
        """Release the thread."""
        with self._starting:
            threads, self._threads = self._threads, None
        if threads is not None and self._pid == os.getpid():
            threads.shutdown(wait=False, cancel_futures=True)

    def executor(self) -> ThreadPoolExecutor:
        """Return the single thread that computes; started when it is first needed."""
        with self._starting:
            if self._threads is None or self._pid != os.getpid():  # threads do not survive a fork
                self._pid = os.getpid()
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="hf-gateway-local")
            return self._threads
