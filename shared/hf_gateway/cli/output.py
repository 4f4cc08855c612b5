"""Tables, colours and bars for people: through Rich, on stderr where they are not the result itself."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console(*, stderr: bool = False) -> "Console":
    """Return a console that is plain when nobody watches. Raises ImportError with the `pip install` line."""
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("tables for people need rich: pip install 'hf-gateway[cli]'; or pass --json") from None
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def progress() -> "Progress":
    """Return a bar on stderr that vanishes when it is done, and is not there at all when stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def print_json(value: Any) -> None:
    """Print for machines: one document, in ASCII so that no locale can break it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
