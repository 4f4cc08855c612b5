"""Static models: a text's vector is the mean of its tokens' rows in a table, without a network.

Sources: sentence-transformers' module StaticEmbedding, and model2vec's StaticModel, which leaves out the token for what is not in
the vocabulary and reads only the beginning of a long text. Both take texts without special tokens, and give zeros for a text
without tokens.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import refuse_blocks, trust_of
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import text_windows
from hf_gateway.engines.fitting import tokenize_within
from hf_gateway.engines.graphs import wanted_precision
from hf_gateway.engines.layout import Layout, read_after, read_cut
from hf_gateway.engines.networks.numbers import as_float32
from hf_gateway.engines.networks.safetensors import MappedFiles, Tensor, read_tensors
from hf_gateway.engines.pooling import Head
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.static_files import StaticFiles, read_static
from hf_gateway.engines.tokenising import Tokenizer
from hf_gateway.errors import ContextOverflow, EngineFailed
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.vectors import Vectors

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["OPTIONS", "Engine"]

ROWS_AT_ONCE = 4096
"""Rows of the table that are added up at once: limits the memory for a long text, and the error of sums in float32."""


class Engine:
    """A loaded model. Thread-safe."""

    name = "static"
    device = "cpu"
    precision = "fp32"

    def __init__(
        self, files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], *, revision: str | None = None
    ) -> None:
        """Load the model.

        Args:
            files: the model's files.
            space: vector space of the model, with its prompts.
            options: the target's options.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded, or is not static.
            ConfigError: invalid options.
        """
        trust_of(files, options, revision)
        wanted_precision(options, frozenset({"fp32"}))
        refuse_blocks(options)
        described = read_static(lambda name: read_json(files.path / name))
        if described is None:
            raise EngineFailed("it is not a static model, a table of token vectors")
        self._space = space
        self._table = _Table(files.path / described.folder, described)
        after = tuple(read_after(files.path, kind, path) for kind, path in described.modules)
        if described.model2vec and described.normalized:
            after = ("normalize",)
        layout = Layout(described.folder, self.name, self._table.width, ("mean",), after, cut=read_cut(files.path))
        self._head = Head(files.path, layout)
        self._reader = _Reader(files.path / described.folder / "tokenizer.json", described)

    @property
    def dimension(self) -> int | None:
        """Values per vector."""
        return self._head.dimension

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32. Raises ContextOverflow unless `truncate`, EngineFailed."""
        import numpy as np

        prompt = (self._space.query_prompt if request.role == "query" else self._space.document_prompt) or ""
        means = np.empty((len(request.texts), 1, self._table.width), np.float32)
        read = 0
        for start, window in text_windows(request.texts):
            ids, count = self._reader.ids(window, prompt, start, len(request.texts), truncate=request.truncate)
            read += count
            for place, found in enumerate(ids, start):
                means[place, 0] = self._table.mean(found)
        made = self._head(means, np.ones((len(means), 1), np.int64)).astype("<f4", copy=False)
        return EmbedAnswer(Vectors.from_bytes(made.tobytes(), made.shape[1]), Usage(read))


