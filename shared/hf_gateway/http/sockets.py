"""The state of a socket, of whichever library."""

import select
from typing import Any


def has_news(sock: Any) -> bool:
    """Return whether a socket is readable: on an idle connection that means that the server closed it."""
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
