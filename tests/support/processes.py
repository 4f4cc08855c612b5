"""Processes, as Linux lists them in /proc."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Process:
    """A process, which another one with the same number later is not."""

    pid: int
    begun: str
    """When, in ticks since the machine started."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has a number now; without one it counts as ended."""
        return cls(pid, _begun(pid))

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return bool(self.begun) and _begun(self.pid) == self.begun


def _begun(pid: int) -> str:
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                found += [int(each) for each in (task / "children").read_text(encoding="utf-8").split()]
            except OSError:  # the thread has ended
                continue
    except OSError:  # the process has
        return []
    return found


def title(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def family(pid: int) -> list[Process]:
    """Return a process and all that it has started, directly or not."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(Process.of(each))
        todo += children(each)
    return found


def resident_bytes(pid: int) -> int:
    """Return the memory of a process; 0 if it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
