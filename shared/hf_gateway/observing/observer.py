"""What happened, told to whoever keeps books or draws curves: an `Observation` a request, with a `AttemptRecord` an attempt.

Who wants to know is a `Watcher`. While there is none, nothing of this is made.
"""

import contextlib
import contextvars
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Await, Steps
from hf_gateway.errors import GatewayError
from hf_gateway.values.chat import ChatRequest, ChatResult
from hf_gateway.values.embedding import EmbedRequest, EmbedResult
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage

log = logger(__name__)


@dataclass(frozen=True)
class Tags:
    """On whose behalf a call is made."""

    tenant: str | None = None
    user: str | None = None


_NOBODY = Tags()
_tags: contextvars.ContextVar[Tags] = contextvars.ContextVar("hf_gateway_tags", default=_NOBODY)


@contextlib.contextmanager
def tagged(tenant: object = None, user: object = None) -> Iterator[Tags]:
    """Make every call within on behalf of a tenant and a user; what is not given stays as it was outside.

    What is no string goes by its `str()`, in the ledger and for budgets alike: 42 is the tenant "42".

    Example:
        ```python
        with tagged(tenant="acme"):
            embeddings.embed_query("Who is billed for this?")
        ```
    """
    outside = _tags.get()
    tags = Tags(outside.tenant if tenant is None else _name(tenant), outside.user if user is None else _name(user))
    token = _tags.set(tags)
    try:
        yield tags
    finally:
        _tags.reset(token)


def _name(value: object) -> str:
    # A member of an enumeration of strings is its string, by which a budget knows it.
    return str.__str__(value) if isinstance(value, str) else str(value)


