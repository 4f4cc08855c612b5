"""Counts the tokens of a text with the model's own tokenizer, if it is on this machine."""

from functools import lru_cache
from typing import Any

from hf_gateway.engines import sources
from hf_gateway.values.logs import logger

log = logger(__name__)

BYTES_PER_TOKEN = 4
"""Ratio for estimates; average of English text in most vocabularies, less in other languages and code."""


def count_tokens(text: str, model: str | None, revision: str | None = None) -> int:
    """Return the number of tokens; an estimate if the tokenizer is not on this machine. Reads files, never the network.

    Args:
        text: the text.
        model: Hub id or folder; None for an estimate.
        revision: branch, tag or commit.
    """
    ids = encode_text(text, model, revision)
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) if ids is None else len(ids)


def encode_text(text: str, model: str | None, revision: str | None = None) -> list[int] | None:
    """Return the token ids, without special tokens; None if the tokenizer is not on this machine.

    Args:
        text: the text.
        model: Hub id or folder.
        revision: branch, tag or commit.
    """
    tokenizer = _tokenizer(model, revision) if model else None
    if tokenizer is None:
        return None
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@lru_cache(maxsize=8)
def _tokenizer(model: str, revision: str | None) -> Any:
    """Load the `tokenizer.json` of a model; None without the file, or without the package that reads it."""
    try:
        from tokenizers import Tokenizer

    except ImportError:
        return None
    files = sources.find_served(model, revision)
    path = files.path / "tokenizer.json" if files is not None else None
    if path is None or not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the package raises plain Exceptions
        log.warning("%s cannot be read, so tokens are estimated: %s", path, error)
        return None
    # The file also contains the padding and truncation of the model's training.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
