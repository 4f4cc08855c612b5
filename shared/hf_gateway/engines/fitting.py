"""What fits into a model: texts are counted in its own tokens, and refused or cut where they are too long."""

from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from hf_gateway.errors import ContextOverflow

_MAX_CHARS_PER_TOKEN = 100
"""No token stands for more: WordPiece makes one [UNK] of a word beyond 100 characters, and BPE pieces are shorter."""

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
    """Tokenise n texts behind their prompt, reading no more of a long one than could fit.

    limit: tokens that the model takes, the special ones and the prompt's included; tokenise: gives the tokens of each text,
    uncut; first, total: the place of the first text among all of a caller's.

    Returns the texts, without what would be cut off them anyway and without the prompt, and the tokens of each, which may
    be more than `limit`. Raises ContextOverflow unless `truncate`.
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
                f"text {first + place} of {total or len(kept)} has {more}{len(tokens)} tokens, and the model takes {limit}; "
                "split it, or pass truncate=True to lose what is beyond",
                limit=limit,
                length=None if more else len(tokens),
                place=first + place,
            )
        kept[place] = kept[place][:reach]
    return kept, found
