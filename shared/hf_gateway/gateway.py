"""Gateway: a chain of targets behind four methods, each blocking and async. What both frameworks' classes stand on."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hf_gateway.backends import backend_class
from hf_gateway.backends.base import Report
from hf_gateway.chain import Chain, Journal, Policy
from hf_gateway.config import EmbedSettings, chosen_targets, house_rules
from hf_gateway.credentials import Secret, is_hugging_face, origin_of
from hf_gateway.drive import Clock, Driver, Transport
from hf_gateway.embedding import EmbedAnswer, EmbedRequest, EmbedResult, Role, Usage
from hf_gateway.errors import ConfigError, GatewayError, SpaceMismatch
from hf_gateway.key_policy import Access, fix
from hf_gateway.link import Link, SeenDimension
from hf_gateway.space import VectorSpace
from hf_gateway.target import Target
from hf_gateway.transport import HttpTransport
from hf_gateway.vectors import Vectors

log = logging.getLogger(__name__)

PREPARED_FOR = 10.0
"""Seconds for which async calls believe what was read from files; blocking calls look each time."""


@dataclass(frozen=True)
class TargetStatus:
    """One target as it stands now, without asking it.

    ready: may be called; reason: why not; retry_in: seconds until it may be; needs_key, key_reason: the policy's answer;
    key_source: where a key was found (never the key), or None.
    """

    target: str
    ready: bool
    reason: str | None
    retry_in: float | None
    needs_key: str
    key_reason: str
    key_source: str | None
    fix: str | None


@dataclass(frozen=True)
class Checked:
    """One target after it was asked. status: as above; answers: whether it did; report: what it serves; error: why not."""

    status: TargetStatus
    answers: bool
    report: Report
    error: str | None


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
        settings: every other field of `EmbedSettings`, such as `dimensions`, `truncate`, `timeout`, `api_key`.

    Raises:
        ConfigError: settings that make no sense; SpaceMismatch: targets that would answer in different vector spaces.
    """

    def __init__(
        self,
        model: str | None = None,
        targets: Sequence[str | Target] | str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        """Build the chain; nothing is loaded or connected to yet."""
        self._settle(EmbedSettings.model_validate({"model": model, "targets": targets, **settings}), transport, clock)

    def _settle(self, settings: EmbedSettings, transport: Transport | None = None, clock: Clock | None = None) -> None:
        self.model, self.targets = chosen_targets(settings, settings.model)
        # With what the environment decided, so that a pickle of this gateway is the same chain elsewhere.
        self.settings = settings.model_copy(update={"model": self.model, "targets": self.targets})
        self._clock = clock or Clock()
        self._transport = transport or HttpTransport()
        self._driver = Driver(self._transport, self._clock, settings.connect_timeout)
        rules = house_rules(settings.config)
        seen = SeenDimension()
        keyed = _targets_of_key(self.targets, settings.api_key, settings)
        self._links = [
            Link(
                backend_class(target.kind)(
                    target, settings, given_key=settings.api_key if target in keyed else None, rules=rules
                ),
                seen,
            )
            for target in self.targets
        ]
        self._chain = Chain(
            self._links,
            Policy(settings.timeout, settings.attempt_timeout, settings.connect_timeout, settings.max_retries),
            self._clock.now,
        )
        self._prepared_until = -math.inf
        self._observers: list[Callable[[EmbedResult], None]] = []
        self._places: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        if len(self._links) > 1:
            self._refuse_mixed_spaces()

    @classmethod
    def from_settings(
        cls, settings: EmbedSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> Self:
        """Build from settings that were read elsewhere."""
        made = cls.__new__(cls)
        made._settle(settings, transport, clock)
        return made

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Any) -> Self:
        """Build the chain `[chains.<name>]` of hf-gateway.toml; keyword arguments go over the file."""
        return cls.from_settings(EmbedSettings.from_config(name, path, **changes))

    def embed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Embed n texts, in order, into (n, dim) float32.

        Raises:
            InvalidRequest: a text that is none, is empty, or cannot be written as UTF-8; nothing was sent.
            ContextOverflow: a text longer than the model takes, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error a target.
        """
        request = EmbedRequest.of(texts, role, self.settings.truncate)
        journal, started, served = Journal(), time.perf_counter(), []
        if request.texts:
            self._prepare()
            served = self._driver.run(self._chain.serve(request, journal))
        return self._result(served, journal, time.perf_counter() - started)

    async def aembed(self, texts: Iterable[str], *, role: Role = "document") -> EmbedResult:
        """Do what `embed` does without blocking the event loop."""
        request = EmbedRequest.of(texts, role, self.settings.truncate)
        journal, started, served = Journal(), time.perf_counter(), []
        if request.texts:
            async with self._place():
                if time.monotonic() >= self._prepared_until:
                    await asyncio.to_thread(self._prepare)
                served = await self._driver.arun(self._chain.serve(request, journal))
        return self._result(served, journal, time.perf_counter() - started)

    def observe(self, observer: Callable[[EmbedResult], None]) -> None:
        """Have `observer` called with every result, after it is complete and before the caller gets it."""
        self._observers.append(observer)

    @property
    def space(self) -> VectorSpace:
        """The vector space of this chain, as far as it is declared; read from files of this machine at most."""
        space = self._links[0].backend.space()
        for link in self._links[1:]:
            space = space.merged(link.backend.space())
        return space

    def status(self) -> list[TargetStatus]:
        """Say of each target whether it may be called now, why not, and until when. Sends nothing."""
        return [self._status(link) for link in self._links]

    def check(self) -> list[Checked]:
        """Ask each target what it serves, without having it compute anything."""
        self._prepare()
        return [
            self._checked(
                link, lambda effects, name: self._driver.perform(effects, timeout=self._probe_time, target=name)
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
        failures = [attempt for attempt in journal.attempts if attempt.outcome != "served"]
        if served and failures and len(self._links) > 1:
            told = "; ".join(f"{attempt.target}: {attempt.error}" for attempt in failures)
            log.warning("embeddings served by %s, since %s", ", ".join(names), told)
        result = EmbedResult(vectors, usage, names, tuple(journal.attempts), self.space, seconds)
        for observer in self._observers:
            observer(result)
        return result

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
            place = self._places[loop] = asyncio.Semaphore(self.settings.max_concurrency)
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

    def _status(self, link: Link, access: Access = "unknown") -> TargetStatus:
        backend, now = link.backend, self._clock.now()
        needed = backend.key_requirement(access)
        credential = backend.credential()
        way = fix(backend.target, needed, credential, backend.key_url)
        state = link.breaker.state(now)
        blocked = state.state in ("open", "resting")
        return TargetStatus(
            target=link.label,
            ready=way is None and not blocked,
            reason=way or (f"{state.state}: {state.reason}" if blocked else None),
            retry_in=max(0.0, state.until - now) if blocked and state.until is not None else None,
            needs_key=needed.level.value,
            key_reason=needed.reason,
            key_source=credential.source if credential is not None else None,
            fix=way,
        )

    def _checked(self, link: Link, perform: Any) -> Checked:
        status = self._status(link)
        if status.fix is not None:
            return Checked(status, False, Report(), status.fix)
        try:
            report: Report = perform(link.backend.probe(), link.label)
        except GatewayError as error:
            return Checked(status, False, Report(), error.message)
        if report.access != "unknown":
            status = self._status(link, report.access)
        return Checked(status, status.fix is None, report, status.fix)


def _targets_of_key(targets: Sequence[Target], api_key: Secret | None, settings: EmbedSettings) -> list[Target]:
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
