"""How many tokens a text has, by the model's own tokenizer where it lies on this machine."""

from functools import lru_cache
from typing import Any

from hf_gateway.engines import sources
from hf_gateway.values.logs import logger

log = logger(__name__)

BYTES_PER_TOKEN = 4
"""What an estimate reckons with, and what English text has in most vocabularies; other languages and code have fewer."""


def count_tokens(text: str, model: str | None, revision: str | None = None) -> int:
    """Return the number of tokens; an estimate where the tokenizer is not here. Reads files at most, never the network."""
    ids = encode_text(text, model, revision)
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) if ids is None else len(ids)


def encode_text(text: str, model: str | None, revision: str | None = None) -> list[int] | None:
    """Return the tokens' numbers, without those that mark beginning and end; None where the tokenizer is not here."""
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
    except Exception as error:  # noqa: BLE001 - the package raises no class of its own
        log.warning("%s cannot be read, so tokens are estimated: %s", path, error)
        return None
    # The file also says to what length a model's training padded and cut.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
