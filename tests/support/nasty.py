"""Documents that are not what they should be, for every parser of what comes from outside."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hf_gateway import errors

LIMIT_S = 20.0
"""For all documents of one parser: each is a matter of milliseconds, and a quadratic parser would need minutes."""
LONG_NUMBER = "9" * 5000
"""Of more digits than Python reads by itself."""

NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**400,
    -(10**400),
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x" * 50_000,
    "\ud800",
    "/etc/passwd",
    "../../x",
    "\x00",
    "NaN",
    LONG_NUMBER,
    [],
    {},
    [[]],
    [None],
    [True],
    [1e308],
    {"a": None},
    {"": {"": {}}},
    ["x"] * 999,
]
TEXTS = [
    "",
    "null",
    "true",
    "[",
    "{",
    "NaN",
    "\x00",
    "\ufeff{}",
    '"\\ud800"',
    LONG_NUMBER,
    f'{{"version": {LONG_NUMBER}}}',
    "[" * 3000 + "]" * 3000,
    '{"version": ' + "[" * 3000 + "]" * 3000 + "}",
    '{"a":' * 3000 + "1" + "}" * 3000,
]


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every value; of long lists to the first few."""
    yield at
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:2])
        if isinstance(document, list)
        else ()
    )
    for key, value in inner:
        yield from places(value, (*at, key))


def changed(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at one place; without it for `...`."""
    if not at:
        return value
    made = copy.deepcopy(document)
    holder = made
    for key in at[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[at[-1]]
    else:
        holder[at[-1]] = value
    return made


def documents(good: Any) -> Iterator[bytes]:
    """Give a good document with each of its values replaced by each nasty one, or left out; and texts that are none."""
    for at in places(good):
        for value in [*NASTY, *([...] if at else [])]:
            yield json.dumps(changed(good, at, value)).encode()
    yield from (text.encode() for text in TEXTS)
    yield b"\xff\xfe\x00"


def survives(parse: Callable[[Any], Any], given: Any, *more: type[Exception]) -> None:
    """Parse, and let out nothing but our errors; more: what the parser says for itself, and its caller translates."""
    try:
        parse(given)
    except (errors.GatewayError, *more):
        pass
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error!s:.200}, for {given!r:.300}")


def all_survive(parse: Callable[[bytes], Any], good: Any, *more: type[Exception]) -> None:
    survives(parse, json.dumps(good).encode())
    began = time.process_time()
    for body in documents(good):
        survives(parse, body, *more)
    assert time.process_time() - began < LIMIT_S
