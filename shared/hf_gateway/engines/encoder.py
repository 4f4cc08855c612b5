"""Embeds texts with a graph: tokenise, batch, run, pool, and return one array in the caller's order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hf_gateway.engines.batches import batches_by_length
from hf_gateway.engines.fitting import tokenize_within
from hf_gateway.engines.pooling import Head
from hf_gateway.engines.tokenising import Tokenizer
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

BATCH_TOKENS = 2048
"""Tokens of a batch, padding included: large enough for fast multiplications, small enough for the CPU cache."""
WINDOW_CHARS = 100_000
"""Characters that are tokenised and sorted together, while the previous ones are computed."""


@dataclass(frozen=True)
class Batch:
    """r texts padded to one length."""

    places: Sequence[int]
    """Indexes of the texts among the caller's."""
    ids: "Array"
    """Token ids, (r, tokens) int64."""
    mask: "Array"
    """1 for tokens of a text, 0 for padding, (r, tokens) int64."""
    types: "Array"
    """Token type ids, (r, tokens) int64."""


class Runner(Protocol):
    """A loaded graph. Thread-safe."""

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute the token vectors and pass them to `take` as (r, tokens, d) float32, valid only during that call.

        Args:
            batch: the texts.
            take: receives the vectors.
        """


@dataclass(frozen=True)
class Encoder:
    """A model in one precision."""

    tokeniser: Tokenizer
    """The tokenizer."""
    head: Head
    """Pooling and the layers after it."""
    runner: Runner
    """The graph."""
    limit: int | None
    """Maximum tokens of a text; None without a limit."""
    pad: int = 0
    """Token id of the padding."""
    vocabulary: int | None = None
    """Number of token ids that the graph has vectors for; None if that is not known."""
    rows: int | None = None
    """Maximum texts per batch; None without a limit."""

    def encode(self, texts: Sequence[str], prompt: str = "", *, truncate: bool = False) -> tuple["Array", int]:
        """Embed n texts.

        Args:
            texts: the texts.
            prompt: text before each of them.
            truncate: whether to cut texts that are too long.

        Returns:
            (n, dim) float32 in the order of the texts, and the number of tokens.

        Raises:
            ContextOverflow: a text is too long, unless `truncate`.
        """
        import numpy as np

        made = np.empty((len(texts), self.head.dimension), np.float32)
        read = 0

        def compute(batch: Batch) -> None:
            def take(hidden: "Array") -> None:
                made[batch.places] = self.head(hidden, batch.mask)

            self.runner.run(batch, take)

        batches = self._batches(texts, prompt, truncate)
        present = next(batches, None)
        following = next(batches, None)
        if present is not None and following is None:
            compute(present)
            return made, int(present.mask.sum())
        with ThreadPoolExecutor(1, thread_name_prefix="hf-gateway-graph") as worker:
            pending: Future[None] | None = None
            while present is not None:
                if pending is not None:
                    pending.result()
                pending = worker.submit(compute, present)
                read += int(present.mask.sum())
                present, following = following, next(batches, None)
            if pending is not None:
                pending.result()
        return made, read

    def _batches(self, texts: Sequence[str], prompt: str, truncate: bool) -> Iterator[Batch]:
        for start, window in text_windows(texts):
            kept, found = tokenize_within(
                window, prompt, self.limit, self.tokeniser.tokens, truncate=truncate, first=start, total=len(texts)
            )
            if self.limit:
                for place, tokens in enumerate(found):
                    if len(tokens) > self.limit:
                        found[place] = self.tokeniser.cut(prompt + kept[place])
            for places in batches_by_length([len(tokens) for tokens in found], BATCH_TOKENS, self.rows):
                tokens = [found[place] for place in places]
                yield padded([start + place for place in places], tokens, self.pad, self.vocabulary)


def text_windows(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield parts of a list with at most WINDOW_CHARS characters, or one text, and the index of each part's first text."""
    start = size = 0
    for place, text in enumerate(texts):
        if place > start and size + len(text) > WINDOW_CHARS:
            yield start, texts[start:place]
            start, size = place, 0
        size += len(text)
    if start < len(texts):
        yield start, texts[start:]


def padded(places: Sequence[int], tokens: Sequence[Any], pad: int, vocabulary: int | None) -> Batch:
    """Put the tokens of r texts into arrays.

    Args:
        places: indexes of the texts.
        tokens: of each text, the longest first.
        pad: token id of the padding.
        vocabulary: number of token ids that the graph has vectors for; None if that is not known.

    Raises:
        EngineFailed: a token has no vector; OpenVINO would compute with another one.
    """
    import numpy as np

    width = max(1, len(tokens[0]))
    ids = np.full((len(tokens), width), pad, np.int64)
    mask = np.zeros((len(tokens), width), np.int64)
    types = np.zeros((len(tokens), width), np.int64)
    for row, found in enumerate(tokens):
        count = len(found)
        ids[row, :count] = found.ids
        mask[row, :count] = 1
        if any(found.type_ids):
            types[row, :count] = found.type_ids
    if vocabulary is not None and (highest := int(ids.max())) >= vocabulary:
        raise EngineFailed(
            f"its tokenizer gives the token {highest}, but its config.json has vocab_size={vocabulary}: they are not of one model"
        )
    return Batch(places, ids, mask, types)
