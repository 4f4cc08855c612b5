"""What a fork does to threads: those of the parent are not there in the child, and what they held stays as it was for ever.

A `fork_lock` is free in the child. A `ForkGate` has a fork wait while a library is in the middle of something, since what it
was in the middle of can neither be finished in the child nor be undone.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

_Key = TypeVar("_Key", int, str)

FORK_WAIT_S = 10.0
"""Seconds for which a fork waits for what other threads are in the middle of."""


def fork_lock() -> "threading.RLock":
    """Return a lock for `with`, which is free in a child process unless the thread that forked holds it.

    It is the interpreter's own: with methods of Python an interrupt could come between taking it and the block that lets it go,
    and it would stay taken for ever.
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


_locks: "weakref.WeakSet[threading.RLock]" = weakref.WeakSet()


class Keeper(Protocol):
    """Something that keeps things between two uses which a fork must not carry over, such as open connections."""

    def let_go(self) -> None:
        """Close what is not in use; it can be used again afterwards."""

    def kept(self) -> str | None:
        """Name what is kept and not in use, in the words given to `enter`; None for nothing."""


class ForkGate:
    """Holds forks until nothing of its kind is in use, and uses while a fork is under way.

    What was in use nevertheless, because it took longer than FORK_WAIT_S or the process was not forked by Python's means, is
    refused in the child: it would hang there, or worse.
    """

    def __init__(self, refusal: Callable[[str], Exception]) -> None:
        """refusal: makes the error for the name of what cannot be used in a child."""
        self._refusal = refusal
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
        self._unusable: set[str] = set()
        self._begin_anew()
        _gates.add(self)

    def _begin_anew(self) -> None:
        # Taken by itself, for the reason given at `fork_lock`.
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.forks = 0
        """Forks under way."""
        self._threads: dict[int, int] = {}  # thread → uses
        self._names: dict[str, int] = {}  # what is used → uses
        self._carried: set[str] | None = None

    def register(self, keeper: Keeper) -> None:
        """Have it let go before a fork."""
        with self.changed:
            self._keepers.add(keeper)

    def enter(self, name: str) -> int:
        """Begin a use; returns what `leave` wants. Raises the refusal."""
        mine = threading.get_ident()
        with self._lock:
            if mine not in self._threads:  # the fork waits for who is within already
                self.changed.wait_for(lambda: not self.forks)
            if name in self._unusable:
                raise self._refusal(name)
            self._threads[mine] = self._threads.get(mine, 0) + 1
            self._names[name] = self._names.get(name, 0) + 1
        return mine

    def leave(self, name: str, thread: int) -> None:
        """End a use; thread: what `enter` returned."""
        with self._lock:
            _count_down(self._threads, thread)
            _count_down(self._names, name)
            self.changed.notify_all()

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Use something. Raises the refusal."""
        thread = self.enter(name)
        try:
            yield
        finally:
            self.leave(name, thread)

    def pause(self, name: str) -> None:
        """Within a long use, at a place where nothing is in the middle of anything: let a fork through that waits."""
        if self.forks:
            self.leave(name, threading.get_ident())
            self.enter(name)

    def before_fork(self) -> None:
        """Wait until nothing is in use, and have the keepers let go."""
        mine = threading.get_ident()
        with self._lock:
            self.forks += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: not (self._threads.keys() - {mine}), FORK_WAIT_S)
            self._carried = set(self._names)
            keepers = list(self._keepers)
        for keeper in keepers:
            keeper.let_go()

    def after_fork_in_parent(self) -> None:
        """Let the uses through again."""
        with self._lock:
            self.forks -= 1
            self.changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Remember what is unusable here, for good: what was carried over cannot be got rid of."""
        if self._carried is None:
            kept = {name for keeper in list(self._keepers) if (name := keeper.kept()) is not None}
            self._carried = {*self._names, *kept}
        self._unusable |= self._carried
        self._begin_anew()


_gates: "weakref.WeakSet[ForkGate]" = weakref.WeakSet()


def _count_down(counts: "dict[_Key, int]", key: _Key) -> None:
    left = counts.pop(key, 0) - 1
    if left > 0:
        counts[key] = left


def _before() -> None:
    for gate in list(_gates):
        gate.before_fork()


def _in_parent() -> None:
    for gate in list(_gates):
        gate.after_fork_in_parent()


def _in_child() -> None:
    for gate in list(_gates):
        gate.after_fork_in_child()
    for lock in list(_locks):
        if not lock._is_owned():  # type: ignore[attr-defined]
            lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
