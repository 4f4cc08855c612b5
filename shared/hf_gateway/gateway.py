"""Gateway: a chain of targets behind a few methods, each blocking and async. What both frameworks' classes stand on."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from hf_gateway.backends import backend_class
from hf_gateway.chain import Chain, Journal, Steps
from hf_gateway.chat import ChatEvent, ChatRequest, ChatResult, Message
from hf_gateway.config import house_rules
from hf_gateway.credentials import Secret, is_hugging_face, origin_of
from hf_gateway.drive import Clock, Driver, Transport
from hf_gateway.embedding import EmbedAnswer, EmbedRequest, EmbedResult, Role
from hf_gateway.errors import ConfigError, InvalidRequest, SpaceMismatch
from hf_gateway.link import ChatLink, EmbedLink, Link, SeenDimension
from hf_gateway.options import ChatSettings, EmbedSettings, Task, chosen_targets, settings_of
from hf_gateway.pace import Policy
from hf_gateway.space import VectorSpace
from hf_gateway.status import Checked, TargetStatus, checked, status_of
from hf_gateway.streams import AsyncChatStream, ChatStream
from hf_gateway.target import Target
from hf_gateway.transport import HttpTransport
from hf_gateway.usage import Usage
from hf_gateway.vectors import Vectors
from hf_gateway.wire.hf_router import Capabilities

log = logging.getLogger(__name__)

PREPARED_FOR = 10.0
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
        task: Task = "embedding",
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        """Build the chain; nothing is loaded or connected to yet."""
        known = settings_of(task).model_validate({"model": model, "targets": targets, **settings})
        self._settle(known, transport, clock)

    def _settle(
        self,
        settings: EmbedSettings | ChatSettings,
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
        rules = house_rules(settings.config)
        keyed = _targets_of_key(self.targets, settings.api_key, settings)
        backends = [
            backend_class(target.kind)(
                target, settings, given_key=settings.api_key if target in keyed else None, rules=rules
            )
            for target in self.targets
        ]
        self._links: list[Link]
        if isinstance(settings, ChatSettings):
            self._links = [
                ChatLink(backend, inherits=target.model is None)
                for backend, target in zip(backends, given, strict=True)
            ]
        else:
            seen = SeenDimension()
            self._links = [EmbedLink(backend, seen=seen) for backend in backends]
        for link in self._links:
            link.alone = len(self._links) == 1
        self._chain = Chain(self._links, _policy(settings), self._clock.now)
        self._prepared_until = -math.inf
        self._told = ""
        self._observers: list[Callable[[Any], None]] = []
        self._places: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        if len(self._links) > 1 and self.task == "embedding":
            self._refuse_mixed_spaces()

    @classmethod
    def from_settings(
        cls,
        settings: EmbedSettings | ChatSettings,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Build from settings that were read elsewhere."""
        made = cls.__new__(cls)
        made._settle(settings, transport, clock)
        return made

    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: Task = "embedding", **changes: Any
    ) -> Self:
        """Build the chain `[chains.<name>]` of hf-gateway.toml; keyword arguments go over the file."""
        return cls.from_settings(settings_of(task).from_config(name, path, **changes))

    @property
    def task(self) -> Task:
        """What this chain is for."""
        return self.settings.task

    def embed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Embed n texts, in order, into (n, dim) float32.

        Raises:
            InvalidRequest: a text that is none, is empty, or cannot be written as UTF-8; nothing was sent.
            ContextOverflow: a text longer than the model takes, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error a target.
        """
        request = EmbedRequest.of(texts, role, self._embedding().truncate)
        journal, started, served = Journal(), time.perf_counter(), []
        if request.texts:
            self._prepare()
            served = self._driver.run(self._chain.serve(request, journal))
        return self._result(served, journal, time.perf_counter() - started)

    async def aembed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Do what `embed` does without blocking the event loop."""
        request = EmbedRequest.of(texts, role, self._embedding().truncate)
        journal, started, served = Journal(), time.perf_counter(), []
        if request.texts:
            async with self._place():
                await self._aprepare()
                served = await self._driver.arun(self._chain.serve(request, journal))
        return self._result(served, journal, time.perf_counter() - started)

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
        return stream.begin(self._streamed(self._answering(messages, call, stream.end)))

    def astream(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> AsyncChatStream:
        """Do what `stream` does without blocking the event loop."""
        stream = AsyncChatStream()
        return stream.begin(self._astreamed(self._answering(messages, call, stream.end)))

    def observe(self, observer: Callable[[Any], None]) -> None:
        """Have `observer` called with every `EmbedResult` or `ChatResult`, after it is complete and before the caller gets it."""
        self._observers.append(observer)

    @property
    def space(self) -> VectorSpace:
        """The vector space of this chain, as far as it is declared; read from files of this machine at most."""
        self._embedding()
        space = self._links[0].backend.space()
        for link in self._links[1:]:
            space = space.merged(link.backend.space())
        return space

    def capabilities(self, *, look_up: bool = False) -> Capabilities:
        """Say what is known of the model at the first target; what nobody said is None.

        look_up: ask a catalogue, for seconds at most, where this machine did not today; without it nothing is sent.
        """
        return self._links[0].backend.capabilities(look_up=look_up)

    def status(self) -> list[TargetStatus]:
        """Say of each target whether it may be called now, why not, and until when. Sends nothing."""
        return [status_of(link, self._clock.now()) for link in self._links]

    def check(self) -> list[Checked]:
        """Ask each target what it serves, without having it compute anything."""
        self._prepare()
        return [
            checked(
                link,
                self._clock.now(),
                lambda effects, name: self._driver.perform(effects, timeout=self._probe_time, target=name),
            )
            for link in self._links
        ]

    def close(self) -> None:
        """Close connections and let models go. The gateway can be used again afterwards."""
        for link in self._links:
            link.backend.close()
        if isinstance(self._transport, HttpTransport):
            self._transport.close()

    async def aclose(self) -> None:
        """Close, this event loop's connections too."""
        self.close()
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()

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
        """Pickle the settings; connections, models and keys stay behind."""
        return (type(self).from_settings, (self.settings,))

    @property
    def _probe_time(self) -> float:
        return min(self.settings.attempt_timeout, 10.0)

    def _result(self, served: list[tuple[EmbedAnswer, Link]], journal: Journal, seconds: float) -> EmbedResult:
        vectors = served[0][0].vectors if len(served) == 1 else Vectors.concat([answer.vectors for answer, _ in served])
        usage = sum((answer.usage for answer, _ in served), Usage(0))
        names = tuple(dict.fromkeys(link.label for _, link in served))
        if served:
            self._warn_of_fallback("embeddings served by", ", ".join(names), journal)
        result = EmbedResult(vectors, usage, names, tuple(journal.attempts), self.space, seconds)
        for observer in self._observers:
            observer(result)
        return result

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
        """Check a request at once, and return the steps that serve it; ended: who is told of the end of a stream."""
        settings = self.settings
        if not isinstance(settings, ChatSettings):
            raise ConfigError("this gateway was built for embeddings; build it as Gateway(..., task='chat')")
        request = (
            messages if isinstance(messages, ChatRequest) else ChatRequest.of(messages, settings.sampling(), **call)
        )
        if request.model is not None and not any(isinstance(link, ChatLink) and link.inherits for link in self._links):
            raise InvalidRequest(
                f"model={request.model!r} would change nothing: every target of this chain names a model of its own"
            )
        underneath = len(self._links) > 1 if settings.streaming is None else settings.streaming
        return self._chat_steps(dataclasses.replace(request, stream=underneath or ended is not None), ended)

    def _chat_steps(self, request: ChatRequest, ended: Callable[[ChatResult], None] | None) -> Steps:
        journal, started, began = Journal(), time.perf_counter(), self._clock.now()
        ((answer, link),) = yield from self._chain.serve(request, journal, deliver=ended is not None)
        self._warn_of_fallback("the answer was given by", link.label, journal)
        result = ChatResult(
            **{item.name: getattr(answer, item.name) for item in dataclasses.fields(answer)},
            served_by=link.label,
            attempts=tuple(journal.attempts),
            seconds=time.perf_counter() - started,
            first_content_seconds=journal.first_content - began if request.stream and journal.first_content else None,
        )
        for observer in self._observers:
            observer(result)
        if ended is not None:
            ended(result)
        return result

    def _streamed(self, steps: Steps) -> Generator[ChatEvent, None, Any]:
        self._prepare()
        return (yield from self._driver.stream(steps))

    async def _astreamed(self, steps: Steps) -> AsyncGenerator[ChatEvent, None]:
        await self._aprepare()
        async with contextlib.aclosing(self._driver.astream(steps, lambda _: None)) as events:
            async for event in events:
                yield event

    def _warn_of_fallback(self, served: str, name: str, journal: Journal) -> None:
        failures = [attempt for attempt in journal.attempts if attempt.outcome != "served"]
        if failures and len(self._links) > 1:
            told = "; ".join(f"{attempt.target}: {attempt.error}" for attempt in failures)
            # A key that is missing stays missing: said once, it is news no more. A call that failed is.
            news = told != self._told or any(attempt.outcome == "failed" for attempt in failures)
            log.log(logging.WARNING if news else logging.DEBUG, "%s %s, since %s", served, name, told)
            self._told = told

    async def _aprepare(self) -> None:
        if time.monotonic() >= self._prepared_until:
            await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        """Do what reads files: imports, certificates, model descriptions, logins."""
        if any(link.backend.url is not None for link in self._links) and isinstance(self._transport, HttpTransport):
            self._transport.prepare()
        for link in self._links:
            link.backend.prepare()
        self._prepared_until = time.monotonic() + PREPARED_FOR

    def _place(self) -> asyncio.Semaphore:
        """A place among the async calls under way: a framework that sends all batches at once must not flood a server."""
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:
            self._places = {known: kept for known, kept in self._places.items() if not known.is_closed()}
            place = self._places[loop] = asyncio.Semaphore(self._embedding().max_concurrency)
        return place

    def _refuse_mixed_spaces(self) -> None:
        first, *others = self._links
        known = first.backend.space()
        for link in others:
            space = link.backend.space()
            if differences := known.differences(space):
                lines = "".join(f"\n  - {difference}" for difference in differences)
                raise SpaceMismatch(
                    f"the targets {first.label!r} and {link.label!r} do not share one vector space, so vectors of one could "
                    f"not be compared with vectors of the other:{lines}\nWays out: give both the same model; leave one of "
                    "them out; or, if they are the same in truth, declare it: "
                    f"Target({link.backend.target.kind!r}, ..., space=VectorSpace({known.model!r}))"
                )
            known = known.merged(space)


def _policy(settings: EmbedSettings | ChatSettings) -> Policy:
    if isinstance(settings, EmbedSettings):
        return Policy(settings.timeout, settings.attempt_timeout, settings.connect_timeout, settings.max_retries)
    return Policy(
        settings.timeout,
        settings.timeout,  # an answer that is not streamed shows no progress until it is complete
        settings.connect_timeout,
        settings.max_retries,
        settings.patience,
        settings.attempt_timeout,
        settings.first_content_timeout,
        settings.stall_timeout,
        settings.next_on_content_filter,
    )


def _targets_of_key(
    targets: Sequence[Target], api_key: Secret | None, settings: EmbedSettings | ChatSettings
) -> list[Target]:
    """Say which targets the class's one key is meant for: Hugging Face's hosts, or the one server of the caller's own.

    Raises ConfigError when it could be meant for several servers, or would go to a host that nobody bound it to.
    """
    if api_key is None:
        return []
    probes = [
        (target, backend_class(target.kind)(target, settings).key_url)
        for target in targets
        if target.credential is None
    ]
    ours = [target for target, url in probes if url is not None and is_hugging_face(url)]
    theirs = [
        (target, url)
        for target, url in probes
        if url is not None and not is_hugging_face(url) and target.url is not None
    ]
    if api_key.reveal().startswith("hf_") or (ours and not theirs):
        if not ours and theirs:
            target = theirs[0][0]
            raise ConfigError(
                f"api_key is a Hugging Face token, and it is not sent to {target.label!r} by itself; "
                f"if it is meant for that server, bind it: Target({target.kind!r}, url={target.url!r}, credential=...)"
            )
        return ours
    origins = {origin_of(url) for _, url in theirs if url is not None}
    if len(origins) > 1:
        raise ConfigError(
            f"api_key could be meant for {len(origins)} servers ({', '.join(sorted(origins))}); "
            "give each its own: Target(..., credential=...)"
        )
    return [target for target, _ in theirs]
