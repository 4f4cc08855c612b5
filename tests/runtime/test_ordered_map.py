"""Work that is under way in order: how it ends when the caller stops."""

from concurrent.futures import Future
from typing import Any

from hf_gateway.runtime.ordered_map import map_ordered_blocking


class Recorded(Future[Any]):
    """A future that says when it is cancelled."""

    def __init__(self, item: int, cancelled: list[int]) -> None:
        super().__init__()
        self._item, self._cancelled = item, cancelled

    def cancel(self) -> bool:
        self._cancelled.append(self._item)
        return super().cancel()


def test_what_was_started_last_is_cancelled_first() -> None:
    """One under way gives its place to one that waits, which must not begin any more."""
    cancelled: list[int] = []
    started: list[Recorded] = []

    def start(item: int) -> Recorded:
        started.append(Recorded(item, cancelled))
        if item == 3:
            started[0].set_result("first")
        return started[-1]

    results = map_ordered_blocking(iter(range(10)), start, 4)
    assert next(results) == "first"
    results.close()
    assert cancelled == [3, 2, 1]
