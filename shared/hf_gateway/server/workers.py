"""Several worker processes on one socket: signals reach all of them at once, and one that dies is replaced."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing import connection
from types import FrameType
from typing import Any

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from hf_gateway.errors import GatewayError
from hf_gateway.server.application import from_environment
from hf_gateway.server.process import GatewayServer, spare_collector
from hf_gateway.values.logs import logger

log = logger(__name__)


class Worker(Process):
    """One process with a server of its own on the shared socket."""

    def ping(self, timeout: float = 5) -> bool:
        """Return whether the worker answers within `timeout` seconds; one that ends meanwhile is not waited for."""
        try:
            self.parent_conn.send(b"ping")
            if self.parent_conn in connection.wait([self.parent_conn, self.process.sentinel], timeout):
                self.parent_conn.recv()
                return True
        except (OSError, EOFError):
            pass
        return False

    def pong(self) -> None:
        """Answer the supervisor, also while the application is still being built."""
        self.child_conn.recv()
        self.child_conn.send(self._server is not None and self._server.started)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until the supervisor is gone: without it nothing would end or replace this process.

        Args:
            sockets: that listen.
        """
        threading.Thread(target=self.always_pong, daemon=True).start()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            application = from_environment()
        except GatewayError as error:
            log.error("a worker does not start: %s", error)
            sys.exit(STARTUP_FAILURE)
        self.config.app = application
        server = self._server = GatewayServer(self.config, application.state.gateway)
        server.catch_reload()
        _hold_reloads(False)
        spare_collector()
        server.run(sockets)


def _hold_reloads(held: bool) -> None:
    """Let SIGHUP wait, also in processes started meanwhile: it would end one that has yet to say what to do at it."""
    if hasattr(signal, "SIGHUP"):
        signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, [signal.SIGHUP])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        signal.raise_signal(signal.SIGTERM)


class WorkerSupervisor(Multiprocess):
    """Starts the workers, replaces those that die, and passes signals on.

    uvicorn's own restarts the workers at SIGHUP, which would lose breakers, budgets and loaded models, and keeps the socket
    open while they end, so that new connections would wait in vain.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        """config: with the application's import string and the number of workers; sockets: that listen."""
        super().__init__(config, sockets)
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._pass_on)

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes.extend(self._started() for _ in range(self.processes_num))

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died or hang; end everything where none can start."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set() or self.signal_queue:
                return
            if process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE and not any(each.process.is_alive() for each in self.processes):
                self.should_exit.set()
                return
            log.warning("worker %s has died (exit code %s) and is replaced", process.pid, process.exitcode)
            self.processes[index] = self._started()

    def terminate_all(self) -> None:
        """End the workers, and accept no connection any more: they hold the same socket."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()

    def handle_hup(self) -> None:
        """Let each worker read the configuration again; each keeps its old one on an error."""
        if hasattr(signal, "SIGHUP"):
            self._send(signal.SIGHUP)

    def handle_ttin(self) -> None:
        """Add a worker."""
        self.processes_num += 1
        self.processes.append(self._started())

    def _started(self) -> Process:
        process = Worker(self.config, self.sockets)
        _hold_reloads(True)
        try:
            process.start()
        finally:
            _hold_reloads(False)
        return process

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Begin to end: SIGTERM goes on at once, SIGINT when it is the second, since a terminal sends it to the workers, too."""
        if number == signal.SIGTERM or self.should_exit.is_set():
            self._send(number)
        self.signal_queue.append(number)

    def _send(self, number: int) -> None:
        for process in self.processes:
            if process.exitcode is None and process.pid is not None and os.name == "posix":
                os.kill(process.pid, number)


def serve_in_workers(config: Any, listening: socket.socket) -> bool:
    """Serve until a signal; returns whether the workers could start.

    Args:
        config: uvicorn's, with the application's import string.
        listening: the socket; closed afterwards.
    """
    supervisor = WorkerSupervisor(config, [listening])
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)
