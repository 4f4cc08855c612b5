"""Locks and gates that survive a fork: in the child the parent's other threads are gone, and what they held stays locked.

A `fork_lock` is free in the child. A `ForkGate` delays a fork while a library is in the middle of an operation, which the child
could neither finish nor undo.
"""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

_Key = TypeVar("_Key", int, str)

FORK_WAIT_S = 10.0
"""How long a fork waits for operations under way in other threads."""


def fork_lock() -> "threading.RLock":
    """Return a lock for `with`, which is free in a child process unless the thread that forked holds it.

    It is the interpreter's own lock: with methods written in Python an interrupt could arrive between acquiring it and entering
    the block that releases it, and it would stay locked.
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


_locks: "weakref.WeakSet[threading.RLock]" = weakref.WeakSet()


class Keeper(Protocol):
    """An object with open resources, such as connections, that a fork must not carry over."""

    def let_go(self) -> None:
        """Close the resources that are not in use; the object can be used again afterwards."""

    def idle_resource(self) -> str | None:
        """Return the name of a resource that is open and idle, as given to `enter`; None if there is no such resource."""


class ForkGate:
    """Delays forks while a resource of its kind is in use, and uses while a fork is under way.

    A resource that is in use nevertheless, because its use took longer than FORK_WAIT_S or Python did not make the fork, is
    refused in the child: using it could hang or corrupt data.
    """

    def __init__(self, refusal: Callable[[str], Exception]) -> None:
        """refusal: makes the error for the name of a resource that cannot be used in a child."""
        self._refusal = refusal
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
        self._unusable: set[str] = set()
        self._reset()
        _gates.add(self)

    def _reset(self) -> None:
        # Not a `fork_lock`, for the reason given there.
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.forks = 0
        """How many forks are under way."""
        self._threads: dict[int, int] = {}  # thread → uses
        self._names: dict[str, int] = {}  # resource → uses
        self._carried: set[str] | None = None

    def register(self, keeper: Keeper) -> None:
        """Call the object's `let_go` before each fork."""
        with self.changed:
            self._keepers.add(keeper)

    def enter(self, name: str) -> int:
        """Begin a use; returns the argument for `leave`. Raises the refusal."""
        mine = threading.get_ident()
        with self._lock:
            if mine not in self._threads:  # a fork waits for threads that are within already
                self.changed.wait_for(lambda: not self.forks)
            if name in self._unusable:
                raise self._refusal(name)
            self._threads[mine] = self._threads.get(mine, 0) + 1
            self._names[name] = self._names.get(name, 0) + 1
        return mine

    def leave(self, name: str, thread: int) -> None:
        """End a use.

        Args:
            name: the resource.
            thread: what `enter` returned.
        """
        with self._lock:
            _count_down(self._threads, thread)
            _count_down(self._names, name)
            if self.forks:
                self.changed.notify_all()

    def using(self, name: str) -> "AbstractContextManager[None]":
        """Return a context in which a resource is used. Entering it raises the refusal."""
        return _Use(self, name)

    def pause(self, name: str) -> None:
        """Let a waiting fork proceed, at a place in a long use where no operation is under way."""
        if self.forks:
            self.leave(name, threading.get_ident())
            self.enter(name)

    def before_fork(self) -> None:
        """Wait until no resource is in use, and close idle ones."""
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
        """Allow uses again."""
        with self._lock:
            self.forks -= 1
            self.changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Refuse the resources that were carried over, for as long as the child lives: they cannot be closed."""
        if self._carried is None:
            idle = {name for keeper in list(self._keepers) if (name := keeper.idle_resource()) is not None}
            self._carried = {*self._names, *idle}
        self._unusable |= self._carried
        self._reset()


class _Use:
    """A use of a resource: twice in every request, where a generator would take half of the time."""

    __slots__ = ("_gate", "_name", "_thread")

    def __init__(self, gate: ForkGate, name: str) -> None:
        self._gate, self._name = gate, name

    def __enter__(self) -> None:
        self._thread = self._gate.enter(self._name)

    def __exit__(self, *raised: object) -> None:
        self._gate.leave(self._name, self._thread)


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
