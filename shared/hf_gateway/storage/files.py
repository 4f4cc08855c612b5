"""Where hf-gateway keeps what it finds out, for all processes of a user."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


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
def interprocess_lock(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in here for the same path, where the system and the disk can tell.

    path: a folder, which is left as it is, or a file, which is made.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):  # Windows; some network file systems
            import fcntl

            door = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
            _lock_files.add(door)
            held.callback(_close, door)
            fcntl.flock(door, fcntl.LOCK_EX)
        yield


_lock_files: set[int] = set()


def _close(door: int) -> None:
    if door in _lock_files:  # else this is a child, which was forked within
        _lock_files.discard(door)
        os.close(door)


def _in_child() -> None:
    """Close what was inherited: a child that keeps it open would keep others out, for as long as it lives."""
    while _lock_files:
        os.close(_lock_files.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
