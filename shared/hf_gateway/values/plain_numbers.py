"""Settings that refuse true and false for a number: pydantic would read them as 1 and 0, and hide a mistake in a config file."""

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationInfo, field_validator


class PlainNumbers(BaseModel):
    """A model that refuses a boolean in every field that is not declared as one."""

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
    # A boolean in a field that is not a number is left to pydantic, which refuses it by itself.
    return annotation in (bool, Any) or any(map(_mentions_bool, get_args(annotation)))
