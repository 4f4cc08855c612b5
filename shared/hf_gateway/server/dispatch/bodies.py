"""What the bodies of requests have in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema

MAX_ENTRIES_COUNT = 100_000
"""Entries of all lists and objects of a body: the time to read one goes by them, and a body of 32 MiB has room for millions."""


def is_too_dense(body: bytes) -> bool:
    """Return whether a body in JSON has more than MAX_ENTRIES_COUNT entries.

    They are counted by the commas between them. While they are read, the server does nothing else.
    """
    if body.count(b",") <= MAX_ENTRIES_COUNT:
        return False
    # Commas in texts do not count, nor does a quotation mark that is escaped end one.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * MAX_ENTRIES_COUNT:  # an entry has two texts at most, its name and its value
        return True
    return sum(part.count(b",") for part in plain.split(b'"')[::2]) > MAX_ENTRIES_COUNT


def _end_at_first_fault(part: Any) -> None:
    if isinstance(part, dict):
        if part.get("type") == "list":
            part["fail_fast"] = True
        for each in part.values():
            _end_at_first_fault(each)
    elif isinstance(part, list):
        for each in part:
            _end_at_first_fault(each)


class Body(BaseModel):
    """A body in whose lists the first wrong entry is the last one that is looked at.

    A caller may send millions of them, and to name each takes minutes, in which the server does nothing else.
    """

    too_dense_advice: ClassVar[str] = "divide it"
    """What to do about a body of too many entries."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return pydantic's schema, with that of lists."""
        schema = handler(source)
        _end_at_first_fault(schema)
        return schema
