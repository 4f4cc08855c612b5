"""Tables, colours and bars for people: through Rich, on stderr where they are not the result itself."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

from hf_gateway.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """Return a console that is plain when nobody watches. Raises ImportError with the `pip install` line."""
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("tables for people need rich: pip install 'hf-gateway[cli]'; or pass --json") from None
    bear(sys.stderr if stderr else sys.stdout)
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def bear(stream: TextIO) -> None:
    """Have a stream write what its encoding has no sign for by the number of the sign, rather than fail."""
    # "surrogateescape" is the standard streams' own in the C locale; it fails as "strict" does.
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def visible(name: str) -> str:
    """Return a name with what cannot be seen, such as a line break, written out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def check_text(given: Mapping[str, str | None]) -> None:
    """Raise ConfigError for what came from the command line as bytes that are no text. given: what it was given for."""
    for option, value in given.items():
        if value is not None and any("\ud800" <= each <= "\udfff" for each in value):
            raise ConfigError(f"{option} {value!r} has bytes in it that are no text in this locale")


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the block runs, and give the function that moves it.

    There is none where stderr is no terminal, or where Rich is not installed.
    """
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda done: None  # noqa: ARG005 - nobody watches
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def print_json(value: Any) -> None:
    """Print for machines: one document, in ASCII so that no locale can break it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
