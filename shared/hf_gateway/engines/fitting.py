"""Fits texts into a model's context: counts their tokens with the model's tokenizer, and refuses or cuts long ones."""

from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from hf_gateway.errors import ContextOverflow

_MAX_CHARS_PER_TOKEN = 100
"""Upper bound: WordPiece makes one [UNK] of a word of more than 100 characters, and BPE tokens are shorter."""

Tokens = TypeVar("Tokens", bound=Sized)


def tokenize_within(
    texts: Sequence[str],
    prompt: str,
    limit: int | None,
    tokenise: Callable[[list[str]], Sequence[Tokens]],
    *,
    truncate: bool,
    first: int = 0,
    total: int | None = None,
) -> tuple[list[str], list[Tokens]]:
    """Tokenise n texts after their prompt, reading no more of a long text than could fit.

    Args:
        texts: the texts.
        prompt: text before each of them.
        limit: maximum tokens, special ones and the prompt's included; None without a limit.
        tokenise: returns the tokens of each text, without truncation.
        truncate: whether long texts may be cut.
        first: index of the first text among all of a caller's.
        total: number of all texts of the caller.

    Returns:
        The texts without the prompt and without most of what has to be cut, and the tokens of each, which may be more
            than `limit`.

    Raises:
        ContextOverflow: a text is too long, unless `truncate`.
    """
    kept = list(texts)
    if not limit:
        return kept, list(tokenise([prompt + text for text in kept]))
    reach = limit * _MAX_CHARS_PER_TOKEN
    found = list(tokenise([prompt + text[:reach] for text in kept]))
    for place, tokens in enumerate(found):
        if len(tokens) <= limit and len(kept[place]) > reach:
            tokens = found[place] = tokenise([prompt + kept[place]])[0]
        if len(tokens) <= limit:
            continue
        if not truncate:
            more = "more than " if len(kept[place]) > reach else ""
            raise ContextOverflow(
                f"text {first + place} of {total or len(kept)} has {more}{len(tokens)} tokens, but the model's limit is {limit}; "
                "split it, or pass truncate=True to drop the rest",
                limit=limit,
                length=None if more else len(tokens),
                place=first + place,
            )
        kept[place] = kept[place][:reach]
    return kept, found
