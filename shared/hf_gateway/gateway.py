"""Gateway: a chain of targets behind a few methods, each blocking and async. What both frameworks' classes stand on."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from hf_gateway import activation
from hf_gateway.backends import AbilityType, ChatAbility, EmbeddingAbility, open_ability
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.http.transport import HttpTransport
from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation, ObservedCall
from hf_gateway.observing.record import RequestDetails
from hf_gateway.runtime.background_loop import background_loop
from hf_gateway.runtime.concurrency_limit import LoopLimiters
from hf_gateway.runtime.driver import Clock, Driver, Transport, require_asyncio
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.config_file import key_policy_overrides
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.spaces.fingerprint import Rows
from hf_gateway.spaces.guard import Guard
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.tasks.chat.candidate import ChatCandidate
from hf_gateway.tasks.chat.service import ChatService
from hf_gateway.tasks.chat.streams import AsyncChatStream, ChatStream
from hf_gateway.tasks.embedding.cache import CachedSpace, CacheNamespaces
from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate, SeenDimension
from hf_gateway.tasks.embedding.declared_spaces import declared_space, refuse_mixed_spaces, refuse_unbindable
from hf_gateway.tasks.embedding.index_guard import IndexGuard, lock_index
from hf_gateway.tasks.embedding.record import EmbeddingDetails
from hf_gateway.tasks.embedding.service import EmbeddingRun, EmbeddingService, Job
from hf_gateway.tasks.given_key import targets_of_key
from hf_gateway.tasks.policies import policy_of
from hf_gateway.tasks.registry import DEFAULT_TASK, chosen_targets, find_task
from hf_gateway.tasks.status import TargetCheck, TargetStatus, check_target, status_of
from hf_gateway.values.chat import ChatEvent, ChatRequest, ChatResult, Message
from hf_gateway.values.embedding import EmbedRequest, EmbedResult, Role
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire.hf_router import Capabilities

log = logger(__name__)

PREPARED_S = 10.0
"""Seconds for which async calls believe what was read from files; blocking calls look each time."""


class Gateway:
    """A model, from the first of its targets that can serve it.

    Example:
        ```python
        from hf_gateway import Gateway

        with Gateway(targets=["hash"]) as gateway:
            result = gateway.embed(["a text", "another"])
            print(len(result.vectors), result.served_by)
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order; strings or `Target`s.
        task: what the chain is for, "embedding" or "chat"; its settings and its checks differ.
        settings: every other field of `EmbedSettings` or `ChatSettings`, such as `timeout`, `api_key`, `temperature`.

    Raises:
        ConfigError: settings that make no sense; SpaceMismatch: targets that would answer in different vector spaces.
    """

    def __init__(
        self,
        model: str | None = None,
        targets: Sequence[str | Target] | str | None = None,
        *,
        task: str = DEFAULT_TASK,
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        """Build the chain; nothing is loaded or connected to yet."""
        known = find_task(task).settings.model_validate({"model": model, "targets": targets, **settings})
        self._build(known, transport, clock)

    def _build(
        self,
        settings: Any,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.model, given = chosen_targets(settings)
        self.targets = tuple(target.inheriting(self.model, settings.revision) for target in given)
        # With what the environment decided, so that a pickle of this gateway is the same chain elsewhere.
        self.settings = settings.model_copy(update={"model": self.model, "targets": self.targets})
        self._clock = clock or Clock()
        self._transport = transport or HttpTransport()
        self._driver = Driver(self._transport, self._clock, settings.connect_timeout)
        rules = key_policy_overrides(settings.config)
        keyed = targets_of_key(self.targets, settings.api_key, settings)
        alone = len(self.targets) == 1

        def opened(base: type[AbilityType]) -> list[AbilityType]:
            return [
                open_ability(
                    base, target, settings, given_key=settings.api_key if target in keyed else None, rules=rules
                )
                for target in self.targets
            ]

        self._candidates: list[TargetCandidate]
        self._cache: CachedSpace | None = None
        if isinstance(settings, ChatSettings):
            self._candidates = [
                ChatCandidate(ability, alone=alone, inherits=target.model is None)
                for ability, target in zip(opened(ChatAbility), given, strict=True)
            ]
        else:
            abilities = opened(EmbeddingAbility)
            self._guard = _guarded(settings, abilities)
            seen, limiters = SeenDimension(), LoopLimiters(settings.max_concurrency)
            self._candidates = [
                EmbeddingCandidate(
                    ability, alone=alone, on_overload=limiters.note_rate_limit, seen=seen, guard=self._guard
                )
                for ability in abilities
            ]
            self._namespaces = CacheNamespaces(settings, self._embedding_candidates())
            if settings.cache is not None and settings.cache is not False:
                self._cache = CachedSpace(
                    settings.cache, settings, self._candidates, lambda: self.final_space, self._clock.now
                )
        self._chain = Chain(self._candidates, policy_of(settings), self._clock.now)
        self._embeds: EmbeddingService | None = None
        if isinstance(settings, EmbedSettings):
            prepare = (self._prepare, self._aprepare)
            self._embeds = EmbeddingService(
                self._chain, self._driver, self._embedding_candidates(), limiters, settings, self._cache, prepare
            )
        self._chats: ChatService | None = None
        if isinstance(settings, ChatSettings):
            chat_candidates = [candidate for candidate in self._candidates if isinstance(candidate, ChatCandidate)]
            self._chats = ChatService(self._chain, chat_candidates, settings, self._watch, self._chatted)
        activation.from_environment()
        observer.gateways.add(self)
        self._prepared_until = -math.inf
        self._last_fallback_reason: list[tuple[str, str]] = []
        self._observers: list[Callable[[Any], None]] = []
        self._index_guards: list[IndexGuard] = []

    @classmethod
    def from_settings(
        cls,
        settings: NamedSettings,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Build from settings that were read elsewhere."""
        made = cls.__new__(cls)
        made._build(settings, transport, clock)
        return made

    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: str = DEFAULT_TASK, **changes: Any
    ) -> Self:
        """Build the chain `[chains.<name>]` of hf-gateway.toml; keyword arguments go over the file."""
        return cls.from_settings(find_task(task).settings.from_config(name, path, **changes))

    @property
    def task(self) -> str:
        """What this chain is for."""
        return str(self.settings.task)

    def embed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Embed n texts, in order, into (n, dim) float32.

        Raises:
            InvalidRequest: a text that is none, is empty, or cannot be written as UTF-8; nothing was sent.
            ContextOverflow: a text longer than the model takes, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error a target.
        """
        return self._serve(EmbedRequest.of(texts, role, self._embedding().truncate))

    async def aembed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Do what `embed` does without blocking the event loop."""
        return await self._aserve(EmbedRequest.of(texts, role, self._embedding().truncate))

    def embed_stream(self, texts: Iterable[str], *, role: Role = "document") -> Generator[list[float], None, None]:
        """Embed any number of texts, as they come; gives dim floats for each, in order.

        Several batches are under way at once, and nothing else is held: a generator of a million texts takes no more memory
        than one of a thousand. What `embed` raises is raised after the vectors of all texts before it were given.

        Example:
            ```python
            from itertools import tee

            texts, copies = tee(open("texts.txt", encoding="utf-8"))
            for text, vector in zip(copies, gateway.embed_stream(texts)):
                ...
            ```
        """
        with contextlib.closing(self._embedder().stream(texts, role, self._serve, self._aserve)) as results:
            for result in results:
                yield from result.vectors

    async def aembed_stream(
        self, texts: Iterable[str] | AsyncIterable[str], *, role: Role = "document"
    ) -> AsyncGenerator[list[float], None]:
        """Do what `embed_stream` does without blocking the event loop; the texts may be waited for, too."""
        require_asyncio()
        async with contextlib.aclosing(self._embedder().astream(texts, role, self._aserve)) as results:
            async for result in results:
                for row in result.vectors:
                    yield row

    def chat(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatResult:
        """Answer a conversation; a string is one user message.

        call: what holds for this call alone, by the names of `Sampling`, and tools, tool_choice, response_format, model.

        Raises:
            InvalidRequest: messages or arguments that make no sense; nothing was sent.
            ContentFiltered: a provider's policy refused, unless `next_on_content_filter`.
            GatewayError: the target's error, or AllTargetsFailed with one error a target.
        """
        steps = self._answering(messages, call)
        self._prepare()
        result: ChatResult = self._driver.run(steps)
        return result

    async def achat(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatResult:
        """Do what `chat` does without blocking the event loop."""
        steps = self._answering(messages, call)
        await self._aprepare()
        result: ChatResult = await self._driver.arun(steps)
        return result

    def stream(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatStream:
        """Answer piece by piece; the stream's `result` has the whole once it is at its end.

        Raises what `chat` does, and, once a piece was given, `StreamInterrupted` with the text so far: an answer that broke
        off never looks like a short one.
        """
        stream = ChatStream()
        return stream.begin(self._streamed(self._answering(messages, call, stream.set_result)))

    def astream(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> AsyncChatStream:
        """Do what `stream` does without blocking the event loop."""
        stream = AsyncChatStream()
        return stream.begin(self._astreamed(self._answering(messages, call, stream.set_result)))

    def observe(self, observer: Callable[[Any], None]) -> None:
        """Have `observer` called with every `EmbedResult` or `ChatResult`, after it is complete and before the caller gets it."""
        self._observers.append(observer)

    @property
    def space(self) -> VectorSpace:
        """The vector space of this chain, as far as it is declared; read from files of this machine at most."""
        self._embedding()
        return self._guard.pinned or self._declared()

    def lock_index(self, path: str | Path, *, adopt: bool = False) -> IndexLock:
        """Lock an index, which is a folder, to this chain's space: its `space.json` is written once, and compared ever after.

        From then on each result is compared, too, before the caller gets it: a target may be measured only when it answers.
        A chain whose targets are of several spaces is pinned to that of the index; a new index gets that of the first vector,
        and until then the lock that is returned has no space. Sends nothing.

        adopt: take a folder that has files and no `space.json`; you say that this chain's space is what it was made with.

        Raises:
            SpaceMismatch: the index was made with another space; the message says what differs and the ways out.
            ConfigError: a spoilt or newer `space.json`, a folder that cannot be written, files of unknown origin in it.
        """
        cut = self._embedding().truncate
        return lock_index(
            self._index_guards,
            self._guard,
            self._embedding_candidates(),
            path,
            adopt=adopt,
            cut=cut,
            now=self._clock.now,
        )

    @property
    def space_binding(self) -> SpaceBinding | None:
        """What binds this chain and its copies to one space: the first vector, and locked indexes; None for chat."""
        if not isinstance(self.settings, EmbedSettings):
            return None
        return dataclasses.replace(
            self._guard.binding(),
            dimension=self._embedding_candidates()[0].seen.value,
            locks=tuple(index.lock for index in self._index_guards),
        )

    def bind_space(self, binding: SpaceBinding | None) -> None:
        """Hold this chain, which has given no vector yet, to what another has promised; reads nothing, sends nothing.

        Copies and pickles do this by themselves.

        Raises:
            SpaceMismatch: no target of this chain can keep the promise.
        """
        if binding is None:
            return
        candidates = self._embedding_candidates()
        refuse_unbindable([self._guard.space_of(candidate) for candidate in candidates], binding)
        self._guard.bind(binding)
        candidates[0].seen.value = binding.dimension
        cut = self._embedding().truncate
        self._index_guards = [
            IndexGuard(self._guard, candidates, lock, cut=cut, now=self._clock.now) for lock in binding.locks
        ]

    def _embedding_candidates(self) -> list[EmbeddingCandidate]:
        self._embedding()
        return [candidate for candidate in self._candidates if isinstance(candidate, EmbeddingCandidate)]

    @property
    def final_space(self) -> VectorSpace | None:
        """The space of all further vectors; None while on_space_change="separate" leaves that to who answers first."""
        space = self.space
        if self._guard.pinned is None and any(
            candidate.space.id != space.id for candidate in self._embedding_candidates()
        ):
            return space if self._embedding().on_space_change == "refuse" else None
        return space

    @property
    def cache_namespace(self) -> str | None:
        """Name the vectors that may be cached together: their space, and what was measured of it; None while either is open.

        Raises SpaceMismatch and ConfigError where what is cached so does not belong into an index that this chain is locked to.
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
        """The cache as this chain sees it, with its counts; None without one."""
        return self._cache

    def capabilities(self, *, look_up: bool = False) -> Capabilities:
        """Say what is known of the model at the first target; what nobody said is None.

        look_up: ask a catalogue, for seconds at most, where this machine did not today; without it nothing is sent.
        """
        return self._candidates[0].ability.capabilities(look_up=look_up)

    def status(self) -> list[TargetStatus]:
        """Say of each target whether it may be called now, why not, and until when. Sends nothing."""
        return [status_of(candidate, self._clock.now()) for candidate in self._candidates]

    def check(self) -> list[TargetCheck]:
        """Ask each target what it serves, without having it compute anything."""
        self._prepare()
        return [
            check_target(
                candidate,
                self._clock.now(),
                lambda effects, name: self._driver.perform(effects, timeout=self._probe_time, target=name),
            )
            for candidate in self._candidates
        ]

    def measure(self) -> list[Rows | GatewayError]:
        """Embed the canary texts with each target, in both roles; for one that could not, why. Keeps and decides nothing."""
        self._embedding()
        self._prepare()
        found: list[Rows | GatewayError] = []
        for candidate in self._candidates:
            assert isinstance(candidate, EmbeddingCandidate)
            try:
                if (refusal := candidate.refusal()) is not None:
                    raise refusal
                effects = self._guard.measure(candidate)
                found.append(self._driver.perform(effects, timeout=self.settings.timeout, target=candidate.label))
            except GatewayError as error:
                found.append(error)
        return found

    def close(self) -> None:
        """Close connections and let models go. The gateway can be used again afterwards."""
        self._release()
        if isinstance(self._transport, HttpTransport):
            self._transport.close()
            if self._embeds is not None and self._embeds.take_background_use():
                background_loop.run(self._transport.aclose())

    async def aclose(self) -> None:
        """Close, this event loop's connections too."""
        require_asyncio()
        await asyncio.to_thread(self._release)
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()
            if self._embeds is not None and self._embeds.take_background_use():
                await asyncio.wrap_future(background_loop.submit(self._transport.aclose()))

    def _release(self) -> None:
        for candidate in self._candidates:
            candidate.ability.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        """Use as `with Gateway(...) as gateway`."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Use as `async with Gateway(...) as gateway`."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show the model and the chain."""
        return f"Gateway({self.model!r}, targets={[target.label for target in self.targets]})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings and what binds the chain to its space; connections, models and keys stay behind."""
        return (_rebuilt, (type(self), self.settings, self.space_binding))

    @property
    def _probe_time(self) -> float:
        return min(float(self.settings.attempt_timeout), 10.0)

    def _serve(self, request: EmbedRequest, job: Job | None = None) -> EmbedResult:
        if not observer.watchers:
            return self._checked(self._result(self._embedder().serve(request, None, job)))
        with self._watch(EmbeddingDetails(request)) as watch:
            if watch.observation.waits:
                self._driver.run(watch.begun())
            run = self._embedder().serve(request, watch.attempt_log, job)
            return watch.done(self._checked(self._result(run)), run.lookup.looked_up)

    async def _aserve(self, request: EmbedRequest, job: Job | None = None) -> EmbedResult:
        require_asyncio()
        if not observer.watchers:
            return await self._achecked(self._result(await self._embedder().aserve(request, None, job)))
        with self._watch(EmbeddingDetails(request)) as watch:
            if watch.observation.waits:
                await self._driver.arun(watch.begun())
            run = await self._embedder().aserve(request, watch.attempt_log, job)
            return watch.done(await self._achecked(self._result(run)), run.lookup.looked_up)

    def _checked(self, result: EmbedResult) -> EmbedResult:
        """Hold a result to the indexes, and tell the observers; nothing leaves before every verdict."""
        for index in self._index_guards:
            self._driver.run(index.verdict(result))
        return self._observed(result)

    async def _achecked(self, result: EmbedResult) -> EmbedResult:
        for index in self._index_guards:
            await self._driver.arun(index.verdict(result))
        return self._observed(result)

    def _observed(self, result: EmbedResult) -> EmbedResult:
        for notify in self._observers:
            notify(result)
        return result

    def _watch(self, details: RequestDetails[Any, Any], streamed: bool = False) -> ObservedCall:
        """Have a request watched, from now on."""
        return ObservedCall(
            Observation(
                task=details.task,
                chain=self.settings.chain,
                model=self.model,
                targets=self.targets,
                streamed=streamed,
                time=time.time(),
                began=self._clock.now(),
                details=details,
                **details.request_columns(),
            ),
            self._clock.now,
        )

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

    def _embedder(self) -> EmbeddingService:
        self._embedding()
        assert self._embeds is not None
        return self._embeds

    def _embedding(self) -> EmbedSettings:
        if not isinstance(self.settings, EmbedSettings):
            raise ConfigError("this gateway was built for chat; for embeddings leave task='chat' out")
        return self.settings

    def _answering(
        self,
        messages: str | Iterable[Message] | ChatRequest,
        call: dict[str, Any],
        ended: Callable[[ChatResult], None] | None = None,
    ) -> Steps:
        if self._chats is None:
            raise ConfigError("this gateway was built for embeddings; build it as Gateway(..., task='chat')")
        return self._chats.steps(messages, call, ended)

    def _chatted(self, result: ChatResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("the answer was given by", result.served_by, attempt_log)
        for notify in self._observers:
            notify(result)

    def _streamed(self, steps: Steps) -> Generator[ChatEvent, None, Any]:
        self._prepare()
        return (yield from self._driver.stream(steps))

    async def _astreamed(self, steps: Steps) -> AsyncGenerator[ChatEvent, None]:
        await self._aprepare()
        async with contextlib.aclosing(self._driver.astream(steps, lambda _: None)) as events:
            async for event in events:
                yield event

    def _warn_of_fallback(self, run: str, name: str, attempt_log: AttemptLog) -> None:
        failures = [attempt for attempt in attempt_log.attempts if attempt.outcome != "served"]
        if failures and len(self._candidates) > 1:
            # Who is skipped, for a missing key or while its breaker is open, is news once. A call that failed always is.
            why = [(attempt.target, (attempt.error or "").partition(":")[0]) for attempt in failures]
            news = why != self._last_fallback_reason or any(attempt.outcome == "failed" for attempt in failures)
            self._last_fallback_reason = why
            if log.isEnabledFor(level := logging.WARNING if news else logging.DEBUG):
                told = "; ".join(f"{attempt.target}: {attempt.error}" for attempt in failures)
                log.log(level, "%s %s, since %s", run, name, told)

    async def _aprepare(self) -> None:
        require_asyncio()
        if time.monotonic() >= self._prepared_until:
            await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        """Do what reads files: imports, certificates, model descriptions, logins."""
        if any(candidate.server.url is not None for candidate in self._candidates) and isinstance(
            self._transport, HttpTransport
        ):
            self._transport.prepare()
        for candidate in self._candidates:
            candidate.ability.prepare()
        self._prepared_until = time.monotonic() + PREPARED_S

    def _declared(self) -> VectorSpace:
        abilities = [candidate.ability for candidate in self._embedding_candidates()]
        return declared_space(abilities, merge=self._embedding().on_space_change == "refuse")


def _guarded(settings: EmbedSettings, abilities: Sequence[EmbeddingAbility]) -> Guard:
    """Return the guard of a chain's targets; those that declare different spaces are refused, unless they are to be separate."""
    refuse = settings.on_space_change == "refuse"
    if len(abilities) > 1 and refuse:
        refuse_mixed_spaces(abilities)
    return Guard(settings, declared_space(abilities, merge=refuse))


def _rebuilt(kind: type[Gateway], settings: EmbedSettings | ChatSettings, binding: SpaceBinding | None) -> Gateway:
    """Build a copy of a gateway from its pickle."""
    made = kind.from_settings(settings)
    made.bind_space(binding)
    return made
