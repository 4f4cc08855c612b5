"""The state of a socket, of whichever library."""

import select
from collections.abc import Callable
from typing import Any


def has_news(sock: Any) -> bool:
    """Return whether a socket is readable: on an idle connection that means that the server closed it."""
    return news_of(sock)()


def news_of(sock: Any) -> Callable[[], bool]:
    """Return what says each time whether a socket is readable; for one that is asked often."""
    if not hasattr(select, "poll"):
        return lambda: bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: bool(poll.poll(0))
