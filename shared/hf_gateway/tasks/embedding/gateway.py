"""The gateway of embeddings: texts to vectors of one space."""

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.backends import EmbeddingAbility
from hf_gateway.http.transport import HttpTransport
from hf_gateway.observing import observer
from hf_gateway.runtime.background_loop import background_loop
from hf_gateway.runtime.concurrency_limit import LoopLimiters
from hf_gateway.runtime.driver import Clock, Transport, require_asyncio
from hf_gateway.settings.embedding import EmbeddingKeywords, EmbedSettings
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.spaces.stored_vectors import CANDIDATE_TEXTS, StoredVector, check_stored, chosen_sample
from hf_gateway.tasks.embedding.cache import CachedSpace, CacheNamespaces
from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate, SeenDimension
from hf_gateway.tasks.embedding.index_guard import IndexGuard, lock_index
from hf_gateway.tasks.embedding.record import EmbeddingDetails
from hf_gateway.tasks.embedding.run import EmbeddingRun, Job
from hf_gateway.tasks.embedding.service import EmbeddingService
from hf_gateway.values.embedding import EmbedRequest, EmbedResult, Role
from hf_gateway.values.target import Target
from hf_gateway.vector_gateway import VectorGateway


class EmbeddingGateway(VectorGateway):
    """The gateway of `Gateway(...)`: embeds texts by the first target that can, always in one vector space."""

    settings_class: ClassVar[type[EmbedSettings]] = EmbedSettings
    ability_class: ClassVar[type[EmbeddingAbility]] = EmbeddingAbility
    settings: EmbedSettings
    candidates: tuple[EmbeddingCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[EmbeddingKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(
        self,
        abilities: Sequence[EmbeddingAbility],
        given: Sequence[Target],  # noqa: ARG002 - only chat needs it
    ) -> list[EmbeddingCandidate]:
        settings = self.settings
        guard = self._build_guard(abilities)
        guard.caching = settings.cache is not None and settings.cache is not False
        self._limiters, seen = LoopLimiters(settings.max_concurrency), SeenDimension()
        return [
            EmbeddingCandidate(
                ability,
                alone=len(abilities) == 1,
                on_overload=self._limiters.note_rate_limit,
                seen=seen,
                guard=guard,
            )
            for ability in abilities
        ]

    def _build_service(self) -> None:
        settings = self.settings
        self._index_guards: list[IndexGuard] = []
        self._namespaces = CacheNamespaces(settings, self.candidates)
        self._cache: CachedSpace | None = None
        if settings.cache is not None and settings.cache is not False:
            self._cache = CachedSpace(
                settings.cache, settings, self.candidates, lambda: self.final_space, self._clock.now
            )
        prepare = (self._prepare, self._aprepare)
        self._service = EmbeddingService(
            self._chain, self._driver, self.candidates, self._limiters, settings, self._cache, prepare
        )

    def embed(self, texts: Iterable[str], *, role: Role = "document", lists: bool = False) -> EmbedResult:
        """Embed n texts, in order, into (n, dim) float32.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.
            lists: whether you will read `vectors.tolist()`: the lists are then made while other batches are under way.

        Raises:
            InvalidRequest: a text is not a string, is empty, or cannot be encoded in UTF-8; nothing was sent.
            ContextOverflow: a text is longer than the model accepts, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        return self._serve(EmbedRequest.of(texts, role, self.settings.truncate, lists))

    async def aembed(self, texts: Iterable[str], *, role: Role = "document", lists: bool = False) -> EmbedResult:
        """Like `embed`, without blocking the event loop.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.
            lists: whether you will read `vectors.tolist()`.
        """
        return await self._aserve(EmbedRequest.of(texts, role, self.settings.truncate, lists))

    def embed_stream(self, texts: Iterable[str], *, role: Role = "document") -> Generator[list[float], None, None]:
        """Embed any number of texts as they arrive; yields dim floats for each, in order.

        Only the batches under way are in memory: a generator of a million texts needs no more than one of a thousand. Errors
        are those of `embed`, raised after the vectors of all texts before.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.

        Example:
            ```python
            from itertools import tee

            texts, copies = tee(open("texts.txt", encoding="utf-8"))
            for text, vector in zip(copies, gateway.embed_stream(texts)):
                ...
            ```
        """
        with contextlib.closing(self._service.stream(texts, role, self._serve, self._aserve)) as results:
            for result in results:
                yield from result.vectors

    async def aembed_stream(
        self, texts: Iterable[str] | AsyncIterable[str], *, role: Role = "document"
    ) -> AsyncGenerator[list[float], None]:
        """Like `embed_stream`, without blocking the event loop; also for async iterables.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.
        """
        require_asyncio()
        async with contextlib.aclosing(self._service.astream(texts, role, self._aserve)) as results:
            async for result in results:
                for row in result.vectors:
                    yield row

    def lock_index(self, path: str | Path, *, adopt: bool = False, stored: Iterable[StoredVector] = ()) -> IndexLock:
        """Lock an index, which is a folder, to this chain's space: `space.json` is written once, and compared from then on.

        Each later result is compared, too, before the caller gets it, since a target may be measured only when it answers. A
        chain whose targets are of several spaces is pinned to that of the index; a new index gets that of the first vector, and
        until then the returned lock has no space. Sends no request, unless `stored` has texts.

        Args:
            path: the folder.
            adopt: accept a folder that has files and no `space.json`, because you know that it was made with this chain's space.
            stored: texts of the index with their vectors there. Up to seven of them are embedded again, as documents, and an
                index whose vectors are others is not locked.

        Raises:
            SpaceMismatch: the index was made with another space; the message says what differs and what to do.
            GatewayError: the texts of `stored` cannot be embedded; nothing was locked.
            ConfigError: a damaged or newer `space.json`, a folder that cannot be written, files of unknown origin in it.
        """
        cut = self.settings.truncate
        if sample := chosen_sample(itertools.islice(stored, CANDIDATE_TEXTS)):
            # What made the index may have cut its texts; they are cut here, too, rather than refused.
            result = self._serve(EmbedRequest.of([text for text, _ in sample], "document", truncate=True))
            made = [tuple(vector) for vector in result.vectors]
            check_stored(Path(path), result.space.model or "an unnamed model", sample, made)
        return lock_index(
            self._index_guards,
            self._guard,
            self.candidates,
            path,
            adopt=adopt,
            cut=cut,
            now=self._clock.now,
        )

    @property
    def space_binding(self) -> SpaceBinding:
        """The binding of this chain and its copies to one space: by the first vector, and by locked indexes."""
        return dataclasses.replace(
            super().space_binding,
            dimension=self.candidates[0].seen.value,
            locks=tuple(index.lock for index in self._index_guards),
        )

    def bind_space(self, binding: SpaceBinding | None) -> None:
        """Bind this chain, which has returned no vector yet, to the space of another; reads no file, sends no request.

        Copies and pickles do this by themselves.

        Raises:
            SpaceMismatch: no target of this chain has that space.
        """
        super().bind_space(binding)
        if binding is None:
            return
        candidates = self.candidates
        candidates[0].seen.value = binding.dimension
        cut = self.settings.truncate
        self._index_guards = [
            IndexGuard(self._guard, candidates, lock, cut=cut, now=self._clock.now) for lock in binding.locks
        ]

    @property
    def cache_namespace(self) -> str | None:
        """Namespace of vectors that may be cached together: their space and its fingerprint; None while either is open.

        Raises SpaceMismatch and ConfigError if such vectors do not belong into an index that this chain is locked to.
        """
        space = self.final_space
        self._guard.caching = True
        name = None if space is None else self._namespaces.of(space)
        if space is not None and name is not None:
            for index in self._index_guards:
                index.check_cached(space)
        return name

    @property
    def cache(self) -> CachedSpace | None:
        """The cache as this chain sees it, with its counts; None without a cache."""
        return self._cache

    def close(self) -> None:
        """Close connections and release models. The gateway can be used again afterwards."""
        super().close()
        if isinstance(self._transport, HttpTransport) and self._service.take_background_use():
            background_loop.run(self._transport.aclose())

    async def aclose(self) -> None:
        """Close, including the connections of this event loop."""
        await super().aclose()
        if isinstance(self._transport, HttpTransport) and self._service.take_background_use():
            await asyncio.wrap_future(background_loop.submit(self._transport.aclose()))

    def _release(self) -> None:
        super()._release()
        if self._cache is not None:
            self._cache.close()

    def _serve(self, request: EmbedRequest, job: Job | None = None) -> EmbedResult:
        if not observer.watchers:
            return self._checked(self._result(self._service.serve(request, None, job)))
        with self._watch(EmbeddingDetails(request)) as watch:
            if watch.observation.waits:
                self._driver.run(watch.wait_for_watchers())
            run = self._service.serve(request, watch.attempt_log, job)
            return watch.done(self._checked(self._result(run)), run.lookup.looked_up)

    async def _aserve(self, request: EmbedRequest, job: Job | None = None) -> EmbedResult:
        require_asyncio()
        if not observer.watchers:
            return await self._achecked(self._result(await self._service.aserve(request, None, job)))
        with self._watch(EmbeddingDetails(request)) as watch:
            if watch.observation.waits:
                await self._driver.arun(watch.wait_for_watchers())
            run = await self._service.aserve(request, watch.attempt_log, job)
            return watch.done(await self._achecked(self._result(run)), run.lookup.looked_up)

    def _checked(self, result: EmbedResult) -> EmbedResult:
        """Compare a result with the indexes, and call the observers; it is returned only if all agree."""
        for index in self._index_guards:
            self._driver.run(index.verdict(result))
        return self._observed(result)

    async def _achecked(self, result: EmbedResult) -> EmbedResult:
        for index in self._index_guards:
            await self._driver.arun(index.verdict(result))
        return self._observed(result)

    def _result(self, run: EmbeddingRun) -> EmbedResult:
        names = run.names()
        if run.answers and not run.shared:
            self._warn_of_fallback("embeddings served by", ", ".join(names), run.attempt_log)
        return EmbedResult(
            served_by=names,
            attempts=tuple(run.attempt_log.attempts),
            usage=run.usage(),
            seconds=run.seconds,
            vectors=run.vectors(),
            space=self.space,
            shared=run.shared,
            cached=run.lookup.found,
        )
