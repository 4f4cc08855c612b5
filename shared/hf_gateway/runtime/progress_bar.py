"""A progress bar on stderr, where that is a terminal and Rich is installed."""

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol


class ShowProgress(Protocol):
    """The function that moves a bar."""

    def __call__(self, done: int, total: int | None, step: str = "") -> None:
        """Show how far it is.

        Args:
            done: bytes or pieces that are done.
            total: how many there are in all; None where that is not known.
            step: what is being done, in a word or two.
        """


@contextlib.contextmanager
def progress_bar(title: str, *, counts_bytes: bool = True, wanted: bool = True) -> Iterator[ShowProgress | None]:
    """Show a bar while the block runs, and yield the function that moves it; None where there is no bar.

    Args:
        title: what stands before the bar.
        counts_bytes: whether what is counted are bytes, or pieces of something.
        wanted: False for a caller who has a display of their own.
    """
    if not wanted or not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    count = (DownloadColumn(), TransferSpeedColumn()) if counts_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int | None, step: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {step}" if step else title)

        yield show
