"""Servers that are measured from outside: their address, their processor time and their memory."""

import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness.environments import NotRun

_END_S = 20.0
_SESSION_FIELD, _RESIDENT_FIELD = 3, 21
"""Places in /proc/<pid>/stat, counted from the state of the process."""


class ServedProcess:
    """A server in a session of its own, while entered; what it starts counts, too."""

    def __init__(
        self,
        command: list[str],
        variables: Mapping[str, str],
        folder: Path,
        *,
        url: str | None = None,
        ready: str | None = None,
        start_s: float = 60.0,
    ) -> None:
        """Take what to start.

        Args:
            command: the program and its arguments.
            variables: its environment.
            folder: its working folder.
            url: its address; without one, the first line that it prints.
            ready: path that answers 200 when it is ready.
            start_s: seconds that the start may take.
        """
        self._command, self._variables, self._folder = command, variables, folder
        self.url, self._ready, self._start_s = url or "", ready, start_s

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready. Raises NotRun."""
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=dict(self._variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        with ExitStack() as ends:
            ends.callback(self.close)
            self._wait()
            ends.pop_all()
        return self

    def _wait(self) -> None:
        assert self._process.stdout is not None
        alarm = threading.Timer(self._start_s, self._process.kill)
        alarm.start()
        try:
            if not self.url:
                self.url = self._process.stdout.readline().strip()
            else:  # what it prints must not fill the pipe
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            while self._ready is not None and self._process.poll() is None:
                try:
                    with opener.open(f"{self.url}{self._ready}", timeout=10):
                        break
                except (OSError, urllib.error.URLError):
                    time.sleep(0.2)
        finally:
            alarm.cancel()
        if self._process.poll() is not None or not self.url:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            raise NotRun(f"the server did not start: {lines[-1] if lines else self._process.poll()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End it and what it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(_END_S)
                except subprocess.TimeoutExpired:
                    continue
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session."""
        return self._process.pid


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and those in its session have used so far."""
    # The clock of another process, as clock_getcpuclockid(3) makes it: the times in /proc have steps of 10 ms.
    return sum(time.clock_gettime((~each << 3) | 2) for each in _processes(pid))


def main_thread_seconds(pid: int) -> float:
    """Return the processor time that the first thread of a process has used so far; 0 where the system does not say it."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and of those in its session, in MB."""
    pages = sum(int(fields[_RESIDENT_FIELD]) for fields in _processes(pid).values())
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _processes(pid: int) -> dict[int, list[str]]:
    """Return the fields of /proc/<pid>/stat after the name, of a process and of those in its session, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        own = int(path.parent.name)
        if pid in (own, int(fields[_SESSION_FIELD])):
            found[own] = fields
    if not found:
        raise NotRun("the server has ended")
    return found
