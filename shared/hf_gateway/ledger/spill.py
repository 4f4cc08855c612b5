"""Files for rows that the database does not accept yet: JSON lines, appended by one process each, imported by any process.

A line is passed to the operating system before `append` returns, so it survives the process; it is synced to disk
(fsync) when the file is closed. A process that uses a file holds a lock on it, which ends with the process.
"""

import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MAX_FILE_BYTES = 8_000_000
"""Size after which a new file is begun."""
MAX_BYTES = 256_000_000
"""Maximum size of all files of a ledger; further rows are refused."""
_SUFFIX = ".jsonl"
_ASIDE = "unreadable.txt"


class SpillFull(OSError):
    """The files have reached their maximum size."""


class Line(NamedTuple):
    """A line of a file."""

    id: uuid.UUID
    """Id that does not depend on the reader."""
    text: bytes
    """The line's bytes."""


class Spill:
    """The files of a ledger, in a folder. Safe for threads, processes and forks.

    Args:
        folder: created when it is needed, readable for its owner only.
        max_bytes: maximum size of all files.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Set the folder; nothing is opened yet."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._own: int | None = None
        self._written: set[Path] = set()
        self._own_bytes = 0
        self._others_bytes = 0

    def append(self, values: Sequence[Any]) -> None:
        """Append each value as a line of JSON, all or none. Raises OSError, such as SpillFull."""
        data = b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)
        with self._lock:
            if self._own is not None and self._own_bytes + len(data) > MAX_FILE_BYTES:
                self._close()
            if self._own is None:
                self._open()
            assert self._own is not None
            if self._others_bytes + self._own_bytes + len(data) > self.max_bytes:
                raise SpillFull(f"the files in {self.folder} have {self.max_bytes:,} bytes already")
            try:
                _write(self._own, data)
            except OSError:
                # A partial line would corrupt the next one.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._own, self._own_bytes)
                raise
            self._own_bytes += len(data)

    def close(self) -> None:
        """Close this process's file, so that it can be imported."""
        with self._lock:
            self._close()

    def waiting(self) -> list[Path]:
        """Return the files, oldest first; other processes may be writing to some."""
        if not self.folder.is_dir():
            return []
        return sorted(each for each in self.folder.iterdir() if each.suffix == _SUFFIX)

    def has_files(self) -> bool:
        """Return whether a file that this process wrote still exists."""
        self._written = {path for path in self._written if path.exists()}
        return bool(self._written)

    def claim(self, path: Path) -> "Claim | None":
        """Open a file for reading, unless it is in use or does not exist. Raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDWR | _BINARY)
        except FileNotFoundError:
            return None
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, descriptor)
            if not _try_lock(descriptor) or not _is_ours(path, descriptor):
                return None
            closing.pop_all()
        return Claim(path, descriptor)

    def put_aside(self, line: Line) -> None:
        """Write a line that cannot be imported into a separate file for the owner. Raises OSError."""
        with (self.folder / _ASIDE).open("ab") as file:
            file.write(line.text.rstrip(b"\n") + b"\n")

    def abandon(self) -> None:
        """Forget the file without releasing its lock: after a fork it belongs to the parent."""
        own, self._own, self._lock = self._own, None, threading.Lock()
        self._own_bytes, self._written = 0, set()
        if own is not None:
            os.close(own)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._others_bytes = sum(_size(path) for path in self.waiting())
        own = None
        while own is None:
            name = f"{time.time_ns() // 1_000_000:015d}-{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
            own = _create_locked(self.folder / name)
        self._own, self._own_bytes = own, 0
        self._written.add(self.folder / name)

    def _close(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            with contextlib.suppress(OSError):
                os.fsync(own)
            os.close(own)


class Claim:
    """A file that only this process reads, until `close`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Set the path and a locked file descriptor."""
        self.path = path
        self._file = os.fdopen(descriptor, "rb")

    def lines(self) -> Iterator[Line]:
        """Yield the lines in order, each with its id. Raises OSError."""
        place = 0
        for text in self._file:
            yield Line(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.path.name}:{place}"), text)
            place += len(text)

    def delete(self) -> None:
        """Delete the file after its import. Raises OSError."""
        if _CLOSE_FIRST:
            self._file.close()
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Close the file and keep it."""
        self._file.close()


def _create_locked(path: Path) -> int | None:
    """Create a file and lock it; returns its descriptor, None if another process claimed it before it was locked.

    That process finds no line in it and deletes it, so what is written to it then would be lost.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o600)
    try:
        is_locked = _try_lock(descriptor)
    except OSError:  # some network file systems have no locks
        is_locked = True
    if is_locked and _is_ours(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_ours(path: Path, descriptor: int) -> bool:
    """Return whether the path still names this file, which its previous user may have deleted."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    _BINARY = os.O_BINARY
    _CLOSE_FIRST = True

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # far after the end, where there is no data
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    _BINARY = 0
    _CLOSE_FIRST = False

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
