"""Waking a thread that waits for a database's server."""

import contextlib
import os
import socket


def shut_down_socket(descriptor: int) -> None:
    """Wake the thread that waits for the other end: shutting a socket down does that, closing it does not.

    Args:
        descriptor: of the socket; one that is closed by now is no fault.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
