"""A small TCP switch before pods, as a Service is: each connection goes to the next pod that is listed."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator


class Switch:
    """Passes the bytes of each connection on; one that no pod accepts is closed, as in a cluster, and never tried again."""

    def __init__(self) -> None:
        """Listen."""
        self.ports: list[int] = []
        self._turns: Iterator[int] = itertools.count()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        ports = list(self.ports)
        with connection:
            if not ports:
                return
            try:
                there = socket.create_connection(("127.0.0.1", ports[next(self._turns) % len(ports)]), timeout=30)
            except OSError:
                return
            with there:
                there.settimeout(None)
                back = threading.Thread(target=_pass_on, args=(there, connection), daemon=True)
                back.start()
                _pass_on(connection, there)
                back.join()


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    for each, how in ((to, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            each.shutdown(how)
