"""Coalescing: single texts that are to be embedded at the same time share one request, or one forward pass.

A text that arrives while no request is under way is sent at once: alone from a thread, from an event loop with those that arrive
within the same turn of it. One that arrives during a request waits for others: until that request ends, the group is full, or a
short delay is over, whichever is first.
"""

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# Shared by groups of one text, which is nearly all of them: two new futures would cost more than everything else here.
_READY: "Future[None]" = Future()
_READY.set_result(None)
_ABANDONED: "Future[Any]" = Future()


@dataclass(eq=False)
class Group:
    """Texts that are embedded together, each once."""

    key: Hashable
    """What texts of one group have in common."""
    ready: "Future[None]"
    """Done when the group may be sent."""
    outcome: "Future[Any]"
    """The result of the work; None if it was abandoned."""
    texts: dict[str, int] = field(default_factory=dict)
    """The index of each text."""
    prompt: bool = False
    """Whether nothing was under way when it began, so that it waits for nothing but the turn of its event loop."""
    over: bool = False
    """Whether the outcome is set."""

    def add(self, text: str) -> int:
        """Add a text; returns its index."""
        return self.texts.setdefault(text, len(self.texts))


class Coalescer:
    """Groups texts by key. Safe for threads, and across event loops.

    The caller that `join`s a group first leads it: it waits for the group to be ready, for as long as it likes, `close`s it, does
    the work and `resolve`s it; the others wait for the outcome.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        """most: returns the maximum size of a group; called for each text."""
        self._most = most
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Forget all groups: after a fork their leaders are in the parent, and the lock may be held there."""
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, int] = {}
        self._gathering: dict[Hashable, Group] = {}

    def join(self, key: Hashable, text: str, *, turn: bool = False) -> tuple[Group, int, bool]:
        """Join a group, or begin one; returns the group, the text's index in it, and whether the caller leads it.

        Args:
            key: what texts of one group have in common.
            text: the text.
            turn: whether the caller can let others of its event loop join, also where nothing is under way.
        """
        with self._lock:
            group = self._gathering.get(key)
            leads = group is None
            if group is None:
                if turn or self._under_way.get(key):
                    prompt = not self._under_way.get(key)
                    group = self._gathering[key] = Group(key, Future(), Future(), prompt=prompt)
                else:
                    self._under_way[key] = 1
                    group = Group(key, _READY, _ABANDONED)
            place = group.add(text)
            if len(group.texts) >= self._most():
                self._close(group)
            return group, place, leads

    def close(self, group: Group) -> None:
        """Admit no more texts, since the group is about to be sent."""
        with self._lock:
            self._close(group)

    def resolve(self, group: Group, outcome: Any) -> None:
        """Set the outcome of a group. Only the first call has an effect.

        Args:
            group: the group.
            outcome: the result; None if the work was abandoned, so that each caller has to start again.
        """
        with self._lock:
            if group.over:
                return
            group.over = True
            self._close(group)
            left = self._under_way.pop(group.key, 1) - 1
            if left:
                self._under_way[group.key] = left
            elif (waiting := self._gathering.get(group.key)) is not None:
                self._close(waiting)
        if group.outcome is not _ABANDONED:
            group.outcome.set_result(outcome)

    def _close(self, group: Group) -> None:
        """Admit no more texts; from now on the group counts as under way."""
        if self._gathering.get(group.key) is group:
            del self._gathering[group.key]
            self._under_way[group.key] = self._under_way.get(group.key, 0) + 1
            group.ready.set_result(None)


_all: "weakref.WeakSet[Coalescer]" = weakref.WeakSet()


def _reset_all() -> None:
    for coalescer in _all:
        coalescer.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
