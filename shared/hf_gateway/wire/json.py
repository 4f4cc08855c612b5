"""JSON, by the fastest parser that is installed, with the results of the standard library.

pydantic's parser agrees with the standard library in all that it accepts, including ints of any size, NaN and infinity; what it
refuses (lone surrogates, a byte order mark, deep nesting) is left to the standard library. orjson is faster still, but converts
large ints to floats: so it reads only vectors, which become floats anyway.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def loads(data: bytes) -> Any:
    """Parse a document. Raises ValueError, and RecursionError for one that is nested too deeply."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)


def loads_utf8(data: bytes) -> Any:
    """Parse a document that is known to be UTF-8 without a byte order mark. Raises like `loads`."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data.decode("utf-8"))


def loads_vectors(data: bytes) -> Any:
    """Parse a document in which ints beyond 64 bits may become floats. Raises like `loads`."""
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:
            pass
    return loads(data)


def dumps(payload: Mapping[str, Any]) -> bytes:
    """Write an object in UTF-8. Raises TypeError, ValueError or RecursionError for what JSON cannot represent."""
    if orjson is not None and all(map(_simple, payload.values())):
        try:
            return orjson.dumps(payload)
        except TypeError:
            pass
    return _written(payload).encode()


def _simple(value: Any) -> bool:
    """Whether orjson writes the same bytes: it also accepts NaN and enumerations, and writes floats in another form."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is list:
        kinds = set(map(type, value))
        return kinds <= {str} or (kinds == {dict} and all(map(_is_flat, value)))
    return kind is dict and _is_flat(value)


def _is_flat(value: Mapping[Any, Any]) -> bool:
    """Return whether an object has nothing but simple values, as the messages of most conversations."""
    return set(map(type, value.values())) <= _SIMPLE and set(map(type, value)) == {str}


_SIMPLE = {str, int, bool, type(None)}


def dumps_numbers(value: Any) -> bytes:
    """Write a value of plain types with many numbers, as fast as an installed package can; floats are finite."""
    return orjson.dumps(value) if orjson is not None else to_json(value)
