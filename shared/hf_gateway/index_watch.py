"""Holds a chain to the index it writes to: the index lock before its first vector, and each result before the caller gets it."""

import asyncio
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hf_gateway.embedding import EmbedResult
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.fingerprint import Fingerprint, Store
from hf_gateway.guard import Guard
from hf_gateway.link import EmbedLink
from hf_gateway.lock import NAME, IndexLock
from hf_gateway.space import VectorSpace

Observers = list[Callable[[Any], None]]

CACHED = "cache"
"""Who served, as results say of vectors that were kept; they were let in by the fingerprint that lies on this machine."""


def lock_index(
    observers: Observers,
    guard: Guard,
    links: Sequence[EmbedLink],
    path: str | Path,
    *,
    adopt: bool,
    cut: bool,
) -> IndexLock:
    """Do what `Gateway.lock_index` says, for its guard and its links.

    observers: of the chain's results, to which a watch is added, in the place of an older one over the same folder; cut:
    whether the chain cuts texts.
    """
    folder = Path(path).absolute()
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; an index is locked by the folder it lies in")
    held = IndexLock.read(folder)
    if held is None and not adopt and _is_used(folder):
        held = IndexLock.read(folder)  # another process may have locked it and begun to fill it just now
        if held is None:
            raise ConfigError(
                f"there are files in {folder} and no {NAME}, so nobody knows which model made that index; if it was made "
                f"with the one you are using, say so once with lock_index({str(path)!r}, adopt=True); otherwise rebuild it "
                "into a new folder"
            )
    watch = _Watch(guard, links, folder, cut=cut)
    watch.lock = watch.locked(held, adopt=adopt)
    older = (place for place, other in enumerate(observers) if isinstance(other, _Watch) and other.folder == folder)
    if (place := next(older, None)) is None:
        observers.append(watch)
    else:
        observers[place] = watch
    return watch.lock


class _Watch:
    """Holds a chain to an index from its lock on: looks at each result before the caller gets it.

    At lock time nothing may be measured yet, and in a chain of several spaces nothing decided; both are known once a target
    has answered.
    """

    def __init__(self, guard: Guard, links: Sequence[EmbedLink], folder: Path, *, cut: bool) -> None:
        self.folder = folder
        self.lock = IndexLock(folder, None)
        self._guard = guard
        self._links = links
        self._cut = cut
        self._one_at_a_time = threading.Lock()
        self._compared: set[str] = set()
        self._fault: GatewayError | None = None

    def locked(self, held: IndexLock | None, *, adopt: bool) -> IndexLock:
        """Check the index's lock, or make one, as far as the chain's space is known before its first vector."""
        spaces = [self._guard.space_of(link) for link in self._links]
        undecided = self._guard.pinned is None and _differ(spaces)
        if self._guard.pinned is not None:
            spaces = [self._guard.pinned]
        elif undecided and held is not None and held.space is not None:
            spaces = [space for space in spaces if not held.space.differences(space)] or spaces[:1]
            if _differ(spaces):
                return held  # it says too little to choose between them: the first vector decides, and is held to it
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
            self._compared.add(CACHED)
        lock = IndexLock(self.folder, space, fingerprint=fingerprint).write()
        if undecided and lock.space is not None:
            self._guard.pin(lock.space)
        return lock

    def __call__(self, result: EmbedResult) -> None:
        """Check what is known of a result. Raises SpaceMismatch, with which its vectors are lost."""
        if not result.served_by:
            return
        if self._fault is not None:
            raise self._fault
        space = dataclasses.replace(result.space, dimension=result.vectors.dim)
        with self._one_at_a_time:
            if self.lock.space is None:
                # At once, though it writes a file: no vector gets out before the index is locked to its space.
                self.lock = IndexLock(self.folder, space).write()
            self.lock.check(space)
            fresh = [
                link for link in self._links if link.label in result.served_by and link.label not in self._compared
            ]
            measured = [found for link in fresh if (found := self._measured(link)) is not None]
            if CACHED in result.served_by and CACHED not in self._compared:
                # Measured by another process since the lock was taken, and by no target of this chain yet.
                measured += filter(None, [Store().load(result.space)])
            for fingerprint in measured:
                self.lock.check(space, fingerprint, cut=self._cut)
            self._compared.update(link.label for link in fresh)
            if measured:
                self._compared.add(CACHED)
            if fresh:
                _off_the_loop(lambda: self._add(space, measured))
        if self._fault is not None:
            raise self._fault

    def _measured(self, link: EmbedLink) -> Fingerprint | None:
        """Return what the guard measured of a target, or took for the same; None where it did not look."""
        rows = self._guard.standing(link).rows
        if rows is None:
            return None
        authority: Literal["files", "server"] = "files" if link.authoritative else "server"
        return Fingerprint(self._guard.space_of(link), authority, link.label, rows)

    def _add(self, space: VectorSpace, measured: Sequence[Fingerprint]) -> None:
        """Write down what is known now, and hold the chain to what others may have written in the meantime."""
        try:
            self.lock = IndexLock(self.folder, space).write()
            for found in measured:
                kept = Store().load(found.space) or found
                self.lock = IndexLock(self.folder, space, fingerprint=kept).write()
        except GatewayError as error:
            self._fault = error


def _differ(spaces: Sequence[VectorSpace]) -> bool:
    return any(one.differences(other) for one in spaces for other in spaces)


def _off_the_loop(work: Callable[[], None]) -> None:
    """Do it now, or, where an event loop would have to wait for it, in another thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work()
    else:
        loop.run_in_executor(None, work)


def _is_used(folder: Path) -> bool:
    """Whether there is anything in the folder but a lock that is being written."""
    try:
        return any(not entry.name.startswith(f".{NAME}.") for entry in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"the index in {folder} cannot be opened: {error}") from error