def tags() -> Tags:
    """Return on whose behalf calls are made here."""
    return _tags.get()


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at one target.

    outcome: "skipped" when nothing was sent, "split" when the server wanted smaller batches; started: by the observation's own
    clock (`Observation.began`), in seconds; first_content_seconds: from there to the first content of a stream; usage: what the
    server counted, if it answered; model, provider, request_id: by the server's own word; asked: the model that was asked for,
    where that is not the target's own.
    """

    target: Target
    outcome: Literal["served", "failed", "skipped", "split", "cancelled"]
    error: GatewayError | None = None
    started: float = 0.0
    seconds: float = 0.0
    first_content_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None
    asked: str | None = None


@dataclass
class Observation:
    """One request, from when it was checked until its caller has the result, the error, or went away.

    Before the call: task; chain (the name it has in the config file, or None); model (as asked for); targets; request; tags;
    streamed (whether the caller takes pieces); time (seconds since the epoch); began (seconds of the gateway's clock).

    After it: outcome; error; tried (every attempt, in the order in which they ended); usage (what the attempts that served
    used, None where a server did not say); result (None where there is none); shared (another request's attempt brought the
    vectors, and its observation has the attempt and the tokens); looked_up (how many different texts of an embedding request
    were looked for in a cache), cached_texts (how many of them were there); space_id; seconds; first_content_seconds.

    waits: what has to be done before anything is sent; a watcher that would have to wait in `begin` adds a future instead, whose
    result is None, or the error that is to be the caller's.

    notes: for watchers, to keep what they need from `begin` to `end`; each under a key of its own.
    """

    task: str
    chain: str | None
    model: str | None
    targets: tuple[Target, ...]
    request: EmbedRequest | ChatRequest
    streamed: bool
    time: float
    began: float
    tags: Tags = field(default_factory=tags)
    outcome: Literal["ok", "failed", "cancelled"] = "ok"
    error: BaseException | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    result: EmbedResult | ChatResult | None = None
    shared: bool = False
    looked_up: int = 0
    cached_texts: int = 0
    space_id: str | None = None
    seconds: float = 0.0
    first_content_seconds: float | None = None
    waits: list[Future[BaseException | None]] = field(default_factory=list)
    notes: dict[Any, Any] = field(default_factory=dict)


class Watcher(Protocol):
    """Is told of every request of the process. Called in the caller's thread, or on its event loop: it must not wait."""

    def begin(self, observation: Observation) -> None:
        """Hear of a request before anything is sent. A GatewayError raised here is the caller's, and nothing is sent.

        Then everybody else hears that it begins and that it failed; who raised it hears no more.
        """

    def end(self, observation: Observation) -> None:
        """Hear of its end, also where `begin` was interrupted; what is raised here is logged and nothing more."""


Result = TypeVar("Result", EmbedResult, ChatResult)

_lock = fork_lock()
watchers: tuple[Watcher, ...] = ()
"""Everybody who watches now; replaced as a whole, so that it can be read without a lock."""


gateways: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Every gateway of the process that is still in use."""


def register(watcher: Watcher) -> None:
    """Have all gateways of this process watched; one that is there already stays once."""
    global watchers
    with _lock:
        if watcher not in watchers:
            watchers = (*watchers, watcher)


def unregister(watcher: Watcher) -> None:
    """Watch no more."""
    global watchers
    with _lock:
        watchers = tuple(known for known in watchers if known is not watcher)


class ObservedCall:
    """One request while it is watched: `with Watch(observation) as watch`, and `watch.done(result)` at its end."""

    def __init__(self, observation: Observation, clock: Any) -> None:
        """clock: gives the seconds of `observation.began`."""
        self.observation = observation
        self.attempt_log = AttemptLog(watched=self._record_attempt)
        self._clock = clock
        self._watching: list[Watcher] = []

    def __enter__(self) -> "ObservedCall":
        """Tell that it begins. Raises a watcher's GatewayError, after all others were told of the begin and of that end."""
        refused: list[GatewayError] = []
        try:
            for watcher in watchers:
                self._watching.append(watcher)
                try:
                    self._notify(watcher.begin)
                except GatewayError as error:
                    self._watching.pop()
                    refused.append(error)
            if refused:
                raise refused[0]
        except BaseException as error:
            # Ctrl-C, too: whoever was told of a begin has something open.
            self.__exit__(type(error), error, None)
            refused.clear()
            raise
        return self

    def begun(self) -> Steps:
        """Wait for what the watchers wait for. Raises a watcher's GatewayError."""
        for future in self.observation.waits:
            yield Await(future)
            if (refused := future.result()) is not None:
                raise refused

    def done(self, result: Result, looked_up: int = 0) -> Result:
        """Take the result, and give it back. looked_up: how many texts were looked for in a cache."""
        seen = self.observation
        seen.result, seen.usage, seen.looked_up = result, result.usage, looked_up
        if isinstance(result, EmbedResult):
            seen.shared, seen.cached_texts, seen.space_id = result.shared, result.cached, result.space.id
        else:
            seen.first_content_seconds = result.first_content_seconds
        return result

    def _record_attempt(
        self,
        candidate: Any,
        outcome: Any,
        error: GatewayError | None,
        started: float,
        seconds: float,
        first_content: float | None,
        answer: Any,
    ) -> None:
        target: Target = candidate.target
        first = first_content - started if first_content is not None and first_content >= started else None
        asked = getattr(self.observation.request, "model", None) if getattr(candidate, "inherits", False) else None
        if answer is None:
            tried = AttemptRecord(target, outcome, error, started, seconds, first, asked=asked)
        else:
            said = (answer.usage, answer.model, answer.provider, answer.request_id)
            tried = AttemptRecord(target, outcome, error, started, seconds, first, *said, asked)
        self.observation.attempts.append(tried)

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Tell of the end."""
        seen = self.observation
        seen.seconds = self._clock() - seen.began
        seen.error = error
        if error is not None:
            seen.outcome = "failed" if isinstance(error, Exception) else "cancelled"
        if seen.result is None:
            served = [each.usage for each in seen.attempts if each.outcome == "served"]
            seen.usage = sum(served, Usage(0, 0, cost_usd=Decimal(0))) if served else Usage()
        untold = iter(self._watching)
        try:
            for watcher in untold:
                self._notify(watcher.end)
        except BaseException:
            for watcher in untold:
                self._notify(watcher.end)
            raise

    def _notify(self, tell: Any) -> None:
        try:
            tell(self.observation)
        except GatewayError:
            if tell.__name__ == "begin":
                raise
            log.exception("a watcher of calls failed")
        except Exception:
            log.exception("a watcher of calls failed, and the call goes on without it")
