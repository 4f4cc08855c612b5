"""Which line of a TOML text each of its keys, tables and elements stands in.

`tomllib` returns values without their places. This reads the same text once more, after `tomllib` has found it valid, so it has
no errors of its own: it divides the text into words, and follows keys, dots, brackets and commas.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Place = Sequence[str | int]
"""Keys of tables and numbers of elements, from the top of the file."""

_WORD = re.compile(
    r"""
    (?P<blank>[ \t\r]+|\#[^\n]*)
  | (?P<line>\n)
  | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')
  | (?P<mark>[\[\]{}=,.])
  | (?P<bare>[^\s\[\]{}=,.\"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass
class _Container:
    """An array or an inline table that is open."""

    place: tuple[str | int, ...]
    """Its own place."""
    is_array: bool
    """Whether it has elements, not keys."""
    number: int = 0
    """The number of the element under way."""


@dataclass
class _Reader:
    """Follows the words of a text."""

    starts: list[int]
    """Offset of each line's first character."""
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    """What has been found: place → line."""
    table: tuple[str | int, ...] = ()
    """The place of the table of the last header."""
    counts: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    """How many tables each array of tables has so far."""
    containers: list[_Container] = field(default_factory=list)
    """The open arrays and inline tables, the innermost one last."""
    keys: list[tuple[str, int]] = field(default_factory=list)
    """The parts of the key or header under way, with their offsets."""
    header: str = ""
    """The brackets with which the header under way began."""
    in_value: bool = False
    """Whether a value is under way, not a key."""
    place: tuple[str | int, ...] = ()
    """The place of the value under way."""

    def read(self, text: str) -> None:
        """Note the places of a text."""
        for found in _WORD.finditer(text):
            kind, word, offset = found.lastgroup, found[0], found.start()
            if kind == "blank":
                continue
            if kind == "line":
                self._end_line()
            elif self.header:
                self._continue_header(kind, word, offset)
            elif word == "[" and not self.in_value and not self.containers and not self.keys:
                self.header = "[[" if text.startswith("[[", offset) else "["
            elif self.in_value:
                self._continue_value(kind, word, offset)
            else:
                self._continue_key(kind, word, offset)

    def _end_line(self) -> None:
        if self.containers:
            return
        self.in_value, self.header = False, ""
        self.keys.clear()

    def _continue_header(self, kind: str | None, word: str, offset: int) -> None:
        if kind in ("string", "bare"):
            self.keys.append((_name(kind, word), offset))
        elif word == "]" and self.keys:
            *parents, (last, place) = self.keys
            table = self._note((), parents)
            if self.header == "[[":
                array = (*table, last)
                self._note_at(array, place)
                self.counts[array] = self.counts.get(array, 0) + 1
                self.table = (*array, self.counts[array] - 1)
            else:
                self.table = self._below_arrays((*table, last))
            self.lines[self.table] = self._line(place)
            self.keys.clear()

    def _continue_key(self, kind: str | None, word: str, offset: int) -> None:
        if kind in ("string", "bare"):
            self.keys.append((_name(kind, word), offset))
        elif word == "=":
            table = self.containers[-1].place if self.containers else self.table
            self.place = self._note(table, self.keys)
            self.keys.clear()
            self.in_value = True
        elif word == "}":
            self._close()

    def _continue_value(self, kind: str | None, word: str, offset: int) -> None:
        inner = self.containers[-1] if self.containers else None
        if inner is not None and inner.is_array and word not in ("]", ","):
            self.place = (*inner.place, inner.number)
            self._note_at(self.place, offset)
        if kind != "mark":
            return
        if word in "[{":
            self.containers.append(_Container(self.place, word == "["))
            self.in_value = word == "["
        elif word in "]}":
            self._close()
        elif word == "," and inner is not None:
            inner.number += 1
            self.in_value = inner.is_array

    def _close(self) -> None:
        """End a container; what holds it is at the end of a value."""
        self.containers.pop()
        self.in_value = True

    def _note(self, table: tuple[str | int, ...], keys: Sequence[tuple[str, int]]) -> tuple[str | int, ...]:
        """Note the places of a dotted key; return the last one."""
        for key, offset in keys:
            table = self._below_arrays((*table, key))
            self._note_at(table, offset)
        return table

    def _below_arrays(self, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Return the last table of an array of tables, which its name stands for in headers."""
        return (*place, self.counts[place] - 1) if place in self.counts else place

    def _note_at(self, place: tuple[str | int, ...], offset: int) -> None:
        self.lines.setdefault(place, self._line(offset))

    def _line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)


def _name(kind: str, word: str) -> str:
    return word if kind == "bare" else str(tomllib.loads(f"key = {word}")["key"])


class TomlLines:
    """The lines of a TOML text's keys, tables and elements."""

    def __init__(self, text: str) -> None:
        """text: valid TOML."""
        reader = _Reader([0, *_offsets_after_newlines(text)])
        reader.read(text)
        self._lines = reader.lines

    def places(self) -> set[tuple[str | int, ...]]:
        """Return the places of all keys, tables and elements."""
        return set(self._lines)

    def has(self, place: Place) -> bool:
        """Return whether there is a key, a table or an element in a place."""
        return tuple(place) in self._lines

    def line(self, place: Place) -> int:
        """Return the line, counted from 1, of a key, a table or an element; of what holds it, or 1, if it is not in the text."""
        for length in range(len(place), 0, -1):
            found = self._lines.get(tuple(place[:length]))
            if found is not None:
                return found
        return 1


def _offsets_after_newlines(text: str) -> Iterator[int]:
    return (found.end() for found in re.finditer("\n", text))
