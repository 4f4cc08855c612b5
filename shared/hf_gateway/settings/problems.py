"""Every problem of a table of settings, each with its place, for messages that name a line.

Pydantic stops at the first `ConfigError`, and a `ConfigError` does not say where it was raised. So each setting is validated by
itself, and of one that is refused each part by itself, down to the smallest part that is refused alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.toml_lines import Place
from hf_gateway.values.redaction import quoted

_TYPES = {
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("string_type", "path_type"), "a text"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table"),
}
"""What a value should be, in the words of TOML, by pydantic's type of error."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a configuration file, and where."""

    place: tuple[str | int, ...]
    """The keys and numbers that lead to the setting, from the top of the file."""
    message: str
    """What is wrong, and what is right instead; without values, which may be keys."""

    def below(self, place: Place) -> "Problem":
        """Return the problem with a place that is itself below another."""
        return replace(self, place=(*place, *self.place))


def unknown_setting(name: str, known: set[str]) -> str:
    """Return the message for an unknown name of a setting.

    Args:
        name: as it is in the file.
        known: the names that there are.
    """
    return f"unknown setting {quoted(name, 'whose name may be a key')}{did_you_mean(name, known)}"


def problems_of(kind: type[BaseModel], values: Mapping[str, Any], known: set[str]) -> Iterator[Problem]:
    """Yield what is wrong with a table, by the class of its settings.

    Args:
        kind: the class.
        values: the table.
        known: the names that the table may have.
    """
    unknown = [name for name in values if name not in known]
    yield from (Problem((name,), unknown_setting(name, known)) for name in unknown)
    rest = {name: value for name, value in values.items() if name in known}
    together = list(_of_values(kind, rest))
    names = rest if together else ()
    alone = [problem for name in names for problem in _of_values(kind, {name: rest[name]}, alone=name)]
    # What only several settings together show may follow from what is wrong with one of them.
    yield from alone or ([] if unknown else together)


def _of_values(kind: type[BaseModel], values: Mapping[str, Any], alone: str | None = None) -> Iterator[Problem]:
    """Yield the problems of a table whose names are all known.

    Args:
        kind: the class.
        values: the table.
        alone: name of the only setting, if the others were left out, so that what needs them is not a problem.
    """
    try:
        kind.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            place = tuple(_places_in(values, each["loc"]))
            of_others = not each["loc"] or (each["type"] == "missing" and not place)
            if alone is None or not of_others:
                place = place or (() if alone is None else (alone,))
                yield Problem(place, _words(kind, place, each))
    except ConfigError as error:
        if not error.together:
            yield from _refused_parts(values, error.message, kind.model_validate)
        elif alone is None:
            named = next((name for name in error.together if name in values), None)
            yield Problem((named,) if named else (), error.message)


def _refused_parts(value: Any, message: str, validate: Callable[[Any], object]) -> Iterator[Problem]:
    """Yield the smallest parts of a value that are refused alone; the value itself if no part is.

    Args:
        value: the value, which is refused.
        message: why.
        validate: raises for a value in the same place.
    """
    found = False
    if isinstance(value, list):
        for number, element in enumerate(value):
            if (refusal := _refusal([element], validate)) is not None:
                found = True
                name = _field_at_fault(element, refusal, lambda part: validate([part]))
                yield Problem((number,) if name is None else (number, name), refusal)
    elif isinstance(value, Mapping):
        rest, refusal = dict(value), message
        while (name := _named_in(rest, refusal, validate)) is not None:
            found = True
            inner = _refused_parts(rest.pop(name), refusal, partial(_validate_below, name, validate))
            yield from (problem.below((name,)) for problem in inner)
            refusal = _refusal(rest, validate) or ""
    if not found:
        yield Problem((), message)


def _validate_below(name: str, validate: Callable[[Any], object], value: Any) -> object:
    return validate({name: value})


def _field_at_fault(table: Any, message: str, validate: Callable[[Any], object]) -> str | None:
    """Return the field of a table, such as a target, without which it is accepted, or which alone is refused as it is.

    Its fields belong together, unlike the settings of a section: alone most are refused, since others are missing.

    Args:
        table: the table, which is refused.
        message: why.
        validate: raises for a table in the same place.
    """
    for name in table if isinstance(table, Mapping) else ():
        if len(table) > 1 and _accepts({each: table[each] for each in table if each != name}, validate):
            return str(name)
    return _named_in(table, message, validate)


def _accepts(value: Any, validate: Callable[[Any], object]) -> bool:
    try:
        validate(value)
    except (ConfigError, ValidationError):
        return False
    return True


def _named_in(table: Any, message: str, validate: Callable[[Any], object]) -> str | None:
    """Return the name in a table whose value alone is refused with the same message."""
    if not isinstance(table, Mapping):
        return None
    return next((str(name) for name, part in table.items() if _refusal({name: part}, validate) == message), None)


def _refusal(value: Any, validate: Callable[[Any], object]) -> str | None:
    try:
        validate(value)
    except ConfigError as error:
        return error.message
    except ValidationError:
        return None
    return None


def _words(kind: type[BaseModel], place: Place, error: Any) -> str:
    """Return the message for an error of pydantic."""
    *parents, last = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        return unknown_setting(str(last), set(_model_at(kind, parents).model_fields))
    if error["type"] == "missing":
        return f"{'.'.join(map(str, error['loc']))} is missing"
    named = ".".join(map(str, place))
    if error["type"] in _TYPES:
        return f"{named} is {_TYPES[error['type']]}"
    words = error["msg"].removeprefix("Value error, ")
    return f"{named}: {words}" if named else str(words)


def _places_in(values: Any, loc: Sequence[str | int]) -> Iterator[str | int]:
    """Yield the beginning of an error's place that is in the values: pydantic adds names of types to it."""
    for part in loc:
        of_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if not of_list and not (isinstance(values, Mapping) and part in values):
            return
        yield part
        values = values[part]


def _model_at(kind: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """Return the class of the table in a place of another one."""
    for part in loc:
        field = kind.model_fields.get(str(part))
        if field is not None:  # otherwise it is a name in a table of tables
            kind = next(_models_in(field.annotation), kind)
    return kind


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
