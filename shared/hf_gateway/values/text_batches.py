"""Texts of a caller: checked before anything is sent, and divided by the limits of servers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.http import json_size


def iterable(texts: Any, wanted: str, argument: str = "texts") -> Iterable[Any]:
    """Return an iterator over a caller's texts.

    Args:
        texts: the argument.
        wanted: what to pass instead, for the error: "a list".
        argument: its name, for errors.

    Raises:
        InvalidRequest: a single string, or not iterable.
    """
    if isinstance(texts, str | bytes):
        raise InvalidRequest(f"{argument} is one {type(texts).__name__}; pass {wanted} of strings")
    try:
        return iter(texts)  # type: ignore[no-any-return]
    except TypeError:
        raise InvalidRequest(f"{argument} is {type(texts).__name__}; pass {wanted} of strings") from None


def text_fault(text: Any) -> str | None:
    """Return why a value cannot be embedded, in words that follow "text 3"; None for a valid text."""
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not a string"
    if not text or text.isspace():
        return "is empty" if not text else "has nothing but blanks in it"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"has a lone surrogate at character {error.start}, which no encoding can represent; "
                "clean it with text.encode('utf-8', 'replace').decode()"
            )
    return None


def checked_texts(texts: Any, consequence: str, *, argument: str = "texts", noun: str = "text") -> list[str]:
    """Return a caller's texts as a list, checked before anything is sent.

    Args:
        texts: the argument.
        consequence: the end of an error's message: "nothing was embedded".
        argument: the argument's name, for errors.
        noun: what one of them is called, for errors.

    Raises:
        InvalidRequest: an invalid text, named by its index.
    """
    listed = list(iterable(texts, "a list", argument))
    for index, text in enumerate(listed):
        if fault := text_fault(text):
            raise InvalidRequest(f"{noun} {index} of {len(listed)} {fault}; {consequence}")
    return listed


def split_texts(texts: Sequence[str], limit: BatchTooLarge) -> list[Sequence[str]] | None:
    """Return the fewest parts that respect a limit, in order; None if one text is too large by itself.

    Args:
        texts: the texts of one request.
        limit: the refusal.
    """
    if len(texts) < 2:
        return None
    max_texts = limit.max_texts
    if not max_texts and not limit.max_bytes:
        max_texts = (len(texts) + 1) // 2
    parts = list(_split_by_size(texts, max_texts or len(texts), limit.max_bytes))
    if len(parts) == 1:
        # The server refused what its own limit allows: halve, or the same request would be sent for ever.
        middle = len(texts) // 2
        parts = [texts[:middle], texts[middle:]]
    return parts


def _split_by_size(texts: Sequence[str], max_texts: int, max_bytes: int | None) -> Iterator[Sequence[str]]:
    start = 0
    while start < len(texts):
        part = texts[start : start + max_texts]
        if max_bytes is not None:
            part = part[: _texts_within(part, max_bytes)]
        yield part
        start += len(part)


def _texts_within(texts: Sequence[str], max_bytes: int) -> int:
    """Return how many texts fit, counted from the first; at least one."""
    if _MOST_BYTES * sum(map(len, texts)) + _AROUND * len(texts) <= max_bytes:
        return len(texts)
    size = 0
    for count, text in enumerate(texts):
        size += json_size(text)
        if count and size > max_bytes:
            return count
    return len(texts)


_MOST_BYTES, _AROUND = 6, 3
"""Maximum bytes in JSON of a character (\\u0000) and of the quotes and comma around a text; counting exactly is slow."""
