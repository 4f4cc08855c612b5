"""Models with a head for labels as graphs, built of their weights, without torch: from texts or pairs of texts to logits."""

import importlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import trust_of
from hf_gateway.engines.batches import batches_by_length
from hf_gateway.engines.encoder import BATCH_TOKENS, padded
from hf_gateway.engines.graphs import wanted_precision
from hf_gateway.engines.layout import Layout, read_plain_layout
from hf_gateway.engines.networks.build import build_refusal, read_config
from hf_gateway.engines.networks.heads import build_labelled
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.tokenising import Part, Tokenizer, check_files
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

LABEL_AXES = ("texts", "labels")
"""Axes of the output of a graph for logits."""
_UNLIMITED_TOKENS = 10**9
"""Some tokenizers write 10**30 for "no limit"."""
_TYPED = frozenset({"BertTokenizer", "ElectraTokenizer"})
"""transformers' tokenizers that give the second text of a pair token types of 1."""
_TEMPLATED = frozenset({"PreTrainedTokenizer", "TokenizersBackend"})
"""Those that give the token types that tokenizer.json asks for."""
_TYPED_FAMILIES = frozenset({"bert", "electra", "gte", "new", "nomic_bert"})
"""Families whose tokenizers may give token types other than 0."""
_PAIR_MARKS = 3
"""Least number of special tokens around a pair."""


def text_limit(tokenizer: Path, layout: Layout) -> int | None:
    """Return the maximum tokens of a text, by the tokenizer's settings and by the network; None without a limit.

    Args:
        tokenizer: the model's tokenizer.json, with the settings beside it.
        layout: structure of the model.
    """
    settings = read_json(tokenizer.with_name("tokenizer_config.json")) or {}
    limits = [settings.get("model_max_length"), layout.positions]
    return min((each for each in limits if type(each) is int and 0 < each < _UNLIMITED_TOKENS), default=None)


class LabelledGraph:
    """A loaded model. Thread-safe."""

    device = "cpu"

    def __init__(
        self, files: ModelFiles, options: Mapping[str, Any], engine: str, *, revision: str | None = None
    ) -> None:
        """Build the graph of the model's weights, and load it.

        Args:
            files: the model's files.
            options: the target's options.
            engine: module of the engine whose runtime computes.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        runtime = importlib.import_module(f"hf_gateway.engines.{engine}")
        trust_of(files, options, revision)
        self.name: str = runtime.Engine.name
        self.precision = wanted_precision(options, runtime.Engine.precisions) or "fp32"
        runtime.Engine.load_runtime()
        if refused := build_refusal(files.path, build_labelled):
            raise refused
        config = read_config(files.path)
        self.labels = config.labels()
        self.problem_type: str | None = config.values.get("problem_type")
        layout = read_plain_layout(files)
        self._pad, self._vocabulary = layout.pad, layout.vocabulary
        self._rows = int(options["batch_size"]) if "batch_size" in options else None
        tokenizer = check_files(files.path, layout)
        settings = read_json(tokenizer.with_name("tokenizer_config.json")) or {}
        self.limit = text_limit(tokenizer, layout)
        self._tokenizer = Tokenizer(tokenizer, self.limit)
        self._runner = runtime.built_runner(
            partial(build_labelled, files.path), self.precision, LABEL_AXES, blocks=options.get("weights") == "int8"
        )
        self._check_pairs(layout.family, settings)

    def tokens(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Any]:
        """Tokenise n texts or pairs, without truncation."""
        return self._tokenizer.tokens(texts)

    def cut(self, text: str | tuple[str, str], part: Part = "longest_first") -> Any:
        """Tokenise a text or a pair, truncated to the limit.

        Args:
            text: the text or the pair.
            part: what of a pair is truncated.
        """
        return self._tokenizer.cut(text, part)

    def logits(self, rows: Sequence[Any]) -> list[list[float]]:
        """Return the logits of n tokenised texts. Raises EngineFailed."""
        import numpy as np

        made = np.empty((len(rows), len(self.labels)), np.float32)
        for places in batches_by_length([len(row) for row in rows], BATCH_TOKENS, self._rows):

            def take(found: "Array", places: list[int] = places) -> None:
                made[places] = found

            self._runner.run(padded(places, [rows[place] for place in places], self._pad, self._vocabulary), take)
        logits: list[list[float]] = made.tolist()
        return logits

    def _check_pairs(self, family: str, settings: Mapping[str, Any]) -> None:
        """Refuse a tokenizer.json that may join a pair in another way than transformers would."""
        made = self._tokenizer.tokens([("a", "b")])[0]
        if sum(made.special_tokens_mask) < _PAIR_MARKS:
            raise EngineFailed("its tokenizer.json does not say how two texts are joined")
        if "token_type_ids" not in self._runner.inputs:
            return
        kind = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
        named = settings.get("model_input_names")
        typed = any(made.type_ids)
        if family not in _TYPED_FAMILIES:
            differs = typed
        elif kind in _TYPED:
            differs = not typed
        else:
            differs = typed and kind not in _TEMPLATED
        if differs or (typed and named is not None and "token_type_ids" not in named):
            raise EngineFailed(f"its tokenizer.json gives pairs other token types than a {kind or 'tokenizer'} may")
