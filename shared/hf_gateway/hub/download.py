"""Downloads a model into the cache that all Hugging Face tools share.

The layout is the one that huggingface_hub documents: blobs by digest, snapshots by commit that link to them, and refs
that name the commit of a branch.
"""

import contextlib
import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.errors import GatewayError
from hf_gateway.hub.cached_files import damage, is_whole, recorded_commit, repository
from hf_gateway.hub.compatibility import format_bytes
from hf_gateway.hub.errors import DownloadStopped, NotEnoughSpace
from hf_gateway.hub.machine import free_disk
from hf_gateway.hub.transfer import DownloadSource, Patience, Stopped, Transfer
from hf_gateway.keys.credentials import Credential
from hf_gateway.storage.files import write_atomically
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.hub_model import ModelFile
from hf_gateway.wire.hub_models import TARGET

PARALLEL_FILES = 4
"""Number of files that are downloaded at the same time."""
DISK_MARGIN_BYTES = 200 * 2**20
"""Bytes of the disk that a download leaves free."""

Progress = Callable[[int, int], None]
"""Called with the bytes on disk and the bytes in total, from several threads."""


@dataclass(frozen=True)
class Download:
    """A model's files on this machine."""

    model: str
    """Hub id."""
    revision: str
    """The revision that was asked for."""
    commit: str
    """Commit that the revision pointed to."""
    path: Path
    """Folder of the snapshot."""
    files: tuple[str, ...]
    """Paths of the chosen files, relative to the folder."""
    bytes: int
    """Their size in bytes."""
    new_bytes: int
    """Bytes that had to be downloaded."""
    left_out: tuple[str, ...] = ()
    """Weights that the model needs and that exist as pickles only."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "model": self.model,
            "revision": self.revision,
            "commit": self.commit,
            "path": str(self.path),
            "files": list(self.files),
            "bytes": self.bytes,
            "new_bytes": self.new_bytes,
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True)
class DownloadPlan:
    """The files to download."""

    model: str
    """Hub id."""
    revision: str
    """The revision that was asked for."""
    commit: str
    """Commit that the revision points to."""
    files: tuple[ModelFile, ...]
    """The chosen files; their paths are checked."""
    endpoint: str
    """Base URL of the Hub."""
    credential: Credential | None
    """Credential for the Hub, if there is one."""
    cache_dir: Path
    """Folder of the cache."""
    left_out: tuple[ModelFile, ...] = ()
    """Weights that the model needs and that exist as pickles only."""

    @property
    def folder(self) -> Path:
        """Folder of the repository in the cache, as huggingface_hub documents it."""
        return repository(self.cache_dir, self.model)


def missing_files(order: DownloadPlan) -> list[ModelFile]:
    """Return the files that are missing or incomplete in the cache."""
    snapshot = order.folder / "snapshots" / order.commit
    return [file for file in order.files if not is_whole(snapshot / file.path, file.size)]


def check_whole(order: DownloadPlan, away: GatewayError) -> None:
    """Raise the Hub's failure if a file that would have to be downloaded is missing or truncated.

    Args:
        order: the files.
        away: why the Hub cannot be reached.
    """
    if lacking := [file.path for file in missing_files(order)]:
        reason: str | None = f"{', '.join(lacking[:3])} {'is' if len(lacking) == 1 else 'are'} missing or cut off"
    else:
        # Files that another tool downloaded, whose digest is known from the disk only.
        unknown = [file.path for file in order.files if file.digest is None]
        reason = damage(order.folder / "snapshots" / order.commit, unknown)
    if reason is not None:
        raise away.restated(f"{away.message}; the files of {order.model} on this disk are incomplete: {reason}", None)


def check_room(order: DownloadPlan) -> None:
    """Raise NotEnoughSpace if the missing files would fill the disk."""
    wanted = sum(file.size or 0 for file in missing_files(order))
    free = free_disk(order.cache_dir) if wanted else None
    if free is not None and wanted + DISK_MARGIN_BYTES > free:
        raise NotEnoughSpace(
            f"{order.model} needs {format_bytes(wanted)}, and {order.cache_dir} has {format_bytes(free)} free "
            f"({format_bytes(DISK_MARGIN_BYTES)} have to stay free); "
            "make room or name another folder (cache_dir=...)"
        )


class Stop(threading.Event):
    """Stops a download when it is set: the caller stops waiting at once, a thread at its next block of bytes."""

    def __init__(self) -> None:
        """Start unset."""
        super().__init__()
        self.told: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def set(self) -> None:
        """Stop the download and wake the waiting thread."""
        super().set()
        self.told.put(DownloadStopped("the download was stopped; a later one resumes it", target=TARGET))


def fetch(
    order: DownloadPlan, progress: Progress | None = None, *, stop: Stop | None = None, patience: Patience | None = None
) -> Download:
    """Download the missing files, and record the revision's commit. Blocks; an interrupted download can be resumed.

    Args:
        order: the files.
        progress: called with the bytes on disk and the bytes in total.
        stop: set in another thread to stop the download.
        patience: limits for stalled transfers and retries.

    Returns:
        The files in the cache.

    Raises:
        ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the download broke off; the next call resumes it.
        ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: the Hub refused.
        BadResponse: a file does not match the size or digest that the Hub lists.
        OSError: the folder cannot be written to.
    """
    wanted = missing_files(order)
    check_room(order)
    if wanted:
        _Download(order, wanted, progress, stop or Stop(), patience).run()
    if order.commit not in (order.revision, recorded_commit(order.cache_dir, order.model, order.revision)):
        # Where all Hugging Face tools look up the commit of a revision.
        try:
            write_atomically(order.folder / "refs" / order.revision, order.commit.encode())
        except OSError as error:
            if wanted:
                raise
            # The files are complete, in a read-only cache such as that of a container image.
            notice_once(
                f"{order.folder} cannot be written to, so the commit of {order.revision} is not recorded: {error}"
            )
    return Download(
        order.model,
        order.revision,
        order.commit,
        order.folder / "snapshots" / order.commit,
        tuple(file.path for file in order.files),
        sum(file.size or 0 for file in order.files),
        sum(file.size or 0 for file in wanted),
        tuple(file.path for file in order.left_out),
    )


class _Download:
    """Threads that download files one after another, and the queue on which they report."""

    def __init__(
        self,
        order: DownloadPlan,
        wanted: Sequence[ModelFile],
        progress: Progress | None,
        stop: Stop,
        patience: Patience | None,
    ) -> None:
        self._order = order
        self._progress = progress
        self._left = list(wanted)
        self._total = sum(file.size or 0 for file in wanted)
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = stop
        self._working = 0
        source = DownloadSource(order.endpoint, order.model, order.commit, order.credential)
        self._transfer = Transfer(source, stop.wait, self._note_progress, patience)

    def run(self) -> None:
        # Own threads: the interpreter waits for those of a pool when it exits, but Ctrl-C must end the download at once.
        working = self._working = min(PARALLEL_FILES, len(self._left))
        for number in range(working):
            threading.Thread(target=self._work, name=f"hf-gateway-download-{number}", daemon=True).start()
        failure: Exception | None = None
        try:
            while working and failure is None:
                with contextlib.suppress(queue.Empty):
                    # With a timeout: on some systems Ctrl-C is noticed only between two waits.
                    failure = self._stop.told.get(timeout=1.0)
                    working -= failure is None
        finally:
            self._stop.set()
        if failure is not None:
            raise failure

    def _note_progress(self, file: ModelFile, done: int) -> None:
        """Record how many bytes of a file are on disk. Called for every block."""
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self._done[file.path] = done
            whole = min(sum(self._done.values()), self._total)
        if self._progress is not None:
            self._progress(whole, self._total)

    def _work(self) -> None:
        failure: Exception | None = None
        try:
            while file := self._next():
                self._download_file(file)
        except Stopped:
            failure = None
        except Exception as error:  # noqa: BLE001 - passed to the caller's thread, which raises it
            failure = error
        self._stop.told.put(failure)
        with self._lock:
            self._working -= 1
            last = self._working == 0
        if last:
            # Not earlier: a thread stays blocked if another thread closes the connection that it reads from.
            self._transfer.close()

    def _next(self) -> ModelFile | None:
        with self._lock:
            return self._left.pop(0) if self._left and not self._stop.is_set() else None

    def _download_file(self, file: ModelFile) -> None:
        order = self._order
        blobs = order.folder / "blobs"
        name = file.digest or hashlib.sha256(f"{order.commit}/{file.path}".encode()).hexdigest()
        if not is_whole(blobs / name, file.size):
            # The lock of huggingface_hub, so that two tools do not download the same file; works between processes only.
            with _exclusive(order.cache_dir / ".locks" / order.folder.name / f"{name}.lock", self._stop):
                if not is_whole(blobs / name, file.size):
                    part = blobs / f"{name}.hf-gateway.incomplete"
                    name = self._transfer.fetch(file, part)
                    part.replace(blobs / name)
        _link(blobs / name, order.folder / "snapshots" / order.commit / file.path)
        self._note_progress(file, file.size or 0)


@contextlib.contextmanager
def _exclusive(path: Path, stop: Stop) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            if stop.is_set():
                raise Stopped from None
    try:
        yield
    finally:
        lock.release()


def _link(blob: Path, pointer: Path) -> None:
    """Add a file to a snapshot: as a relative link to its blob, or as a copy where links are not supported."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    temporary = pointer.with_name(f".{pointer.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        temporary.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.copyfile(blob, temporary)
    try:
        temporary.replace(pointer)
    finally:
        temporary.unlink(missing_ok=True)
