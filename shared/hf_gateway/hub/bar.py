"""Progress of downloads and of publishing: on stderr, where that is a terminal and Rich is installed."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec


@contextlib.contextmanager
def bytes_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give the function that is told (bytes here, bytes in all), or None where nobody watches."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)


@contextlib.contextmanager
def publish_bar(
    title: str, told: Callable[[str, int, int], None] | None = None
) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give the function that is told (step, bytes sent, bytes in all): the caller's own, or a line that shows them.

    Args:
        title: the repository.
        told: the caller's own; None for the line, where there is a terminal.
    """
    if told is not None or not sys.stderr.isatty() or find_spec("rich") is None:
        yield told
        return
    from rich.console import Console
    from rich.filesize import decimal

    with Console(stderr=True).status(title) as status:

        def show(step: str, sent: int, total: int) -> None:
            bytes_sent = f" ({decimal(sent)} of {decimal(total)})" if sent else ""
            status.update(f"{title}: {step}{bytes_sent}")

        yield show
