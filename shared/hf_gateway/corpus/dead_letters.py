"""Rows that cannot be embedded by their own fault: which errors those are, and the file that names them, without their text."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from hf_gateway.corpus.documents import Document
from hf_gateway.errors import AllTargetsFailed, ContentFiltered, GatewayError, InvalidRequest

_MESSAGE_CHARACTERS = 500
_WINDOW_CHARACTERS = 12
"""A message may repeat as many characters of the text, but not more: a word, and no sentence."""
_PLACE = re.compile(r"^text \d+ of [\d,]+:? ")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that cannot be embedded."""

    id: Any
    """Its id."""
    file: str
    """The name of its file."""
    row: int
    """Its place in the file, from 0."""
    error: str
    """The class of the error."""
    message: str
    """Why, without the text."""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({**asdict(self), "id": self.id if isinstance(self.id, str | int) else str(self.id)}) + "\n"


def row_fault(error: GatewayError) -> GatewayError | None:
    """Return the error that is a text's own fault; None if the texts are not at fault.

    A chain of several targets blames the text if each target does.

    Args:
        error: of a call with one text or several.
    """
    if isinstance(error, InvalidRequest | ContentFiltered):
        return error
    if (
        isinstance(error, AllTargetsFailed)
        and error.errors
        and all(row_fault(each) is not None for each in error.errors)
    ):
        return row_fault(error.errors[0])
    return None


def letter_of(document: Document, file: str, error: GatewayError) -> DeadLetter:
    """Return the dead letter of a document.

    Args:
        document: the row.
        file: the name of its file.
        error: why it cannot be embedded.
    """
    name = document.id if document.id is not None else f"{file}#{document.row}"
    return DeadLetter(name, file, document.row, type(error).__name__, without_text(reason(error), document.text))


def reason(error: GatewayError) -> str:
    """Return the message of an error without the place of the text in its call."""
    return _PLACE.sub("", error.message)


def without_text(message: str, text: str) -> str:
    """Return the beginning of a message in which what it repeats of a text is replaced by "…".

    Args:
        message: perhaps of a server, which may quote what it was sent.
        text: what must not be in it.
    """
    message = message[:_MESSAGE_CHARACTERS]
    window = min(_WINDOW_CHARACTERS, len(text))
    if not window or (len(text) < _WINDOW_CHARACTERS and len(text) < 4):
        return message
    hidden = bytearray(len(message))
    for start in range(len(message) - window + 1):
        if message[start : start + window] in text:
            hidden[start : start + window] = b"\1" * window
    return re.sub("\0+", "…", "".join("\0" if hide else each for each, hide in zip(message, hidden, strict=True)))
