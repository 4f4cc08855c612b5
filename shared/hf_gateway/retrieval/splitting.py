"""Cuts documents into pieces by the tokens of the chain's own model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hf_gateway.engines import token_count
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

MAX_PIECE_TOKENS = 256
"""Maximum tokens of a piece, special tokens included; fewer if the model's limit is lower."""
MARKING_TOKENS = 2
"""Special tokens that models put before and after a text."""
OVERLAP_TOKENS = 25
"""Tokens of a piece that the next one repeats."""
ESTIMATED_BYTES_PER_TOKEN = 3
"""Bytes of UTF-8 per token if the model's tokenizer is not on this machine: those of a CJK character, fewer than a
token of English has.
"""

Source = tuple[str, str]
"""The name of a document, and its text or a piece of it."""


@dataclass(frozen=True)
class Split:
    """How documents are split into pieces."""

    max_tokens: int
    """Maximum tokens of a piece."""
    tokens: Callable[[str], list[int]]
    """Returns the token ids of a text."""
    exact: bool
    """Whether the model's own tokenizer is used; otherwise it is an estimate."""

    @property
    def overlap(self) -> int:
        """Tokens of a piece that the next one repeats."""
        return min(OVERLAP_TOKENS, self.max_tokens // 4)


def split_for(gateway: EmbeddingGateway, max_tokens: int = MAX_PIECE_TOKENS) -> Split:
    """Return how documents are cut for a chain whose model is loaded.

    Args:
        gateway: the chain.
        max_tokens: tokens of a piece at most, special tokens included, if the model takes as many.
    """
    space = gateway.space

    def encode(text: str) -> list[int] | None:
        return token_count.encode_text(text, space.model, space.revision)

    def estimate(text: str) -> list[int]:
        return list(range(-(-len(text.encode()) // ESTIMATED_BYTES_PER_TOKEN)))

    prompt = space.document_prompt or ""
    exact = encode(prompt) is not None
    tokens = (lambda text: encode(text) or []) if exact else estimate
    most = min(space.max_tokens or max_tokens, max_tokens) - MARKING_TOKENS - len(tokens(prompt))
    return Split(max(most, 1), tokens, exact)


def split_documents(
    documents: Iterable[Source], max_tokens: int, overlap: int, tokens: Callable[[str], list[int]]
) -> list[Source]:
    """Split documents into pieces, at paragraphs, lines and words where that is possible.

    Args:
        documents: the documents.
        max_tokens: tokens of a piece at most.
        overlap: tokens of a piece that the next one repeats.
        tokens: returns the token ids of a text.

    Returns:
        The pieces, with the documents that they are of.

    Raises:
        ImportError: the splitter is not installed; with the `pip install` line.
    """
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
    except ImportError:
        raise ImportError(
            "splitting documents needs langchain-text-splitters: pip install 'hf-gateway[loaders]'"
        ) from None
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=max_tokens, chunk_overlap=overlap, length_function=lambda text: len(tokens(text))
    )
    return [(source, piece) for source, text in documents for piece in splitter.split_text(text)]
