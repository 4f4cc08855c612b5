"""What is asked of a socket, whichever library it belongs to."""

import select
from typing import Any


def has_news(sock: Any) -> bool:
    """Return whether something waits to be read: on an idle connection the news that it is closed."""
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
