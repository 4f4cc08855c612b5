"""Serves embedding calls: looks up the cache, embeds each text once, in batches of which several are under way at once.

A call of one text may share its request with others that arrive at the same time (`runtime/coalescing.py`).
"""

import asyncio
import contextlib
import copy
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from dataclasses import replace
from typing import Any

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Await, Steps, Turn
from hf_gateway.chain.fallback import Chain, Split
from hf_gateway.errors import ContextOverflow, GatewayError, InvalidRequest
from hf_gateway.observing.tags import tags
from hf_gateway.runtime.background_loop import BackgroundLoop, background_loop
from hf_gateway.runtime.coalescing import Coalescer, Group
from hf_gateway.runtime.concurrency_limit import LoopLimiters
from hf_gateway.runtime.driver import Driver
from hf_gateway.runtime.ordered_map import map_ordered, map_ordered_blocking
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.storage.vector_stores import chunks
from hf_gateway.tasks.blamed_text import attempt_to_name, name_input
from hf_gateway.tasks.embedding.batching import Batch, BatchBuilder, abatched, batched
from hf_gateway.tasks.embedding.cache import CachedSpace, CacheLookup
from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate
from hf_gateway.tasks.embedding.run import Add, EmbeddingRun, Job, ServedBatch, usage_of
from hf_gateway.tasks.embedding.stream_place import placed_in_stream
from hf_gateway.values.embedding import EmbedRequest, EmbedResult, Role
from hf_gateway.values.event_loops import running_loop
from hf_gateway.values.usage import Usage

MAX_SHARED_TEXTS = 256
"""Maximum texts that share one request, if the server reports no limit."""
LOCAL_GATHERING_S = 1.0
"""Seconds for which a text waits at most while a model in this process computes, and no longer than the time for an attempt: the
model does one pass at a time, so that a text that left sooner would queue for a pass of its own.
"""
SHARED_WAIT_FACTOR = 2.0
"""Give up waiting for a shared request after this multiple of `timeout`."""
MAX_STREAM_TEXTS = 512
"""Texts that a stream passes to a model in this process at once: enough to sort by length."""


Serve = Callable[[EmbedRequest, Job], EmbedResult]
AsyncServe = Callable[[EmbedRequest, Job], Awaitable[EmbedResult]]