class _Reader:
    """Makes token ids of texts."""

    def __init__(self, path: Path, described: StaticFiles) -> None:
        about = read_json(path)
        if not isinstance(about, dict):
            raise EngineFailed(f"{path} is missing or not a JSON object")
        self._tokenizer = Tokenizer(path, None, marked=False)
        self._limit = described.max_tokens
        self._max_chars: int | None = None
        self._unknown: int | None = None
        if described.model2vec:
            vocabulary = self._tokenizer.vocabulary()
            self._unknown = _unknown(about, vocabulary)
            if self._limit is not None:
                self._max_chars = self._limit * int(statistics.median(map(len, vocabulary)))
        elif cut := about.get("truncation"):
            if not isinstance(cut, dict) or cut.get("direction", "Right") != "Right":
                raise EngineFailed("its tokenizer cuts long texts on the left")
            self._limit = int(cut["max_length"])

    def ids(
        self, texts: Sequence[str], prompt: str, first: int, total: int, *, truncate: bool
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of n texts, and how many tokens were read.

        Args:
            texts: the texts.
            prompt: text before each of them.
            first: index of the first text among all of a caller's.
            total: number of all texts of the caller.
            truncate: whether to cut texts that are too long.

        Raises:
            ContextOverflow: a text is too long, unless `truncate`.
        """
        whole = [prompt + text for text in texts]
        if truncate and self._max_chars is not None:
            whole = [text[: self._max_chars] for text in whole]
        _, found = tokenize_within(
            whole, "", self._limit, self._tokenizer.tokens, truncate=truncate, first=first, total=total
        )
        for place, text in enumerate(whole):
            if self._max_chars is not None and len(text) > self._max_chars:
                raise ContextOverflow(
                    f"text {first + place} of {total} has {len(text)} characters, but the model reads {self._max_chars}; "
                    "split it, or pass truncate=True to drop the rest",
                    limit=self._limit,
                    place=first + place,
                )
        ids = [list(tokens.ids[: self._limit]) for tokens in found]
        count = sum(map(len, ids))
        if self._unknown is not None:
            ids = [[each for each in row if each != self._unknown] for row in ids]
        return ids, count


def _unknown(about: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int | None:
    """Return the id of the token for what is not in the vocabulary; None without one.

    Args:
        about: content of tokenizer.json.
        vocabulary: tokens and their ids.
    """
    model = about["model"]
    if "unk_id" in model:  # Unigram
        found: int | None = model["unk_id"]
        return found
    return vocabulary.get(model.get("unk_token"))


class _Table:
    """Rows of a table by token ids, mapped from the file."""

    def __init__(self, folder: Path, described: StaticFiles) -> None:
        self._files = MappedFiles()
        tensors = read_tensors(folder, self._files)
        names = ("embeddings",) if described.model2vec else ("embedding.weight", "embeddings")
        table = next((tensors[name] for name in names if name in tensors), None)
        if table is None or table.values.ndim != 2 or table.dtype not in ("F64", "F32", "F16", "BF16", "I8"):
            raise EngineFailed(f"{folder}: the tensor {names[0]!r} is missing, or not a table of numbers")
        self._rows: Array = table.values
        self.width: int = table.shape[1]
        folded = tensors if table.name == "embeddings" else {}
        self._places = _vector(folded, "mapping", integers=True)
        self._weights = _vector(folded, "weights", integers=False)
        self._count = len(self._rows if self._places is None else self._places)
        if self._places is not None and not (self._places.min() >= 0 and self._places.max() < len(self._rows)):
            raise EngineFailed(f"{folder}: the tensor 'mapping' names rows that the table does not have")
        if self._weights is not None and len(self._weights) != self._count:
            raise EngineFailed(
                f"{folder}: the tensor 'weights' has {len(self._weights)} values for {self._count} tokens"
            )

    def mean(self, ids: Sequence[int]) -> "Array":
        """Return the mean of the rows of a text's tokens, (d,) float32; zeros for a text without tokens.

        Raises EngineFailed for a token that the table has no row for, or a file that was written to.
        """
        import numpy as np

        self._files.check()
        if ids and max(ids) >= self._count:
            raise EngineFailed(f"its tokenizer has the token {max(ids)}, but its table has rows for {self._count}")
        total = np.zeros(self.width, np.float32)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            part = np.asarray(ids[start : start + ROWS_AT_ONCE], np.int64)
            rows = as_float32(self._rows[part if self._places is None else self._places[part]])
            total += rows.sum(0) if self._weights is None else self._weights[part] @ rows
        return total / np.float32(max(1, len(ids)))


def _vector(tensors: Mapping[str, Tensor], name: str, *, integers: bool) -> "Array | None":
    """Return a tensor of one axis; None if it is missing. Raises EngineFailed for another kind of tensor."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.values.ndim != 1 or not len(tensor.values) or tensor.dtype.startswith("I") != integers:
        raise EngineFailed(f"the tensor {name!r} of its files is not one value for each token")
    return tensor.values if integers else tensor.float32()
