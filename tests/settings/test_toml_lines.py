"""The line of each key, table and element of a TOML text, however it is written."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gateway.settings.toml_lines import TomlLines

TEXT = '''\
top."a.b".'c d' = 1 # [no]
[x . 'y']
text = """
[no.table]
q = 1 ""\\"""
"""
list = [
  1, "]",
  { p = 1, q.r = [ 3,
    4 ] }, # , ]
  [ [], [
      5 ] ],
]
empty = { }
[[t]]
n = 1.5
[[t.u]]
when = 1979-05-27 07:32:00.5
[[t.u]]
when = 2
[t.v]
z = 'x'
[[t]]
n = -inf
[later.first]
[later]
raw = \'\'\'a'b
[no]\'\'\'\'
after = true
3.14 = "pi"
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top", "a.b", "c d"), 1),
        (("x", "y"), 2),
        (("x", "y", "text"), 3),
        (("x", "y", "list", 1), 8),
        (("x", "y", "list", 2, "p"), 9),
        (("x", "y", "list", 2, "q", "r", 1), 10),
        (("x", "y", "list", 3, 1, 0), 12),
        (("x", "y", "empty"), 14),
        (("t", 0), 15),
        (("t", 0, "n"), 16),
        (("t", 0, "u", 0, "when"), 18),
        (("t", 0, "u", 1, "when"), 20),
        (("t", 0, "v", "z"), 22),
        (("t", 1, "n"), 24),
        (("later", "first"), 25),
        (("later",), 26),
        (("later", "raw"), 27),
        (("later", "after"), 29),
        (("later", "3", "14"), 30),
    ],
)
def test_a_place_has_its_line(place: tuple[str | int, ...], line: int) -> None:
    lines = TomlLines(TEXT)
    assert lines.has(place)
    assert lines.line(place) == line


def test_what_is_not_there_has_the_line_of_what_holds_it() -> None:
    lines = TomlLines(TEXT)
    assert lines.line(("x", "y", "list", 2, "none", 5)) == 9
    assert not lines.has(("x", "y", "list", 2, "none"))
    assert lines.line(("none",)) == 1


def test_both_kinds_of_line_breaks_count_as_one() -> None:
    assert TomlLines("a = 1\r\n[b]\r\nc = 2\r\n").line(("b", "c")) == 3


def places(value: Any, below: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if below:
        yield below
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in parts:
        yield from places(inner, (*below, name))


LETTERS = "ab1_-.#=[]{},'\"\\ \té\u2028\U0001f600"
KEYS = st.text(LETTERS, max_size=5)
SCALARS = st.one_of(
    st.integers(-9, 9), st.booleans(), st.text(LETTERS, max_size=8), st.floats(allow_nan=False), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def written(value: Any, draw: Any, *, within_table: bool = False) -> str:
    """Write a value as TOML, with line breaks and comments where they are allowed."""
    if isinstance(value, dict):
        pairs = (f"{key(name, draw)} = {written(each, draw, within_table=True)}" for name, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        gap = draw(st.sampled_from(["", " "] if within_table else ["", " ", "\n", " # , ]\n"]))
        return f"[{gap}{f',{gap}'.join(written(each, draw, within_table=within_table) for each in value)}{gap}]"
    if isinstance(value, str):
        if (
            not within_table
            and "'''" not in value
            and value.isprintable()
            and not value.endswith("'")
            and draw(st.booleans())
        ):
            return f"'''\n{value}'''"
        return text(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value).replace("Infinity", "inf")
    return str(value)


def text(value: str) -> str:
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f") if value.isascii() else toml_text(value)


def toml_text(value: str) -> str:
    return '"' + "".join(f"\\U{ord(each):08x}" for each in value) + '"'


def key(name: str, draw: Any) -> str:
    if name.isascii() and name.replace("_", "a").replace("-", "a").isalnum() and draw(st.booleans()):
        return name
    return text(name)


@given(DOCUMENTS, st.data())
def test_exactly_the_places_of_the_values_are_found(document: dict[str, Any], data: st.DataObject) -> None:
    lines = []
    for name, value in document.items():
        if not isinstance(value, dict):
            lines.append(f"{key(name, data.draw)} = {written(value, data.draw)}")
    for name, value in document.items():
        if isinstance(value, dict):
            lines.append(f"[{key(name, data.draw)}] # [x]")
            lines += [f"{key(each, data.draw)} = {written(inner, data.draw)}" for each, inner in value.items()]
    source = "\n".join(lines)
    expected = set(places(tomllib.loads(source)))
    found = TomlLines(source)
    assert found.places() == expected
