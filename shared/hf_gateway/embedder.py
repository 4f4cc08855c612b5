"""How a call for vectors is served: what a cache has of it, each text once, in batches of which several are under way at once.

A call of one text may share its request with others that come at the same time (`coalesce.py`).
"""

import asyncio
import contextlib
import copy
import functools
import operator
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
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.cache import CachedSpace, Recall
from hf_gateway.cache_stores import parts
from hf_gateway.chain import Await, Chain, Journal, Split, Steps
from hf_gateway.coalesce import Coalescer, Group
from hf_gateway.cutting import Batch, Cutter, acut, cut
from hf_gateway.drive import Driver
from hf_gateway.embedding import EmbedAnswer, EmbedRequest, EmbedResult, Role
from hf_gateway.errors import ContextOverflow, GatewayError, InvalidRequest
from hf_gateway.flight import Flight
from hf_gateway.link import EmbedLink
from hf_gateway.observe import tags
from hf_gateway.options import EmbedSettings
from hf_gateway.portal import Portal, portal
from hf_gateway.tasks.embedding.blamed_text import halves, named, placed_in_stream
from hf_gateway.usage import Usage
from hf_gateway.vectors import Vectors
from hf_gateway.windows import futures_in_order, in_order

SHARED = 256
"""Texts that share one request at most, where the server says nothing of its limit."""
PATIENCE = 2.0
"""Times the time for a request, after which one that another call makes and shares is not waited for any more."""
STREAMED = 512
"""Texts that a stream hands to a model in this process at once: enough to sort by length."""


Came = tuple[EmbedAnswer, EmbedLink]


@dataclass
class Job:
    """Calls that belong together, such as all batches of a stream. leader: who served last, and is asked first."""

    leader: EmbedLink | None = None


Serve = Callable[[EmbedRequest, Job], EmbedResult]
AsyncServe = Callable[[EmbedRequest, Job], Awaitable[EmbedResult]]


@dataclass
class Served:
    """What became of one call. shared: another call's request brought it, and the tokens are counted there."""

    request: EmbedRequest
    recall: Recall
    job: Job
    journal: Journal = field(default_factory=Journal)
    answers: list[Came] = field(default_factory=list)
    shared: bool = False
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def vectors(self) -> Vectors:
        """Return the vectors of all texts, in order."""
        return self.recall.vectors([answer for answer, _ in self.answers])

    def usage(self) -> Usage:
        """Add up the tokens."""
        return _usage_of(self.answers)

    def names(self) -> tuple[str, ...]:
        """Name who served, first to last."""
        return tuple(
            dict.fromkeys([*(["cache"] if self.recall.found else []), *(link.label for _, link in self.answers)])
        )


