"""Classification in this process."""

from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.local import MAX_BYTES, MAX_TEXTS, LocalLabelled, check_size
from hf_gateway.engines import open_classifier, require_classifier, sources
from hf_gateway.engines.choosing import CLASSIFIER_PACKAGES
from hf_gateway.engines.protocols import ClassifyEngine
from hf_gateway.errors import BatchTooLarge
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.labels import ClassifyRequest

MAX_IMAGES = 32
"""Maximum at once: limits the time between two chances to cancel."""


class LocalClassify(LocalLabelled[ClassifyEngine], ClassifyAbility):
    """Labels texts in this process by a graph of the model's weights, or texts and images with transformers."""

    on_torch = CLASSIFIER_PACKAGES

    @property
    def context(self) -> int | None:
        """The model's maximum tokens of a text, once it is loaded."""
        return self._engine.context if self._engine is not None else None

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label a batch in this process."""
        self._check_size(request)
        return (yield from self.compute(lambda engine: engine.classify(request)))

    def probe(self) -> Effects:
        """Look for the model and an engine, and ask the Hub about a missing model; loads and downloads nothing."""
        engine = self._engine
        runs = f", on {engine.device} by {engine.name}" if engine is not None else ""
        return self.server.find_model(self.require, runs)

    def require(self) -> None:
        """Raise EngineMissing if no engine is installed that the options allow."""
        require_classifier(self.target.options)

    def open(self, files: sources.ModelFiles) -> ClassifyEngine:
        """Load the model."""
        return open_classifier(files, self.target.options, self.target.revision)

    def _check_size(self, request: ClassifyRequest) -> None:
        """Raise BatchTooLarge for more inputs of the model at once than keep cancelling quick."""
        if len(request.images) > MAX_IMAGES:
            raise BatchTooLarge(f"takes {MAX_IMAGES} images at once", max_texts=MAX_IMAGES)
        width = max(1, len(request.labels))
        check_size(request.joined, max(1, MAX_TEXTS // width), max(1, MAX_BYTES // width))
