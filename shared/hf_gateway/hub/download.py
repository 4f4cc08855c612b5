"""Downloads a model into the cache that all Hugging Face tools share, so that each finds what another fetched.

The layout is the one that huggingface_hub documents: blobs by digest, snapshots by commit that link to them, refs that say
which commit a branch was.
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
"""Files."""
DISK_MARGIN_BYTES = 200 * 2**20
"""Bytes that are left free on the disk."""

Progress = Callable[[int, int], None]
"""Told the bytes that are here and those there will be, from several threads."""


@dataclass(frozen=True)
class Download:
    """A model's files on this machine.

    path: the folder; commit: what the revision was at that moment; files: those in the folder that were wanted; bytes: their
    size, new_bytes: what of it had to be fetched; left_out: weights that the model needs and that are in pickles only.
    """

    model: str
    revision: str
    commit: str
    path: Path
    files: tuple[str, ...]
    bytes: int
    new_bytes: int
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
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
    """What is to be downloaded. files: the chosen ones, paths checked; cache_dir: the Hub's cache; left_out: see `Download`."""

    model: str
    revision: str
    commit: str
    files: tuple[ModelFile, ...]
    endpoint: str
    credential: Credential | None
    cache_dir: Path
    left_out: tuple[ModelFile, ...] = ()

    @property
    def folder(self) -> Path:
        """Where huggingface_hub keeps this repository; its documentation describes the layout."""
        return repository(self.cache_dir, self.model)


def missing_files(order: DownloadPlan) -> list[ModelFile]:
    """Return the files that are not in the cache yet, or not whole."""
    snapshot = order.folder / "snapshots" / order.commit
    return [file for file in order.files if not is_whole(snapshot / file.path, file.size)]


def check_whole(order: DownloadPlan, away: GatewayError) -> None:
    """Raise why the Hub cannot be asked, where a file that would have to come from it is missing or cut off."""
    if lacking := [file.path for file in missing_files(order)]:
        reason: str | None = f"{', '.join(lacking[:3])} {'is' if len(lacking) == 1 else 'are'} missing or cut off"
    else:
        # Those that another tool downloaded, of which only the disk knows.
        unknown = [file.path for file in order.files if file.digest is None]
        reason = damage(order.folder / "snapshots" / order.commit, unknown)
    if reason is not None:
        raise away.restated(f"{away.message}; what is here of {order.model} is not whole: {reason}", None)


def check_room(order: DownloadPlan) -> None:
    """Raise NotEnoughSpace where the files that are missing would fill the disk."""
    wanted = sum(file.size or 0 for file in missing_files(order))
    free = free_disk(order.cache_dir) if wanted else None
    if free is not None and wanted + DISK_MARGIN_BYTES > free:
        raise NotEnoughSpace(
            f"{order.model} needs {format_bytes(wanted)}, and {order.cache_dir} has {format_bytes(free)} free "
            f"({format_bytes(DISK_MARGIN_BYTES)} are left alone); "
            "make room or name another folder (cache_dir=...)"
        )


class Stop(threading.Event):
    """Set from anywhere, it ends a download: at once for who waits for it, at the next piece for what is still coming."""

    def __init__(self) -> None:
        """Start unset."""
        super().__init__()
        self.told: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def set(self) -> None:
        """Set it, and wake who waits."""
        super().set()
        self.told.put(DownloadStopped("the download was stopped; what has come is kept", target=TARGET))


def fetch(
    order: DownloadPlan, progress: Progress | None = None, *, stop: Stop | None = None, patience: Patience | None = None
) -> Download:
    """Fetch what is missing, and record which commit the revision is. Blocks; Ctrl-C leaves what has come for the next time.

    Raises:
        ConnectFailed, AttemptTimedOut, RateLimited, ServerError: the next call goes on from there.
        ModelNotFound, GatedModel, KeyMissing, AuthenticationFailed, PermissionDenied: as the Hub says.
        BadResponse: a file is not what the Hub says it is.
        OSError: the folder cannot be written to.
    """
    wanted = missing_files(order)
    check_room(order)
    if wanted:
        _Download(order, wanted, progress, stop or Stop(), patience).run()
    if order.commit not in (order.revision, recorded_commit(order.cache_dir, order.model, order.revision)):
        # What the revision was, where all Hugging Face tools look for it.
        try:
            write_atomically(order.folder / "refs" / order.revision, order.commit.encode())
        except OSError as error:
            if wanted:
                raise
            # All of it is there, in a cache that is only read, such as an image's.
            notice_once(f"{order.folder} cannot be written to, so what {order.revision} is stays unrecorded: {error}")
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
    """Threads that fetch files one after another, and what they tell."""

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
        # Threads of our own: a pool's are waited for when the interpreter ends, and Ctrl-C is not to wait for anybody.
        working = self._working = min(PARALLEL_FILES, len(self._left))
        for number in range(working):
            threading.Thread(target=self._work, name=f"hf-gateway-download-{number}", daemon=True).start()
        failure: Exception | None = None
        try:
            while working and failure is None:
                with contextlib.suppress(queue.Empty):
                    # Not for ever: on some systems Ctrl-C is noticed between two waits only.
                    failure = self._stop.told.get(timeout=1.0)
                    working -= failure is None
        finally:
            self._stop.set()
        if failure is not None:
            raise failure

    def _note_progress(self, file: ModelFile, done: int) -> None:
        """Note how many bytes of a file are here. Called for every piece."""
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
        except Exception as error:  # noqa: BLE001 - told to the caller's thread, which raises it
            failure = error
        self._stop.told.put(failure)
        with self._lock:
            self._working -= 1
            last = self._working == 0
        if last:
            # Not before: a thread that reads from a connection which another one closes goes on waiting.
            self._transfer.close()

    def _next(self) -> ModelFile | None:
        with self._lock:
            return self._left.pop(0) if self._left and not self._stop.is_set() else None

    def _download_file(self, file: ModelFile) -> None:
        order = self._order
        blobs = order.folder / "blobs"
        name = file.digest or hashlib.sha256(f"{order.commit}/{file.path}".encode()).hexdigest()
        if not is_whole(blobs / name, file.size):
            # The lock of huggingface_hub, so that two tools do not fetch the same; between processes only.
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
    """Put a file into a snapshot: a relative link to its blob, or the blob itself where there are no links."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    passing = pointer.with_name(f".{pointer.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        passing.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.copyfile(blob, passing)
    try:
        passing.replace(pointer)
    finally:
        passing.unlink(missing_ok=True)