class Embedder:
    """Serves the calls of one gateway."""

    def __init__(
        self,
        chain: Chain,
        driver: Driver,
        links: Sequence[EmbedLink],
        settings: EmbedSettings,
        cache: CachedSpace | None,
        prepare: tuple[Callable[[], None], Callable[[], Coroutine[Any, Any, None]]],
    ) -> None:
        """prepare: reads what lies in files before anything is sent, blocking and async."""
        self._chain = chain
        self._driver = driver
        self._first = links[0]
        self._settings = settings
        self._cache = cache
        self._prepare, self._aprepare = prepare
        self._coalescer = Coalescer(self._shared) if settings.coalesce else None
        self._flights: dict[asyncio.AbstractEventLoop, Flight] = {}
        self._on_portal = False
        for link in links:
            link.refused = self._refused

    @property
    def remote(self) -> bool:
        """Whether the first target is a server, which can be asked several things at once."""
        return self._first.backend.url is not None

    def serve(self, request: EmbedRequest, journal: Journal | None = None, job: Job | None = None) -> Served:
        """Serve a call, blocking; one of a job shares no requests. Raises GatewayErrors."""
        served = Served(request, Recall(request, self._cache), job or Job(), journal or Journal())
        left = served.recall.left()
        if left:
            self._prepare()
            # On a loop's own thread whoever blocks must not wait for others: their leader may be a task of that loop.
            if len(left) == 1 and self._coalescer is not None and job is None and _loop() is None:
                self._keep(served, _of(served, left), self._driver.run(self._single(self._coalescer, served, left[0])))
            else:
                self._in_turn(served, self._pieces(served, left))
        served.seconds = time.perf_counter() - served.started
        return served

    async def aserve(self, request: EmbedRequest, journal: Journal | None = None, job: Job | None = None) -> Served:
        """Serve a call without blocking the event loop; one of a job shares no requests. Raises GatewayErrors."""
        if self._cache is not None and request.texts:
            recall = await asyncio.to_thread(Recall, request, self._cache)
        else:
            recall = Recall(request)
        served = Served(request, recall, job or Job(), journal or Journal())
        left = recall.left()
        if left:
            await self._aprepare()
            if len(left) == 1 and self._coalescer is not None and job is None:
                came = await self._driver.arun(self._single(self._coalescer, served, left[0]))
                await self._akeep(served, left, came)
                served.answers.append(came)
            else:
                served.answers += await self._in_flight(served, self._pieces(served, left), served.journal)
        served.seconds = time.perf_counter() - served.started
        return served

    def stream(
        self, texts: Iterable[str], role: Role, serve: Serve, aserve: AsyncServe
    ) -> Generator[EmbedResult, None, None]:
        """Have any number of texts served, batch after batch, in order; holds no more than the batches that are on their way."""
        job = Job()
        self._prepare()
        with contextlib.closing(cut(texts, self._cutter(role))) as batches:
            if portal.here():  # an observer's; it cannot wait for what only its own thread could do
                for batch in batches:
                    with placed_in_stream(batch):
                        result = serve(batch[1], job)
                    yield result
                return
            yield from futures_in_order(
                batches, lambda batch: self._portal().submit(_served(batch, job, aserve)), self._ahead
            )

    async def astream(
        self, texts: Iterable[str] | AsyncIterable[str], role: Role, aserve: AsyncServe
    ) -> AsyncGenerator[EmbedResult, None]:
        """Do what `stream` does without blocking the event loop."""
        job = Job()
        await self._aprepare()
        outcomes = in_order(acut(texts, self._cutter(role)), lambda batch: _served(batch, job, aserve), self._ahead)
        async with contextlib.aclosing(outcomes):
            async for result in outcomes:
                yield result

    def _cutter(self, role: Role) -> Cutter:
        return Cutter(role, self._settings.truncate, self._at_once)

    def _shared(self) -> int:
        return self._first.batch_texts or SHARED

    def _at_once(self) -> int:
        return self._first.batch_texts or STREAMED

    @property
    def _ahead(self) -> int:
        """How many batches are on their way at once, waiting ones included."""
        return 2 * self._settings.max_concurrency if self.remote else 2

    def left_on_portal(self) -> bool:
        """Say whether connections were opened there since this was asked last."""
        used, self._on_portal = self._on_portal, False
        return used

    def _portal(self) -> Portal:
        self._on_portal = True
        return portal

    def _pieces(self, served: Served, left: Sequence[str]) -> Sequence[EmbedRequest]:
        """Cut what is left into what is kept in a cache at once; what a server takes at once it says by itself."""
        if self._cache is None or len(left) <= Recall.at_once():
            return [_of(served, left)]
        return [_of(served, part) for part in parts(left, Recall.at_once())]

    def _in_turn(self, served: Served, pieces: Sequence[EmbedRequest]) -> None:
        """Serve batch after batch, blocking; from the first one on that a server wants cut, several at once."""
        for place, piece in enumerate(pieces):
            outcome = self._driver.run(self._attempt(served, piece, served.journal))
            if not isinstance(outcome, Split):
                self._keep(served, piece, outcome)
                continue
            served.job.leader = outcome.link
            left = [*outcome.parts, *pieces[place + 1 :]]
            if outcome.link.backend.url is None or self._settings.max_concurrency == 1 or portal.here():
                self._in_turn(served, left)
            else:
                served.answers += self._portal().run(self._in_flight(served, left, served.journal))
            return

    async def _in_flight(self, served: Served, pieces: Sequence[EmbedRequest], journal: Journal) -> list[Came]:
        """Serve batches, several at once, as many as the flight allows; returns what came, in order.

        journal: gets what was tried, in the order of the batches.
        """
        came: list[Came] = []
        try:
            if len(pieces) == 1:
                outcome, tried = await self._apiece(served, pieces[0])
                came += outcome
                journal.extend(tried.attempts)
                return came
            work = in_order(_each(pieces), lambda piece: self._apiece(served, piece), self._ahead)
            async with contextlib.aclosing(work):
                async for outcome, tried in work:
                    came += outcome
                    journal.extend(tried.attempts)
        except GatewayError as failure:
            journal.extend(failure.attempts)
            failure.attempts = tuple(journal.attempts)
            raise
        return came

    async def _apiece(self, served: Served, piece: EmbedRequest) -> tuple[list[Came], Journal]:
        """Serve one batch, or the parts that a server wants it cut into; returns what came, in order, and what was tried."""
        journal, flight, quick = Journal(watched=served.journal.watched), self._flight(), None
        await flight.enter()
        try:
            outcome = await self._driver.arun(self._attempt(served, piece, journal))
            if not isinstance(outcome, Split) and all(attempt.outcome != "failed" for attempt in journal.attempts):
                quick = journal.attempts[-1].seconds
        finally:
            flight.leave(quick)
        if isinstance(outcome, Split):
            served.job.leader = outcome.link
            return await self._in_flight(served, outcome.parts, journal), journal
        served.job.leader = outcome[1]
        await self._akeep(served, piece.texts, outcome)
        return [outcome], journal

    def _keep(self, served: Served, piece: EmbedRequest, came: Came) -> None:
        served.recall.keep(piece.texts, [came[0]])
        served.answers.append(came)
        served.job.leader = came[1]

    async def _akeep(self, served: Served, texts: Sequence[str], came: Came) -> None:
        if self._cache is not None:
            await asyncio.to_thread(served.recall.keep, texts, [came[0]])
        else:
            served.recall.keep(texts, [came[0]])

    def _attempt(self, served: Served, piece: EmbedRequest, journal: Journal) -> Steps:
        """Serve a batch; returns (answer, link), or the `Split` that a target's limit or a text that is too long asks for."""
        try:
            return (yield from self._chain.attempt(piece, journal, first=served.job.leader))
        except GatewayError as failure:
            if parts := halves(piece, failure):
                return Split(parts, served.job.leader or self._first)
            raise named(failure, piece, served.request) from failure.__cause__

    def _single(self, coalescer: Coalescer, served: Served, text: str) -> Steps:
        """Serve one text, with others that come at the same time; returns the answer for it, and who gave it."""
        try:
            return (yield from self._in_company(coalescer, served, text))
        except GatewayError as failure:
            raise named(failure, _of(served, [text]), served.request) from failure.__cause__

    def _in_company(self, coalescer: Coalescer, served: Served, text: str) -> Steps:
        landed, caller = None, tags()
        # Nobody waits for a task of another loop, which may stand still, as between two cells of a notebook.
        company = (_loop(), served.request.role, caller.tenant, caller.user)
        while landed is None:
            group, place, leads = coalescer.enter(company, text)
            if leads:
                landed = yield from self._lead(coalescer, group, served)
            else:
                landed = yield from self._follow(coalescer, group)
        if isinstance(landed, GatewayError):
            if len(group.texts) > 1 and _blames_a_text(landed):
                # Whose text it was is not said; each finds out for itself.
                ((answer, link),) = yield from self._chain.serve(_of(served, [text]), served.journal)
                return answer, link
            raise landed if leads else copy.copy(landed)
        came, journal = landed
        served.journal.extend(journal.attempts)
        served.shared = not leads
        answer, link = _of_text(came, place)
        if leads and len(came) == 1:
            return answer, link
        return replace(answer, usage=_usage_of(came) if leads else Usage(0)), link

    def _lead(self, coalescer: Coalescer, group: Group, served: Served) -> Steps:
        """Wait for company where there may be any, do the work, and tell the others how it went; returns that."""
        landed: Any = None
        try:
            if not group.ready.done():
                yield Await(group.ready, self._settings.coalesce)
                coalescer.close(group)
            journal = Journal(watched=served.journal.watched)
            try:
                alone = len(group.texts) == len(served.request.texts) == 1
                request = served.request if alone else _of(served, list(group.texts))
                landed = (yield from self._chain.serve(request, journal)), journal
            except GatewayError as failure:
                landed = failure
        finally:
            # Also when it is interrupted or cancelled: then the others begin anew.
            coalescer.land(group, landed)
        return landed

    def _follow(self, coalescer: Coalescer, group: Group) -> Steps:
        """Wait for whoever leads; returns what came, None when it was given up."""
        yield Await(group.landed, PATIENCE * self._settings.timeout)
        # In vain where the leader's event loop stands still: nobody waits for it any longer.
        coalescer.land(group, None)
        return group.landed.result()

    def _flight(self) -> Flight:
        loop = asyncio.get_running_loop()
        flight = self._flights.get(loop)
        if flight is None:
            # Loops of other threads may do the same now, so the mapping is neither replaced nor iterated over.
            for known in list(self._flights):
                if known.is_closed():
                    self._flights.pop(known, None)
            flight = self._flights[loop] = Flight(self._settings.max_concurrency)
        return flight

    def _refused(self) -> None:
        for flight in list(self._flights.values()):
            flight.refused()


async def _served(batch: Batch, job: Job, aserve: AsyncServe) -> EmbedResult:
    with placed_in_stream(batch):
        return await aserve(batch[1], job)


async def _each(pieces: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for piece in pieces:
        yield piece


def _loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _usage_of(came: Iterable[Came]) -> Usage:
    used = [answer.usage for answer, _ in came]
    return functools.reduce(operator.add, used) if used else Usage(0)


def _of_text(came: Sequence[Came], place: int) -> Came:
    """Find the answer for the text at this place among answers for several texts each."""
    for answer, link in came:
        count = len(answer.vectors)
        if place < count:
            return (answer if count == 1 else replace(answer, vectors=answer.vectors.row(place))), link
        place -= count
    raise AssertionError("a text without an answer")


def _of(served: Served, texts: Sequence[str]) -> EmbedRequest:
    return served.request if texts is served.request.texts else replace(served.request, texts=texts)


def _blames_a_text(failure: GatewayError) -> bool:
    """Whether one text of several is at fault, so that the others may yet be served."""
    errors = getattr(failure, "errors", ()) or (failure,)
    return any(isinstance(error, InvalidRequest | ContextOverflow) for error in errors)
