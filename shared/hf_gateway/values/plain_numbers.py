"""Settings in which true and false are no numbers: pydantic takes them for 1 and 0, and a config's mistake would go unseen."""

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationInfo, field_validator


class PlainNumbers(BaseModel):
    """Refuses true and false in each field that is not for them."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flags(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name and not _takes_flags(cls, info.field_name):
            raise ValueError(f"{str(value).lower()} is not a number")
        return value


@cache
def _takes_flags(model: type[BaseModel], field: str) -> bool:
    return _mentions_bool(model.model_fields[field].annotation)


def _mentions_bool(annotation: Any) -> bool:
    # What is not a number is left to pydantic, which refuses a flag there by itself.
    return annotation in (bool, Any) or any(map(_mentions_bool, get_args(annotation)))
