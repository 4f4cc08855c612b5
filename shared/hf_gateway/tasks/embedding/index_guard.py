"""Holds a chain to the index it writes to: checks the lock before the first vector, and each result before it is returned."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from hf_gateway.chain.effects import Call, Steps
from hf_gateway.errors import ConfigError
from hf_gateway.runtime.effects import Compute
from hf_gateway.spaces.fingerprint import Fingerprint, Store
from hf_gateway.spaces.guard import Guard
from hf_gateway.spaces.index_lock import NAME, IndexLock, is_used
from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate
from hf_gateway.values.embedding import EmbedResult
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.vector_space import VectorSpace

CACHED = "cache"
"""Name in `served_by` for cached vectors; they were accepted by the fingerprint on this machine."""
REREAD_AFTER_S = 1.0
"""How long the lock's file is assumed to be unchanged: it changes under a chain only when a user replaces it."""


def lock_index(
    held_to: "list[IndexGuard]",
    guard: Guard,
    candidates: Sequence[EmbeddingCandidate],
    path: str | Path,
    *,
    adopt: bool,
    cut: bool,
    now: Callable[[], float],
) -> IndexLock:
    """Implement `Gateway.lock_index`.

    Args:
        held_to: the chain's index guards, to which one is added, replacing an older one for the same folder.
        guard: the chain's.
        candidates: the chain's.
        path: the index's folder.
        adopt: whether a folder with files and without a lock is accepted.
        cut: whether the chain truncates texts.
        now: the chain's clock.
    """
    folder = Path(path).absolute()
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; an index is locked by the folder it lies in")
    known = IndexLock.read(folder)
    if known is None and not adopt and is_used(folder):
        known = IndexLock.read(folder)  # another process may have locked it and begun to fill it just now
        if known is None:
            raise ConfigError(
                f"there are files in {folder} and no {NAME}, so it is unknown which model made that index; if it was made "
                "with the one you are using, open it once with adopt=True: load_faiss, open_chroma, open_lancedb and load_index "
                f"then compare some of its texts, and lock_index({str(path)!r}, adopt=True) takes your word, unless it is given "
                "texts and vectors as `stored`; otherwise rebuild it into a new folder. A new index is locked before it is "
                "saved: lock_index first, then save_local or persist, or save_faiss of langchain_hf_gateway and persist of "
                "llamaindex_hf_gateway, which do both"
            )
    index = IndexGuard(guard, candidates, IndexLock(folder, None), cut=cut, now=now)
    lock = index.open(known, adopt=adopt)
    older = (place for place, other in enumerate(held_to) if other.folder == folder)
    if (place := next(older, None)) is None:
        held_to.append(index)
    else:
        held_to[place] = index
    return lock


