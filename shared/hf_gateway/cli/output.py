"""Output of the command: tables, colours and bars with Rich if it is installed, plain text otherwise.

All output for people is escaped first, so that text from a server cannot control the terminal.
"""

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from hf_gateway.errors import ConfigError, InvalidRequest, visible

# As in rich.markup, since Rich may not be installed.
_TAG = re.compile(r"(\\*)(\[[a-z#/@][^\[]*?\])")


@dataclass
class Table:
    """Rows of cells, in Rich's markup."""

    titles: tuple[str, ...]
    """Titles of the columns."""
    right: frozenset[str] = frozenset()
    """Titles of right-aligned columns."""
    fold: frozenset[str] = frozenset()
    """Titles of columns that wrap if the terminal is too narrow; without any, lines are as long as needed."""
    footer: tuple[str, ...] = ()
    """Cells of the last line."""
    gap: int = 2
    """Blanks between two columns."""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    """Cells of the rows."""

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(tuple(visible(cell) for cell in cells))


class Console:
    """Output for people. Without Rich the markup is removed."""

    def __init__(self, stream: TextIO, rich: Any = None) -> None:
        """Set the stream.

        Args:
            stream: the stream to write to.
            rich: Rich's console for the stream, if Rich is installed.
        """
        self.rich = rich
        self._stream = stream

    @property
    def ascii_only(self) -> bool:
        """Whether the stream's encoding may lack characters beyond ASCII."""
        return not (getattr(self._stream, "encoding", None) or "utf-8").lower().startswith("utf")

    def print(self, text: str = "", *, markup: bool = True, style: str | None = None, end: str = "\n") -> None:
        """Print lines of text.

        Args:
            text: the text.
            markup: whether the text is Rich's markup; text from elsewhere has to be `literal` in it.
            style: Rich style of the text.
            end: text after it.
        """
        text = visible(text, lines=True)
        if self.rich is not None:
            self.rich.print(text, markup=markup, style=style, end=end)
        else:
            self._stream.write((_without_markup(text) if markup else text) + end)
            self._stream.flush()

    def print_table(self, table: Table) -> None:
        """Print a table without truncating it."""
        if self.rich is not None:
            _print_rich(self.rich, table)
        else:
            for line in _plain_lines(table):
                self._stream.write(line + "\n")


def console(*, stderr: bool = False) -> Console:
    """Return a console, plain if the stream is not a terminal or Rich is not installed."""
    stream = sys.stderr if stderr else sys.stdout
    escape_unencodable(stream)
    try:
        from rich.console import Console as RichConsole
    except ImportError:
        return Console(stream)

    class Lines(RichConsole):
        def on_broken_pipe(self) -> None:
            """Leave it to `main`, as for all other output: Rich's own would end the command with 1, as if it had failed."""
            raise BrokenPipeError

    return Console(stream, Lines(stderr=stderr, highlight=False, soft_wrap=True))


def literal(text: object, *, lines: bool = False) -> str:
    """Return text from elsewhere as part of a line in markup: without markup of its own, and without line breaks.

    Args:
        text: the text.
        lines: whether to keep line breaks, for error messages with lists, whose quoted text has none.
    """
    plain = _TAG.sub(lambda found: f"{found[1] * 2}\\{found[2]}", visible(str(text), lines=lines))
    return plain + "\\" if plain.endswith("\\") and not plain.endswith("\\\\") else plain


def _without_markup(text: str) -> str:
    def unescape(found: re.Match[str]) -> str:
        backslashes, tag = found.groups()
        return backslashes[: len(backslashes) // 2] + (tag if len(backslashes) % 2 else "")

    return _TAG.sub(unescape, text)


def _print_rich(rich: Any, table: Table) -> None:
    from rich.measure import Measurement
    from rich.table import Table as RichTable

    made = RichTable(box=None, pad_edge=False, padding=(0, table.gap, 0, 0), show_footer=bool(table.footer))
    columns = zip(table.titles, *table.rows, table.footer or ("",) * len(table.titles), strict=True)
    aligned = [_right_aligned(column) if column[0] in table.right else column for column in columns]
    for title, column in zip(table.titles, aligned, strict=True):
        folds = title in table.fold
        made.add_column(column[0], column[-1], no_wrap=not folds, overflow="fold" if folds else "ignore")
    for row in zip(*(column[1:-1] for column in aligned), strict=True):
        made.add_row(*row)
    # A truncated number would be another number: if the terminal is too narrow, lines wrap.
    natural = Measurement.get(rich, rich.options.update(max_width=100_000), made).maximum
    before = rich.width
    if not rich.is_terminal or not table.fold:
        rich.width = max(natural, before)
    rich.print(made, crop=False)
    rich.width = before


def _right_aligned(cells: Sequence[str]) -> tuple[str, ...]:
    """Pad cells on the left: Rich 15 justifies nothing that may be wider than its column."""
    from rich.text import Text

    widths = [Text.from_markup(cell).cell_len for cell in cells]
    return tuple(" " * (max(widths) - width) + cell for cell, width in zip(cells, widths, strict=True))


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
    """Have a stream escape characters that its encoding lacks, instead of failing."""
    # "surrogateescape" is the error handler of the standard streams in the C locale; it fails as "strict" does.
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def stdin_text() -> str:
    r"""Return all of stdin, without a byte order mark, and with `\n` as the only line break.

    Raises InvalidRequest if it is not text.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale is
    try:
        text = sys.stdin.read()
        text.encode("utf-8", "surrogateescape").decode()  # some locales read any byte, as a lone surrogate
    except UnicodeDecodeError as error:
        raise not_text("stdin", error) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def not_text(place: str, error: UnicodeDecodeError) -> InvalidRequest:
    """Return the error for a file or stdin that is not text.

    Args:
        place: what it is called in errors.
        error: that of decoding it.
    """
    return InvalidRequest(f"{place} is not text in UTF-8: {error.reason} at byte {error.start}")


def shortened(text: str, most_chars: int) -> str:
    """Return a text in one line, without its end if it is too long.

    Args:
        text: the text.
        most_chars: how many characters are kept.
    """
    line = " ".join(text.split())
    return line if len(line) <= most_chars else f"{line[:most_chars]}…"


def count_above_0(value: str) -> int:
    """Return the number that an option was given; raises ValueError for anything but a whole number above 0."""
    count = int(value)
    if count < 1:
        raise ValueError
    return count


count_above_0.__name__ = "whole number above 0"  # argparse names it in its error


def check_text(given: Mapping[str, str | None]) -> None:
    """Raise ConfigError for values that were given as bytes which are not text in this locale.

    Args:
        given: values by the name of their option.
    """
    for option, value in given.items():
        if value is not None and any("\ud800" <= each <= "\udfff" for each in value):
            raise ConfigError(f"{option} {value!r} contains bytes that are not text in this locale")


def print_json(value: Any) -> None:
    """Print a JSON document, in ASCII so that every locale can encode it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
