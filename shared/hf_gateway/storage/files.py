"""Where hf-gateway keeps what it finds out, for all processes of a user."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder: HF_GATEWAY_HOME, or `hf-gateway` in the platform's cache folder. It may not exist yet."""
    if named := environment.get("HF_GATEWAY_HOME"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hf-gateway"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hf-gateway" / "Cache"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf-gateway"


def data_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of what cannot be made again: HF_GATEWAY_HOME, or `hf-gateway` in the platform's data folder."""
    if environment.get("HF_GATEWAY_HOME"):
        return home(environment)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "hf-gateway"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hf-gateway" / "Data"
    return Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "hf-gateway"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whoever else writes it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        passing.write_bytes(data)
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


def create_atomically(path: Path, data: bytes) -> None:
    """Write a file whole unless it is there, so that of many writers the first one wins. Raises OSError."""
    passing = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        passing.write_bytes(data)
        try:
            os.link(passing, path)  # fails when it is there, as a rename would not
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


@contextlib.contextmanager
def interprocess_lock(file: Path, *, remove: bool = False) -> Iterator[None]:
    """Wait until no other process of this machine is in here for the same file, where the file system can tell.

    Args:
        file: what stands for the lock; it is created.
        remove: whether it is removed in the end, for a folder in which nothing may be left.
    """
    from filelock import FileLock

    lock = FileLock(file)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a folder that may only be read; some network file systems
            held.enter_context(lock)
            if remove:
                held.callback(_remove, lock)
        yield


def _remove(lock: "FileLock") -> None:
    """Remove a file while its lock is held: a process that opened it before finds it gone, and opens the next one."""
    if lock.is_locked:  # else this is a child, which was forked within
        with contextlib.suppress(OSError):  # Windows removes no open file; filelock does so when it closes it
            Path(lock.lock_file).unlink()
