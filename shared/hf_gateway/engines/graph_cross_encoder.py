"""Cross-encoders as graphs, without torch: a score for each pair of a query and a document."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.engines.cross_encoder import MAX_CHARS_PER_TOKEN, refuse_longer
from hf_gateway.engines.labelled import LabelledGraph
from hf_gateway.engines.saved_space import TRANSFORMER_FILES
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.errors import EngineFailed
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.usage import Usage

_MODULE = "Transformer"
"""The only module of a cross-encoder whose scores are the logits of its network."""
_SETTINGS: Mapping[str, Any] = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
"""Settings of that module that equal the defaults."""


class Engine:
    """A loaded model. Thread-safe."""

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
            EngineMissing, EngineFailed: the model cannot be loaded, or does not give one score for a pair.
            ConfigError: invalid options.
        """
        _check_modules(files)
        self._model = LabelledGraph(files, options, engine, revision=revision)
        if (labels := len(self._model.labels)) != 1:
            raise EngineFailed(
                f"{files.path} gives {labels} scores for a pair of texts, so it is a classifier, not a reranker "
                "(num_labels must be 1)"
            )
        self.name = self._model.name
        self.device = self._model.device
        self.context = self._model.limit

    def rerank(self, request: RerankRequest) -> RerankAnswer:
        """Return the logit of each document. Raises ContextOverflow, naming a document, unless `truncate`; EngineFailed."""
        limit = self.context
        reach = limit * MAX_CHARS_PER_TOKEN if limit else None
        pairs = [(request.query[:reach], document[:reach]) for document in request.documents]
        rows = self._model.tokens(pairs)
        counts = [len(row) for row in rows]
        if limit and not request.truncate:
            refuse_longer(request, counts, limit, reach)
        if limit:
            rows = [self._model.cut(pair) if len(row) > limit else row for row, pair in zip(rows, pairs, strict=True)]
        scores = [logits[0] for logits in self._model.logits(rows)]
        return RerankAnswer(scores, "logit", Usage(sum(len(row) for row in rows)))


def _check_modules(files: ModelFiles) -> None:
    """Refuse a model of sentence-transformers that is more than its network, or that puts a prompt before texts."""
    modules = read_json(files.path / "modules.json")
    if modules is not None:
        listed = [each if isinstance(each, dict) else {} for each in modules] if isinstance(modules, list) else []
        kinds = [(str(each.get("type", "")), each.get("path")) for each in listed]
        if len(kinds) != 1 or kinds[0][0].rpartition(".")[2] != _MODULE or kinds[0][1] != "":
            raise EngineFailed("its modules are not those of a cross-encoder, a Transformer alone")
        if not kinds[0][0].startswith("sentence_transformers."):
            raise EngineFailed(f"its module {kinds[0][0]!r} is custom code")
    for name in TRANSFORMER_FILES:
        found = read_json(files.path / name) or {}
        if not isinstance(found, dict):
            raise EngineFailed(f"its {name} is not a JSON object")
        for setting, value in found.items():
            if value not in (None, {}, _SETTINGS.get(setting)):
                raise EngineFailed(f"its Transformer module has the setting {setting!r}")
    about = read_json(files.path / "config_sentence_transformers.json") or {}
    if not isinstance(about, dict) or about.get("default_prompt_name"):
        raise EngineFailed("its config_sentence_transformers.json has a prompt")
