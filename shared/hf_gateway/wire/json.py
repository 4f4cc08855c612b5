"""JSON, read and written by the fastest parser that is here, with the verdicts of the standard library.

pydantic's parser agrees with the standard library in all that it reads, also in whole numbers of any size, NaN and infinity; what
it refuses (lone surrogates, a mark of the byte order, deep nesting), the standard library decides. orjson is faster still, but
makes floats of large whole numbers: so it reads vectors only, which are floats in the end.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def loads(data: bytes) -> Any:
    """Read a document. Raises ValueError, and RecursionError for one that is nested too deeply."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)


def loads_utf8(data: bytes) -> Any:
    """Read a document that is UTF-8 for certain, and has no mark of the byte order. Raises as `loads` does."""
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data.decode("utf-8"))


def loads_vectors(data: bytes) -> Any:
    """Read a document in which whole numbers beyond 64 bits may become floats. Raises as `loads` does."""
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:
            pass
    return loads(data)


def dumps(payload: Mapping[str, Any]) -> bytes:
    """Write an object in UTF-8. Raises TypeError, ValueError or RecursionError for what JSON cannot hold."""
    if orjson is not None and all(map(_simple, payload.values())):
        try:
            return orjson.dumps(payload)
        except TypeError:
            pass
    return _written(payload).encode()


def _simple(value: Any) -> bool:
    """Whether orjson writes the same bytes: it takes more than JSON has, NaN and enumerations among it, and other floats."""
    kind = type(value)
    return kind in _SIMPLE or (kind is list and set(map(type, value)) <= {str})


_SIMPLE = {str, int, bool, type(None)}
