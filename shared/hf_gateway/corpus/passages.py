"""Cuts the documents of a shard into passages, by the tokenizer of the chain's own model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_gateway.corpus.documents import Document
from hf_gateway.errors import ConfigError
from hf_gateway.retrieval.splitting import split_documents, split_for
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway


@dataclass(frozen=True, slots=True)
class Splitting:
    """How a job cuts documents; part of its plan, so that all workers and a resume cut alike."""

    tokens: int
    """Of a passage at most."""
    overlap: int
    """Tokens that a passage repeats of the one before it."""
    exact: bool
    """Whether the model's own tokenizer counts; otherwise it is an estimate."""


def splitting_of(gateway: EmbeddingGateway, max_tokens: int, *, send: bool = True) -> Splitting:
    """Return how documents are cut for a chain; loads its model, or sends its first target a text.

    Args:
        gateway: the chain.
        max_tokens: tokens of a passage at most, special tokens included.
        send: whether a text may be embedded for it, which brings the model's files to this machine.

    Raises:
        ConfigError: max_tokens is too small.
        GatewayError: no target answers.
    """
    if max_tokens < 8:
        raise ConfigError(f"a passage has at least 8 tokens, not {max_tokens}")
    if send:
        gateway.embed(["a passage"])
    split = split_for(gateway, max_tokens)
    return Splitting(split.max_tokens, split.overlap, split.exact)


def cut(gateway: EmbeddingGateway, documents: Sequence[Document], plan: Splitting) -> tuple[list[int], list[str]]:
    """Cut documents into passages.

    Args:
        gateway: the chain.
        documents: those that can be embedded are cut.
        plan: how the job cuts.

    Returns:
        For each passage the place of its document, and the passage; those of a document in order.

    Raises:
        ConfigError: the tokenizer of the plan is not on this machine.
        ImportError: the splitter is not installed.
    """
    split = split_for(gateway, plan.tokens)
    if plan.exact and not split.exact:
        gateway.embed(["a passage"])
        split = split_for(gateway, plan.tokens)
    if split.exact != plan.exact:
        raise ConfigError("the model's tokenizer is not on this machine as it was when the job was planned")
    whole = [(str(place), document.text) for place, document in enumerate(documents) if document.fault is None]
    pieces = split_documents(whole, plan.tokens, plan.overlap, split.tokens)
    fitting = [(int(name), part) for name, piece in pieces for part in _fitting(piece, plan.tokens, split.tokens)]
    return [owner for owner, _ in fitting], [piece for _, piece in fitting]


def _fitting(piece: str, most: int, tokens: Callable[[str], list[int]]) -> list[str]:
    """Halve a piece that has more tokens than its words have one by one."""
    if len(piece) < 2 or len(tokens(piece)) <= most:
        return [piece]
    middle = len(piece) // 2
    halves = (piece[:middle], piece[middle:])
    return [part for half in halves if half.strip() for part in _fitting(half, most, tokens)]