class IndexGuard:
    """Holds a chain to one index: each result is compared with the index's lock before it is returned.

    At lock time the targets may not be measured yet, and a chain of several spaces has not decided; both are known once a target
    has answered. The lock is read again while the chain lives, since a user may replace it.
    """

    def __init__(
        self,
        guard: Guard,
        candidates: Sequence[EmbeddingCandidate],
        lock: IndexLock,
        *,
        cut: bool,
        now: Callable[[], float],
    ) -> None:
        """lock: as known to this chain or to the one that it is a copy of; no file is read yet."""
        self.folder = lock.path
        self.lock = lock
        self._guard = guard
        self._candidates = candidates
        self._cut = cut
        self._now = now
        self._one_at_a_time = fork_lock()
        self._compared: set[str] = set()
        self._was_there = False
        self._stamp: tuple[int, int, int] | None = None
        self._read_at = float("-inf")

    def open(self, held: IndexLock | None, *, adopt: bool) -> IndexLock:
        """Check the index's lock, or make one, as far as the chain's space is known; returns it.

        Args:
            held: the lock in the folder, if there is one.
            adopt: whether a folder with files and without a lock is accepted.
        """
        self.lock = self._open_lock(held, adopt=adopt)
        self._was_there = self.lock.space is not None
        return self.lock

    def _open_lock(self, held: IndexLock | None, *, adopt: bool) -> IndexLock:
        spaces = [self._guard.space_of(candidate) for candidate in self._candidates]
        undecided = self._guard.pinned is None and _differ(spaces)
        if self._guard.pinned is not None:
            spaces = [self._guard.pinned]
        elif undecided and held is not None and held.space is not None:
            spaces = [space for space in spaces if not held.space.differences(space)] or spaces[:1]
            if _differ(spaces):
                return held  # too little is known to choose between them: the first vector decides, and is compared
        elif undecided:
            if adopt:
                raise ConfigError(
                    f"the index in {self.folder} cannot be adopted yet: the targets of this chain are of several spaces, and "
                    "which of them answers is decided by the first vector; embed something first, or name only the target "
                    "that made it"
                )
            return IndexLock(self.folder, None)
        space = functools.reduce(VectorSpace.merged, spaces)
        fingerprint = next(filter(None, map(Store().load, dict.fromkeys(spaces))), None)
        if held is not None:
            held.check(space, fingerprint, cut=self._cut)
        if fingerprint is not None:
            self._compared.add(_cache_source(fingerprint.space))
        lock = IndexLock(self.folder, space, fingerprint=fingerprint).write(cut=self._cut)
        if undecided and lock.space is not None:
            self._guard.pin(lock.space)
        return lock

    def verdict(self, result: EmbedResult) -> Steps:
        """Compare a result with the index before it is returned. Raises SpaceMismatch or ConfigError; the result is then lost.

        Files are read and written outside of the event loop; the result waits for that.
        """
        if not result.served_by:
            return
        space = self._declared_space(dataclasses.replace(result.space, dimension=result.vectors.dim))
        if self._is_pending(result.space, result.served_by):
            yield Call(
                Compute(lambda: self._compare_with_folder(space, result.space, result.served_by)), 0.0, str(self.folder)
            )
        self.lock.check(space)

    def check_cached(self, space: VectorSpace) -> None:
        """Compare a framework's cached vectors of a space with the index, before they are looked up. Raises like `verdict`."""
        if self._is_pending(space, (CACHED,)):
            self._compare_with_folder(self._declared_space(space), space, (CACHED,))
        self.lock.check(self._declared_space(space))

    def _is_pending(self, measured_as: VectorSpace, served_by: Sequence[str]) -> bool:
        """Return whether files must be read for a result: for a new index or target, or if they were read some time ago."""
        return (
            self.lock.space is None
            or not self._compared.issuperset(_sources(measured_as, served_by))
            or self._now() >= self._read_at + REREAD_AFTER_S
        )

    def _compare_with_folder(self, space: VectorSpace, measured_as: VectorSpace, served_by: Sequence[str]) -> None:
        """Compare with the files in the folder, and write what is new. Raises GatewayError.

        Args:
            space: what is known of the vectors.
            measured_as: the space under which their fingerprint is stored on this machine.
            served_by: the targets that made them.
        """
        with self._one_at_a_time:
            self._reread()
            self.lock.check(space)
            fresh = [
                candidate
                for candidate in self._candidates
                if candidate.label in served_by and candidate.label not in self._compared
            ]
            measured = [found for candidate in fresh if (found := self._measured_fingerprint(candidate)) is not None]
            if CACHED in served_by and _cache_source(measured_as) not in self._compared:
                # Measured by another process since the lock was made, and by no target of this chain yet.
                measured += filter(None, [Store().load(measured_as)])
            for fingerprint in measured:
                self.lock.check(space, fingerprint, cut=self._cut)
            if (fresh or measured or self.lock.space is None) and self._may_write():
                lock = IndexLock(self.folder, space).write()
                for found in measured:
                    kept = Store().load(found.space) or found
                    lock = IndexLock(self.folder, space, fingerprint=kept).write(cut=self._cut)
                self.lock, self._was_there = lock, True
            self._compared.update(_sources(measured_as, served_by))

    def _reread(self) -> None:
        """Hold the chain to the lock in the folder: a user may have replaced or deleted it meanwhile."""
        stamp = self._file_stamp()
        if stamp is None and self.lock.space is not None:
            self._restore()
        elif stamp != self._stamp and (held := IndexLock.read(self.folder)) is not None:
            if self.lock.space is not None:
                held.check(self.lock.space, self.lock.fingerprint, cut=self._cut)
            if held != self.lock:
                self._compared.clear()
            self.lock, self._was_there = held, True
        self._stamp, self._read_at = stamp, self._now()

    def _restore(self) -> None:
        """Write a lock again that was deleted with its index. Raises ConfigError if there are files of unknown origin."""
        if is_used(self.folder):
            raise ConfigError(
                f"{self.folder / NAME} is gone while this process uses the index, so it is unknown what made the files that are "
                f"there; if they were made with this chain, call lock_index({str(self.folder)!r}, adopt=True), otherwise rebuild "
                "the index into a new folder"
            )
        if self._may_write():
            self.lock = self.lock.write()

    def _may_write(self) -> bool:
        """Return False for a copy on a machine without the index's place: it is held to the lock that came with it.

        If only the folder is gone, so is the index, and another chain may make a new one there.
        """
        return self.lock.space is None or self._was_there or self.folder.parent.exists()

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            about = (self.folder / NAME).stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size, about.st_ino

    def _declared_space(self, space: VectorSpace) -> VectorSpace:
        """Return what is known of vectors of a space: unless they are measured, also that no prompt was added."""
        if self._guard.checks or not all(candidate.mixes_roles for candidate in self._candidates):
            return space
        return dataclasses.replace(
            space, query_prompt=space.query_prompt or "", document_prompt=space.document_prompt or ""
        )

    def _measured_fingerprint(self, candidate: EmbeddingCandidate) -> Fingerprint | None:
        """Return the fingerprint that the guard measured or accepted for a target; None if it was not measured."""
        rows = self._guard.space_check(candidate).rows
        if rows is None:
            return None
        authority: Literal["files", "server"] = "files" if candidate.authoritative else "server"
        return Fingerprint(self._guard.space_of(candidate), authority, candidate.label, rows)


def _cache_source(space: VectorSpace) -> str:
    """Return the name of cached vectors of a space: under another name of the same model another measurement accepted them."""
    return f"{CACHED} {space.id}"


def _sources(space: VectorSpace, served_by: Sequence[str]) -> list[str]:
    return [_cache_source(space) if name == CACHED else name for name in served_by]


def _differ(spaces: Sequence[VectorSpace]) -> bool:
    return any(one.differences(other) for one in spaces for other in spaces)