class EmbeddingService:
    """Serves the calls of one gateway."""

    def __init__(
        self,
        chain: Chain,
        driver: Driver,
        candidates: Sequence[EmbeddingCandidate],
        limiters: LoopLimiters,
        settings: EmbedSettings,
        cache: CachedSpace | None,
        prepare: tuple[Callable[[], None], Callable[[], Coroutine[Any, Any, None]]],
    ) -> None:
        """prepare: reads files before anything is sent, blocking and async."""
        self._chain = chain
        self._driver = driver
        self._first = candidates[0]
        self._settings = settings
        self._cache = cache
        self._prepare, self._aprepare = prepare
        self._coalescer = Coalescer(self._max_shared_texts) if settings.coalesce else None
        self._limiters = limiters
        self._used_background_loop = False

    @property
    def remote(self) -> bool:
        """Whether the first target is a server, which can serve several requests at once."""
        return self._first.server.url is not None

    def serve(
        self, request: EmbedRequest, attempt_log: AttemptLog | None = None, job: Job | None = None
    ) -> EmbeddingRun:
        """Serve a call, blocking; a call of a job shares no requests.

        Args:
            request: what to embed.
            attempt_log: receives the attempts.
            job: the job that the call belongs to.

        Raises:
            GatewayError: no target could serve it.
        """
        run = EmbeddingRun(request, CacheLookup(request, self._cache), job or Job(), attempt_log or AttemptLog())
        missing = run.lookup.missing()
        if missing:
            self._prepare()
            # On a loop's own thread a blocking call must not wait for others: their leader may be a task of that loop.
            if len(missing) == 1 and self._coalescer is not None and job is None and running_loop() is None:
                self._add_batch(
                    run,
                    _with_texts(run, missing),
                    self._driver.run(self._serve_single(self._coalescer, run, missing[0])),
                )
            else:
                self._serve_sequentially(run, self._batches(run, missing))
        run.seconds = time.perf_counter() - run.started
        return run

    async def aserve(
        self, request: EmbedRequest, attempt_log: AttemptLog | None = None, job: Job | None = None
    ) -> EmbeddingRun:
        """Serve a call without blocking the event loop; a call of a job shares no requests.

        Args:
            request: what to embed.
            attempt_log: receives the attempts.
            job: the job that the call belongs to.

        Raises:
            GatewayError: no target could serve it.
        """
        if self._cache is not None and request.texts:
            lookup = await asyncio.to_thread(CacheLookup, request, self._cache)
        else:
            lookup = CacheLookup(request)
        run = EmbeddingRun(request, lookup, job or Job(), attempt_log or AttemptLog())
        missing = lookup.missing()
        if missing:
            await self._aprepare()
            if len(missing) == 1 and self._coalescer is not None and job is None:
                served = await self._driver.arun(self._serve_single(self._coalescer, run, missing[0]))
                await self._acache_batch(run, missing, served)
                run.add(served)
            else:
                await self._serve_concurrently(run, self._batches(run, missing), run.attempt_log, run.add)
        run.seconds = time.perf_counter() - run.started
        return run

    def stream(
        self, texts: Iterable[str], role: Role, serve: Serve, aserve: AsyncServe
    ) -> Generator[EmbedResult, None, None]:
        """Serve any number of texts, batch by batch, in order; keeps only the batches under way in memory.

        Args:
            texts: the texts to embed.
            role: of all of them.
            serve: serves one batch, blocking.
            aserve: serves one batch, async.
        """
        job = Job()
        self._prepare()
        with contextlib.closing(batched(texts, self._batch_builder(role))) as batches:
            if (
                background_loop.is_current_thread()
            ):  # an observer's; it cannot wait for what only its own thread could do
                for batch in batches:
                    with placed_in_stream(batch):
                        result = serve(batch[1], job)
                    yield result
                return
            yield from map_ordered_blocking(
                batches,
                lambda batch: self._background_loop().submit(_serve_in_stream(batch, job, aserve)),
                self._max_pending,
            )

    async def astream(
        self, texts: Iterable[str] | AsyncIterable[str], role: Role, aserve: AsyncServe
    ) -> AsyncGenerator[EmbedResult, None]:
        """Like `stream`, without blocking the event loop.

        Args:
            texts: the texts to embed.
            role: of all of them.
            aserve: serves one batch.
        """
        job = Job()
        await self._aprepare()
        outcomes = map_ordered(
            abatched(texts, self._batch_builder(role)),
            lambda batch: _serve_in_stream(batch, job, aserve),
            self._max_pending,
        )
        async with contextlib.aclosing(outcomes):
            async for result in outcomes:
                yield result

    def _batch_builder(self, role: Role) -> BatchBuilder:
        return BatchBuilder(role, self._settings.truncate, self._max_stream_texts)

    def _max_shared_texts(self) -> int:
        return self._first.batch_texts or MAX_SHARED_TEXTS

    def _max_stream_texts(self) -> int:
        return self._first.batch_texts or MAX_STREAM_TEXTS

    @property
    def _gathering_s(self) -> float:
        """Seconds for which a text waits for others while a request is under way, at most."""
        settings = self._settings
        return settings.coalesce if self.remote else max(settings.coalesce, min(LOCAL_GATHERING_S, settings.timeout))

    @property
    def _max_pending(self) -> int:
        """Maximum batches under way or waiting."""
        return 2 * self._settings.max_concurrency if self.remote else 2

    def take_background_use(self) -> bool:
        """Return whether connections were opened on the background loop since the last call."""
        used, self._used_background_loop = self._used_background_loop, False
        return used

    def _background_loop(self) -> BackgroundLoop:
        self._used_background_loop = True
        return background_loop

    def _batches(self, run: EmbeddingRun, missing: Sequence[str]) -> Sequence[EmbedRequest]:
        """Divide missing texts into the batches that are cached at once; the limits of servers are applied later."""
        if self._cache is None or len(missing) <= CacheLookup.store_batch_texts():
            return [_with_texts(run, missing)]
        return [_with_texts(run, part) for part in chunks(missing, CacheLookup.store_batch_texts())]

    def _serve_sequentially(self, run: EmbeddingRun, batches: Sequence[EmbedRequest]) -> None:
        """Serve batch after batch, blocking; several at once as soon as a server wants one divided."""
        for place, batch in enumerate(batches):
            outcome = self._driver.run(self._attempt(run, batch, run.attempt_log))
            if not isinstance(outcome, Split):
                self._add_batch(run, batch, outcome)
                continue
            run.job.preferred = outcome.candidate
            missing = [*outcome.parts, *batches[place + 1 :]]
            if (
                outcome.candidate.server.url is None
                or self._settings.max_concurrency == 1
                or background_loop.is_current_thread()
            ):
                self._serve_sequentially(run, missing)
            else:
                self._background_loop().run(self._serve_concurrently(run, missing, run.attempt_log, run.add))
            return

    async def _serve_concurrently(
        self, run: EmbeddingRun, batches: Sequence[EmbedRequest], attempt_log: AttemptLog, add: Add
    ) -> None:
        """Serve several batches at once, as many as the limiter allows.

        Args:
            run: the call.
            batches: parts of it.
            attempt_log: receives the attempts, in the order of the batches.
            add: called with each answer, in the order of the batches, while later ones are under way.
        """
        try:
            if len(batches) == 1:
                attempt_log.extend((await self._serve_batch(run, batches[0], add)).attempts)
                return

            async def serve(batch: EmbedRequest) -> tuple[list[ServedBatch], AttemptLog]:
                served: list[ServedBatch] = []
                return served, await self._serve_batch(run, batch, served.append)

            work = map_ordered(_as_async(batches), serve, self._max_pending)
            async with contextlib.aclosing(work):
                async for outcome, tried in work:
                    for served in outcome:
                        add(served)
                    attempt_log.extend(tried.attempts)
        except GatewayError as failure:
            attempt_log.extend(failure.attempts)
            failure.attempts = tuple(attempt_log.attempts)
            raise

    async def _serve_batch(self, run: EmbeddingRun, batch: EmbedRequest, add: Add) -> AttemptLog:
        """Serve one batch, or the parts that a server wants; calls `add` with the answers in order, and returns the attempts."""
        attempt_log, limiter, quick = AttemptLog(watched=run.attempt_log.watched), self._limiters.current(), None
        await limiter.acquire()
        try:
            outcome = await self._driver.arun(self._attempt(run, batch, attempt_log))
            if not isinstance(outcome, Split) and all(attempt.outcome != "failed" for attempt in attempt_log.attempts):
                quick = attempt_log.attempts[-1].seconds
        finally:
            limiter.release(quick)
        if isinstance(outcome, Split):
            run.job.preferred = outcome.candidate
            await self._serve_concurrently(run, outcome.parts, attempt_log, add)
        else:
            run.job.preferred = outcome[1]
            await self._acache_batch(run, batch.texts, outcome)
            add(outcome)
        return attempt_log

    def _add_batch(self, run: EmbeddingRun, batch: EmbedRequest, served: ServedBatch) -> None:
        run.lookup.store(batch.texts, [served[0]])
        run.add(served)
        run.job.preferred = served[1]

    async def _acache_batch(self, run: EmbeddingRun, texts: Sequence[str], served: ServedBatch) -> None:
        if self._cache is not None:
            await asyncio.to_thread(run.lookup.store, texts, [served[0]])
        else:
            run.lookup.store(texts, [served[0]])

    def _attempt(self, run: EmbeddingRun, batch: EmbedRequest, attempt_log: AttemptLog) -> Steps:
        """Serve a batch; returns (answer, candidate), or the `Split` that a target's limit or a too long text asks for."""
        return attempt_to_name(self._chain, batch, run.request, attempt_log, run.job.preferred)

    def _serve_single(self, coalescer: Coalescer, run: EmbeddingRun, text: str) -> Steps:
        """Serve one text, with others that arrive at the same time; returns its answer, and the candidate."""
        try:
            return (yield from self._serve_coalesced(coalescer, run, text))
        except GatewayError as failure:
            raise name_input(failure, _with_texts(run, [text]), run.request) from failure.__cause__

    def _serve_coalesced(self, coalescer: Coalescer, run: EmbeddingRun, text: str) -> Steps:
        outcome, caller = None, tags()
        # Not a task of another loop, which may be paused, as between two cells of a notebook.
        loop = running_loop()
        key = (loop, run.request.role, caller)
        while outcome is None:
            group, place, is_leader = coalescer.join(key, text, turn=loop is not None)
            if is_leader:
                outcome = yield from self._lead_group(coalescer, group, run)
            else:
                outcome = yield from self._follow_group(coalescer, group)
        if isinstance(outcome, GatewayError):
            if len(group.texts) > 1 and _blames_a_text(outcome):
                # The error does not name a text; each caller finds out for itself.
                ((answer, candidate),) = yield from self._chain.serve(_with_texts(run, [text]), run.attempt_log)
                return answer, candidate
            raise outcome if is_leader else copy.copy(outcome)
        served, attempt_log = outcome
        run.attempt_log.extend(attempt_log.attempts)
        run.shared = not is_leader
        answer, candidate = _answer_of_text(served, place)
        if is_leader and len(served) == 1:
            return answer, candidate
        return replace(answer, usage=usage_of(served) if is_leader else Usage(0)), candidate

    def _lead_group(self, coalescer: Coalescer, group: Group, run: EmbeddingRun) -> Steps:
        """Wait for other texts if some may arrive, do the work, and resolve the group; returns the outcome."""
        outcome: Any = None
        try:
            if not group.ready.done():
                yield Turn() if group.prompt else Await(group.ready, self._gathering_s)
                coalescer.close(group)
            attempt_log = AttemptLog(watched=run.attempt_log.watched)
            try:
                alone = len(group.texts) == len(run.request.texts) == 1
                request = run.request if alone else _with_texts(run, list(group.texts))
                outcome = (yield from self._chain.serve(request, attempt_log)), attempt_log
            except GatewayError as failure:
                outcome = failure
        finally:
            # Also when it is interrupted or cancelled: then the others start again.
            coalescer.resolve(group, outcome)
        return outcome

    def _follow_group(self, coalescer: Coalescer, group: Group) -> Steps:
        """Wait for the leader; returns the outcome, None if it was abandoned."""
        yield Await(group.outcome, SHARED_WAIT_FACTOR * self._settings.timeout)
        # The leader's event loop may be paused, so the wait is limited.
        coalescer.resolve(group, None)
        return group.outcome.result()


async def _serve_in_stream(batch: Batch, job: Job, aserve: AsyncServe) -> EmbedResult:
    with placed_in_stream(batch):
        return await aserve(batch[1], job)


async def _as_async(batches: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for batch in batches:
        yield batch


def _answer_of_text(served: Sequence[ServedBatch], place: int) -> ServedBatch:
    """Return the answer for the text at an index among answers for several texts each."""
    for answer, candidate in served:
        count = len(answer.vectors)
        if place < count:
            return (answer if count == 1 else replace(answer, vectors=answer.vectors.row(place))), candidate
        place -= count
    raise AssertionError("a text without an answer")


def _with_texts(run: EmbeddingRun, texts: Sequence[str]) -> EmbedRequest:
    return run.request if texts is run.request.texts else replace(run.request, texts=texts)


def _blames_a_text(failure: GatewayError) -> bool:
    """Return whether one text of several is at fault, so that the others may be served."""
    errors = getattr(failure, "errors", ()) or (failure,)
    return any(isinstance(error, InvalidRequest | ContextOverflow) for error in errors)
