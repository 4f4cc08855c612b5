"""What the command prints: tables, colours and bars through Rich where it is installed, plain text where it is not.

Whatever is printed for people is made visible first, so that nothing that a server said can command the terminal.
"""

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from hf_gateway.errors import ConfigError, visible

# As in rich.markup, which may not be installed.
_TAG = re.compile(r"(\\*)(\[[a-z#/@][^\[]*?\])")


@dataclass
class Table:
    """Rows of cells, in Rich's markup.

    Args:
        titles: of the columns.
        right: which of them have their text at the right.
        fold: which of them break where the terminal is too narrow; without any, its lines are as long as they are.
        footer: the last line's cells.
        gap: blanks between two columns.
    """

    titles: tuple[str, ...]
    right: frozenset[str] = frozenset()
    fold: frozenset[str] = frozenset()
    footer: tuple[str, ...] = ()
    gap: int = 2
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(tuple(visible(cell) for cell in cells))


class Console:
    """Where people read. Without Rich the markup is left out."""

    def __init__(self, stream: TextIO, rich: Any = None) -> None:
        """Take the stream, and Rich's console over it, if there is one."""
        self.rich = rich
        self._stream = stream

    @property
    def ascii_only(self) -> bool:
        """Whether the stream has no signs beyond ASCII for sure."""
        return not (getattr(self._stream, "encoding", None) or "utf-8").lower().startswith("utf")

    def print(self, text: str = "", *, markup: bool = True, style: str | None = None, end: str = "\n") -> None:
        """Print lines of text. markup: the text is Rich's markup, in which foreign text is `literal`."""
        text = visible(text, lines=True)
        if self.rich is not None:
            self.rich.print(text, markup=markup, style=style, end=end)
        else:
            self._stream.write((_without_markup(text) if markup else text) + end)
            self._stream.flush()

    def print_table(self, table: Table) -> None:
        """Print a table, with nothing of it cut off."""
        if self.rich is not None:
            _print_rich(self.rich, table)
        else:
            for line in _plain_lines(table):
                self._stream.write(line + "\n")


def console(*, stderr: bool = False) -> Console:
    """Return a console that is plain where no terminal is, or no Rich."""
    stream = sys.stderr if stderr else sys.stdout
    escape_unencodable(stream)
    try:
        from rich.console import Console as RichConsole
    except ImportError:
        return Console(stream)
    return Console(stream, RichConsole(stderr=stderr, highlight=False, soft_wrap=True))


def literal(text: object, *, lines: bool = False) -> str:
    """Return foreign text as a part of a line in markup: it commands nothing, and starts no line.

    lines: for an error's message, whose lists have lines of their own, and whose foreign words have none.
    """
    plain = _TAG.sub(lambda found: f"{found[1] * 2}\\{found[2]}", visible(str(text), lines=lines))
    return plain + "\\" if plain.endswith("\\") and not plain.endswith("\\\\") else plain


def _without_markup(text: str) -> str:
    def shown(found: re.Match[str]) -> str:
        backslashes, tag = found.groups()
        return backslashes[: len(backslashes) // 2] + (tag if len(backslashes) % 2 else "")

    return _TAG.sub(shown, text)


def _print_rich(rich: Any, table: Table) -> None:
    from rich.measure import Measurement
    from rich.table import Table as RichTable

    made = RichTable(box=None, pad_edge=False, padding=(0, table.gap, 0, 0), show_footer=bool(table.footer))
    for title, last in zip(table.titles, table.footer or ("",) * len(table.titles), strict=True):
        folds = title in table.fold
        made.add_column(
            title,
            last,
            justify="right" if title in table.right else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ignore",
        )
    for row in table.rows:
        made.add_row(*row)
    # A number that is cut is another number: where the terminal is too narrow, it breaks the lines.
    natural = Measurement.get(rich, rich.options.update(max_width=100_000), made).maximum
    before = rich.width
    if not rich.is_terminal or not table.fold:
        rich.width = max(natural, before)
    rich.print(made, crop=False)
    rich.width = before


def _plain_lines(table: Table) -> Iterator[str]:
    rows = [table.titles, *table.rows, *([table.footer] if table.footer else [])]
    cells = [[_without_markup(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        aligned = [
            cell.rjust(width) if title in table.right else cell.ljust(width)
            for title, cell, width in zip(table.titles, row, widths, strict=True)
        ]
        yield (" " * table.gap).join(aligned).rstrip()


def escape_unencodable(stream: TextIO) -> None:
    """Have a stream write what its encoding has no sign for by the number of the sign, rather than fail."""
    # "surrogateescape" is the standard streams' own in the C locale; it fails as "strict" does.
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def stdin_text() -> str:
    """Return all of stdin, without the mark that some editors begin a file with, and with one kind of line break."""
    return sys.stdin.read().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_text(given: Mapping[str, str | None]) -> None:
    """Raise ConfigError for what came from the command line as bytes that are no text. given: what it was given for."""
    for option, value in given.items():
        if value is not None and any("\ud800" <= each <= "\udfff" for each in value):
            raise ConfigError(f"{option} {value!r} has bytes in it that are no text in this locale")


def print_json(value: Any) -> None:
    """Print for machines: one document, in ASCII so that no locale can break it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
