"""Classification in this process."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.local import MAX_BYTES, MAX_TEXTS, LocalServer
from hf_gateway.engines import ClassifyEngine, open_classifier, require_classifier, sources
from hf_gateway.errors import BatchTooLarge, GatewayError
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.classification import ClassifyOptions
from hf_gateway.values.http import json_size
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest

MAX_IMAGES = 32
"""Maximum at once: limits the time between two chances to cancel."""


class LocalClassify(ClassifyAbility):
    """Labels texts or images in this process, with transformers."""

    server: LocalServer

    def __init__(self, server: Server, options: ClassifyOptions) -> None:
        super().__init__(server, options)
        self._engine: ClassifyEngine | None = None

    @property
    def context(self) -> int | None:
        """The model's maximum tokens of a text, once it is loaded."""
        return self._engine.context if self._engine is not None else None

    def prepare(self) -> None:
        """Find a key, if there is something to download."""
        if self._engine is None and self._find_files() is None:
            super().prepare()

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label a batch in this process."""
        self._check_size(request)
        return (yield Compute(lambda: self._compute(request), self.server.executor()))

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a missing model; loads and downloads nothing."""
        engine = self._engine
        runs = f", on {engine.device} by {engine.name}" if engine is not None else ""
        return self.server.find_model(require_classifier, runs)

    def close(self) -> None:
        """Release the model and the thread."""
        self._engine = None
        super().close()

    def engine(self) -> ClassifyEngine:
        """Return the engine, loading the model first if needed."""
        with self.server.loading:
            engine = self._engine
            if engine is None:
                target = self.target
                assert target.model is not None
                require_classifier()  # before a model of gigabytes is downloaded in vain
                trusted = bool(target.options.get("trust_remote_code"))
                files = self._find_files() or sources.fetch(
                    target.model, target.revision, self.server.credential(), code=trusted
                )
                engine = self._engine = open_classifier(files, target.options, target.revision)
            return engine

    def _find_files(self) -> sources.ModelFiles | None:
        """Return the model's files, None if something must be downloaded."""
        assert self.target.model is not None
        files = sources.find(self.target.model, self.target.revision)
        return files if files is not None and sources.is_complete(files, "safetensors") else None

    def _check_size(self, request: ClassifyRequest) -> None:
        """Raise BatchTooLarge for more inputs of the model at once than keep cancelling quick."""
        if len(request.images) > MAX_IMAGES:
            raise BatchTooLarge(f"takes {MAX_IMAGES} images at once", max_texts=MAX_IMAGES)
        width, texts = max(1, len(request.labels)), request.texts
        most, max_bytes = max(1, MAX_TEXTS // width), max(1, MAX_BYTES // width)
        if len(texts) > 1 and (len(texts) > most or sum(map(json_size, texts)) > max_bytes):
            raise BatchTooLarge(
                f"takes {most} texts of {max_bytes:,} bytes at once", max_texts=most, max_bytes=max_bytes
            )

    def _compute(self, request: ClassifyRequest) -> ClassifyAnswer:
        try:
            return self.engine().classify(request)
        except GatewayError as error:
            error.target = error.target or self.target.label
            raise
