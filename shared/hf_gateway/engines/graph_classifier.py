"""Labels of texts by graphs, without torch, with the scores of transformers' pipelines."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.engines.labelled import LabelledGraph
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.text_labels import classify_texts
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest


class Engine:
    """A loaded model for labels of texts. Thread-safe."""

    def __init__(
        self, files: ModelFiles, options: Mapping[str, Any], engine: str, *, revision: str | None = None
    ) -> None:
        """Load the model.

        Args:
            files: the model's files.
            options: the target's options.
            engine: module of the engine whose runtime computes.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        self._model = LabelledGraph(files, options, engine, revision=revision)
        self.name = self._model.name
        self.device = self._model.device
        self.context = self._model.limit

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        """Label texts. Raises ContextOverflow, Unsupported, EngineFailed."""
        return classify_texts(self._model, request)
