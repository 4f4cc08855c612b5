"""`local`: the model runs in this process."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from hf_gateway.backends.base import Backend, Report
from hf_gateway.config import hub_url
from hf_gateway.drive import Compute, Effects
from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.engines import EmbeddingEngine, open_engine, require_engine, sources
from hf_gateway.errors import AuthenticationFailed, ConfigError, GatewayError, ModelNotFound
from hf_gateway.wire import hf_inference

TEXTS_AT_ONCE = 128
"""Enough to sort by length, and a few seconds at most between two chances to stop."""


class LocalBackend(Backend):
    """Loads the model when it is first needed; async calls queue on one thread, so the event loop stays free."""

    kind = "local"
    option_names = frozenset({"device", "dtype", "batch_size", "trust_remote_code"})
    tuning_options = frozenset({"device", "batch_size"})

    def __init__(self, *args: object, **named: object) -> None:
        """Check that a model is named."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        if self.target.model is None:
            raise ConfigError("target 'local' needs a model: pass model=, or write 'local:<model>'")
        self._engine: EmbeddingEngine | None = None
        # Two locks: the event loop asks for the thread, and must not wait for a model that is being loaded.
        self._loading = threading.Lock()
        self._starting = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    @property
    def key_url(self) -> str:
        """A key is for the Hub, where the model is downloaded from."""
        return hub_url(self.environment)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed in this process."""
        self.check_count(request, TEXTS_AT_ONCE)
        return (yield Compute(lambda: self._compute(request), self._executor()))

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a model that is not here; loads and downloads nothing."""
        found: sources.ModelFiles | None = yield Compute(self._look, self._executor())
        model = self.space_model()
        if found is not None:
            return Report([model], f"on this machine ({found.source}: {found.path})")
        try:
            access = hf_inference.decode_access((yield from self.ask(hf_inference.encode_routes(self.key_url, model))))
        except (AuthenticationFailed, ModelNotFound) as error:
            raise ModelNotFound(
                f"{model} is not on this machine, and not on the Hub, or private: {error.message}",
                target=self.target.label,
            ) from None
        return Report([model], "not on this machine yet; the first call downloads it from the Hub", access)

    def close(self) -> None:
        """Let the model and the thread go."""
        with self._starting:
            threads, self._threads, self._engine = self._threads, None, None
        if threads is not None and self._pid == os.getpid():
            threads.shutdown(wait=False, cancel_futures=True)

    def engine(self) -> EmbeddingEngine:
        """Return the engine, loading the model first if need be."""
        with self._loading:
            engine = self._engine
            if engine is None:
                target = self.target
                assert target.model is not None
                require_engine()  # before a model of gigabytes is downloaded for nobody
                files = sources.fetch(
                    target.model, target.revision, self.credential(), code=bool(target.options.get("trust_remote_code"))
                )
                self._model_space = self.read_model_space()  # the files say more than was known without them
                engine = self._engine = open_engine(files, self.space(), target.options, target.revision)
            return engine

    def _compute(self, request: EmbedRequest) -> EmbedAnswer:
        try:
            return self.engine().embed(request)
        except GatewayError as error:
            error.target = error.target or self.target.label
            raise

    def _look(self) -> sources.ModelFiles | None:
        target = self.target
        assert target.model is not None
        require_engine()
        return sources.find(target.model, target.revision)

    def _executor(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._threads is None or self._pid != os.getpid():  # threads do not survive a fork
                self._pid = os.getpid()
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="hf-gateway-local")
            return self._threads
