"""Hands the shards of a job to the workers of an engine; a shard whose worker dies goes to another one."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_gateway.corpus.engine import Engine, Worker, WorkerDied, task_of
from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.plan import Plan, Shard
from hf_gateway.corpus.shard_embedding import ShardResult
from hf_gateway.corpus.worker_errors import in_part, unpack
from hf_gateway.errors import GatewayError, visible
from hf_gateway.values.logs import logger

MAX_TRIES = 5
"""Of a shard whose workers die, and of a worker that dies before it can take one."""
WAIT_NOTICE_S = 60.0
"""Seconds without any worker after which that is said."""
_READY_CHECK_S = 0.5

log = logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A shard that is still to be embedded."""

    shard: Shard
    deaths: int = 0
    """How many workers died over it."""


class _Exchange:
    """What the threads of a job share."""

    def __init__(self, files: Sequence[InputFile], shards: Sequence[Shard]) -> None:
        self.files = files
        self.waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        """None ends the thread that takes it."""
        for shard in shards:
            self.waiting.put(_Waiting(shard))
        self.results: queue.SimpleQueue[ShardResult | Exception] = queue.SimpleQueue()
        self.begun = time.monotonic()
        self.any_ready = False

    def note_waiting(self) -> None:
        """Log once that no worker is ready for long."""
        if not self.any_ready and time.monotonic() - self.begun > WAIT_NOTICE_S:
            self.any_ready = True
            log.warning(
                "no worker has started within %.0f s: the cluster may have no free CPU or GPU of the size that a worker "
                "asks for; the job waits",
                WAIT_NOTICE_S,
            )


def embed_shards(engine: Engine, plan: Plan, shards: Sequence[Shard], workers: int) -> Iterator[ShardResult]:
    """Yield the result of each shard when its part is written, in any order.

    Args:
        engine: starts the workers.
        plan: whose files the shards are of.
        shards: what is still to be embedded.
        workers: at most.

    Raises:
        GatewayError: a shard failed, with the class of the worker's error, or its workers died.
        OSError: a file cannot be read or written.
    """
    exchange = _Exchange(plan.files, shards)
    threads = [_WorkerThread(engine, exchange) for _ in range(min(workers, len(shards)))]
    try:
        for each in threads:
            each.thread.start()
        for _ in shards:
            result = exchange.results.get()
            if isinstance(result, Exception):
                raise result
            yield result
        for each in threads:
            each.end()
    finally:
        for each in threads:
            each.stop()
        for each in threads:
            each.join()


class _WorkerThread:
    """A thread that hands shards to a worker, and replaces the worker when it dies."""

    def __init__(self, engine: Engine, exchange: _Exchange) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._engine, self._exchange = engine, exchange
        self._lock, self._stopped, self._ending = threading.Lock(), False, False
        self._worker: Worker | None = None

    def end(self) -> None:
        """Let the thread's worker end by itself: no shard is left."""
        self._ending = True
        self._exchange.waiting.put(None)

    def stop(self) -> None:
        """End the worker at once, unless it is ending by itself, and then the thread."""
        if not self._ending:
            with self._lock:
                self._stopped = True
                if self._worker is not None:
                    self._worker.kill()
            self._exchange.waiting.put(None)

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self.thread.ident is not None:
            self.thread.join()

    def _run(self) -> None:
        try:
            while (worker := self._ready_worker()) is not None:
                waiting = self._exchange.waiting.get()
                if waiting is None or self._stopped:
                    break
                self._hand_over(worker, waiting)
            if self._worker is not None and not self._stopped:
                self._worker.finish()
        except Exception as error:  # noqa: BLE001 - raised again where the results are taken
            self._exchange.results.put(error)
        finally:
            self._drop()

    def _ready_worker(self) -> Worker | None:
        """Return a worker that can take a shard; None if the job ends before there is one."""
        why = ""
        for _ in range(MAX_TRIES):
            with self._lock:
                if self._stopped:
                    return None
                worker = self._worker = self._worker or self._engine.start_worker()
            try:
                while not worker.is_ready(_READY_CHECK_S):
                    self._exchange.note_waiting()
                    if self._stopped or self._ending:
                        return None
                self._exchange.any_ready = True
                return worker
            except WorkerDied as death:
                why = str(death)
                self._drop()
        raise GatewayError(f"{MAX_TRIES} workers one after the other died before they could take a part: {why}")

    def _hand_over(self, worker: Worker, waiting: _Waiting) -> None:
        shard = waiting.shard
        file = self._exchange.files[shard.file]
        try:
            answer = worker.embed(task_of(file, shard))
        except WorkerDied:
            self._drop()
            waiting.deaths += 1
            if waiting.deaths >= MAX_TRIES:
                raise GatewayError(
                    f"{shard.name}: its worker died {MAX_TRIES} times, over rows from {shard.start} of {visible(file.path)}"
                ) from None
            self._exchange.waiting.put(waiting)
            return
        if "error" in answer:
            raise in_part(unpack(answer["error"]), shard.name)
        self._exchange.results.put(ShardResult(**answer))

    def _drop(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(WorkerDied):
                worker.kill()
