"""Single texts that are to be embedded at the same time share one request, or one forward pass.

Whoever comes while nothing is under way goes at once, and alone. Whoever comes while something is waits for company: until
that has landed, the group is full, or a short while has passed, whichever is first.
"""

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# Of whoever goes alone, which is nearly everybody: making two futures would cost more than all else here.
_READY: "Future[None]" = Future()
_READY.set_result(None)
_ABANDONED: "Future[Any]" = Future()


@dataclass(eq=False)
class Group:
    """Texts that go together, each once. ready: it may leave; landed: what came of it, None when it was given up."""

    key: Hashable
    ready: "Future[None]"
    outcome: "Future[Any]"
    texts: dict[str, int] = field(default_factory=dict)
    over: bool = False

    def add(self, text: str) -> int:
        """Add a text; returns its place."""
        return self.texts.setdefault(text, len(self.texts))


class Coalescer:
    """Makes the groups. Safe for threads, and across event loops.

    The one that `enter`s first leads: it waits for the group to be ready, for as long as it likes, `close`s it, does the work
    and `land`s; the others wait for that.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        """most: says how many texts a group has at most, anew for each text."""
        self._most = most
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Forget all groups: after a fork their leaders are in the parent, and so may be whoever holds the lock."""
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, int] = {}
        self._gathering: dict[Hashable, Group] = {}

    def join(self, key: Hashable, text: str) -> tuple[Group, int, bool]:
        """Join a group of this key, or begin one; returns it, the text's place in it, and whether to lead it."""
        with self._lock:
            group = self._gathering.get(key)
            leads = group is None
            if group is None:
                if self._under_way.get(key):
                    group = self._gathering[key] = Group(key, Future(), Future())
                else:
                    self._under_way[key] = 1
                    group = Group(key, _READY, _ABANDONED)
            place = group.add(text)
            if len(group.texts) >= self._most():
                self._close(group)
            return group, place, leads

    def close(self, group: Group) -> None:
        """Let nobody join any more, since it leaves."""
        with self._lock:
            self._close(group)

    def resolve(self, group: Group, outcome: Any) -> None:
        """Tell the group how it went; None: its work was given up, and each has to begin anew. The first word holds."""
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
        """Let nobody join any more; from now on it counts as under way."""
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
