"""Calls that are begun and not waited for: from threads, or as tasks of an event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Literal, Self

from hf_gateway import Gateway
from hf_gateway.values.embedding import EmbedResult, Role

Form = Literal["threads", "tasks"]
FORMS: tuple[Form, ...] = ("threads", "tasks")
PATIENCE = 30.0
"""Seconds after which a test that would hang fails."""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Make it a task; cancelling the future cancels the task."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def settle(self) -> None:
        """Return once every task that was begun before has come to where it waits."""
        asyncio.run_coroutine_threadsafe(_a_few_turns(), self.loop).result(PATIENCE)

    def stop(self) -> None:
        """Have it stand still, its tasks with it."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)

    def close(self) -> None:
        """End it as `asyncio.run` does: what is still under way is cancelled."""
        self.stop()
        self.loop.run_until_complete(_end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


async def _end() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Callers:
    """Calls one gateway in a form."""

    def __init__(self, form: Form, gateway: Gateway) -> None:
        """Have threads and a loop ready."""
        self.gateway = gateway
        self.loop = Loop()
        self._threads = ThreadPoolExecutor(64)
        self._form = form
        self._begun: list[Future[Any]] = []

    def __enter__(self) -> Self:
        """Read what lies in files once, so that later calls go straight on."""
        self.loop.begin(self.gateway._aprepare()).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for whatever is under way, and close the gateway."""
        if kind is None:
            wait(self._begun, PATIENCE)
        if not self.loop.loop.is_closed():
            self.loop.begin(self.gateway.aclose()).result(PATIENCE)
            self.loop.close()
        self.gateway.close()
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def run(self, work: Callable[[], Any]) -> "Future[Any]":
        """Begin anything else, in a thread."""
        self._begun.append(self._threads.submit(work))
        return self._begun[-1]

    def begin(self, *texts: str, role: Role = "document", lists: bool = False) -> "Future[EmbedResult]":
        """Begin a call."""
        if self._form == "threads":
            begun = self._threads.submit(self.gateway.embed, texts, role=role, lists=lists)
        else:
            begun = self.loop.begin(self.gateway.aembed(texts, role=role, lists=lists))
        self._begun.append(begun)
        return begun
