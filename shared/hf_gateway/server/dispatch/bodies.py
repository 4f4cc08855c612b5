"""What the bodies of requests have in common."""

from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema


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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return pydantic's schema, with that of lists."""
        schema = handler(source)
        _end_at_first_fault(schema)
        return schema
