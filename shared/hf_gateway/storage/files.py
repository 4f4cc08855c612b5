"""Folders and files that all processes of a user share: where they are, and how they are written and locked."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder: HF_GATEWAY_HOME, or `hf-gateway` in the platform's cache folder. It may not exist yet."""
    if named := environment.get("HF_GATEWAY_HOME"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hf-gateway"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hf-gateway" / "Cache"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf-gateway"


def data_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of data that cannot be made again: HF_GATEWAY_HOME, or `hf-gateway` in the platform's data folder."""
    if environment.get("HF_GATEWAY_HOME"):
        return home(environment)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "hf-gateway"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hf-gateway" / "Data"
    return Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "hf-gateway"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees either the old content or the new, also with several writers.

    Args:
        path: the file; its folder is made if it is missing.
        data: the whole content.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        passing.write_bytes(data)
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


def create_atomically(path: Path, data: bytes) -> None:
    """Write a file unless it exists, whole, so that the first of several writers wins.

    Args:
        path: the file; its folder exists.
        data: the whole content.

    Raises:
        OSError: it cannot be written.
    """
    passing = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        passing.write_bytes(data)
        try:
            os.link(passing, path)  # fails if it exists, unlike a rename
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


@contextlib.contextmanager
def interprocess_lock(file: Path, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock that excludes other processes of this machine, if the file system supports one.

    Args:
        file: the file that stands for the lock; it is created.
        remove: whether to remove it in the end, for a folder in which no foreign file may be left.
    """
    from filelock import FileLock

    lock = FileLock(file)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a read-only folder; some network file systems
            held.enter_context(lock)
            if remove:
                held.callback(_remove, lock)
        yield


def _remove(lock: "FileLock") -> None:
    """Remove a lock's file while the lock is held: a process that opened it before finds it missing, and opens a new one."""
    if lock.is_locked:  # otherwise this is a child that was forked meanwhile
        with contextlib.suppress(OSError):  # Windows does not remove an open file; filelock removes it on closing
            Path(lock.lock_file).unlink()
