"""All errors, as a closed set of classes; `wire.classify` maps a server's answer to them.

    GatewayError
    ├── ConfigError             the settings are invalid; raised while a class or a chain is built
    │   └── SpaceMismatch       two targets, or a server and its target, do not share one vector space
    ├── InvalidRequest          the caller's input is at fault; no other target would do better
    │   └── ContextOverflow     a text is longer than the target accepts
    ├── ContentFiltered         the provider refuses the content
    ├── BatchTooLarge           too many texts or bytes at once; the chain divides the batch and continues
    ├── StreamInterrupted       a stream that broke after its first content reached the caller
    └── Unavailable             the request was valid, and no target could serve it; also called EmbeddingUnavailable
        ├── Quarantined         a target whose vectors were measured, and are of another space (also a SpaceMismatch)
        ├── AuthenticationFailed    401, or a 400 that speaks of the key
        │   └── KeyMissing      a required key is missing; nothing was sent
        ├── PermissionDenied    403
        │   └── GatedModel      the model's licence has to be accepted first
        ├── PaymentRequired     402
        ├── BudgetExceeded      the tenant's budget is used up; nothing was sent
        ├── BudgetUnavailable   the tenant has a budget that cannot be read; nothing was sent
        ├── ModelNotFound       404, or a server that does not have the model
        │   └── Unsupported     the server or its model cannot do this: embeddings, tools, images; 501
        ├── RateLimited         429
        ├── ModelLoading        the server is there, the model is not yet
        ├── Overloaded          503, 529
        ├── ServerError         424 and every other 5xx
        │   └── EngineFailed    the same, inside this process
        │       └── EngineMissing   the extra that brings the engine is not installed
        ├── ConnectFailed       nothing listens, the name does not resolve, the connection broke before an answer
        ├── AttemptTimedOut     connected, but no whole answer in time
        ├── BadResponse         an invalid answer: HTML, invalid JSON, wrong count, NaN
        │   ├── BadGeneration   the model wrote a tool call or JSON that its own server cannot read
        │   └── StreamBroken    a stream that broke, stalled or ended early before anything of it reached the caller
        ├── DeadlineExceeded    the time for the whole request is up
        └── AllTargetsFailed    more than one target was tried, and none answered

The chain never looks at a status code: it reads from the class what may be done (`retries`, `try_next`, `waits`, `counts`).
None of them is a ValueError, RuntimeError or another built-in class: frameworks catch those for other purposes, and an error
would become an empty answer, another attempt or another error.
"""

import copy
import datetime as dt
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

# C0 and C1, which control a terminal or begin a line; marks that change the direction of text; lone surrogates, which no stream
# can encode. Joiners of letters and emojis (U+200C, U+200D) are part of texts.
_INVISIBLE = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_IN_A_NAME = re.compile(f"[{_INVISIBLE}]")
_IN_A_TEXT = re.compile(rf"(?![\n\t])[{_INVISIBLE}]")
_NEW_LINE = re.compile(r"\n(?![ \t]|$)")


def visible(text: str, *, lines: bool = False) -> str:
    """Return foreign text with control characters escaped, so that it is safe for a terminal or a log.

    Args:
        text: from a server, a file or the environment.
        lines: keep line breaks and tabs, for texts of several lines; otherwise the text cannot begin a line of its own.
    """
    if lines:
        return _IN_A_TEXT.sub(_escaped, text.replace("\r\n", "\n"))
    return _IN_A_NAME.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


@dataclass(frozen=True)
class Attempt:
    """Attempts at one target, as listed in results and errors; consecutive ones with the same result are merged."""

    target: str
    """The target's label."""
    outcome: str
    """"served", "failed", or "skipped" if no request was sent."""
    error: str | None = None
    """The class name and the message of the error."""
    seconds: float = 0.0
    """Total duration of the calls."""
    calls: int = 1
    """How many consecutive calls to this target had this result."""


class GatewayError(Exception):
    """Base class of every error of this package.

    Attributes:
        target: label of the target it occurred at, or None.
        status: HTTP status of the answer, if there was one.
        retry_after: seconds after which the target asked to be called again, or None.
        attempts: all attempts before this was raised.
    """

    retries: ClassVar[bool] = False
    """Whether another call to the same target, at once, may succeed."""
    waits: ClassVar[bool] = False
    """Whether the target will be able to answer later; it often reports when."""
    try_next: ClassVar[bool] = True
    """Whether another target may succeed."""
    counts: ClassVar[bool] = True
    """Whether it is the target's fault, so that its circuit breaker counts it."""

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Store the message for users and the facts for the chain."""
        self.message = message
        super().__init__(self.message)
        self.target = target
        self.status = status
        self.retry_after = retry_after
        self.attempts: tuple[Attempt, ...] = ()

    @property
    def message(self) -> str:
        """What happened, escaped for a terminal and a log, since a server may have written it."""
        return self._message

    @message.setter
    def message(self, words: str) -> None:
        # Lists within a message are indented, so a line that is not was begun by a server.
        self._message = _NEW_LINE.sub(r"\\n", visible(words, lines=True))

    def __str__(self) -> str:
        """Return the message, preceded by the target unless the message contains it."""
        if self.target and self.target not in self.message:
            return f"{self.target}: {self.message}"
        return self.message

    def restated(self, message: str, retry_after: float | None) -> Self:
        """Return an error of the same class with another message, for a target that still has the problem.

        Args:
            message: the new message.
            retry_after: the remaining seconds.
        """
        again = copy.copy(self)
        again.message, again.retry_after = message, retry_after
        again.args = (again.message,)
        return again

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle completely, for other processes."""
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(kind: type[GatewayError], args: tuple[Any, ...], state: dict[str, Any]) -> GatewayError:
    error = kind.__new__(kind, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ConfigError(GatewayError):
    """The settings, a target or a configuration file are invalid.

    Not a ValueError, since pydantic would wrap it in a ValidationError of its own.

    Attributes:
        together: names of settings of which each alone may be right.
    """

    try_next = False
    counts = False

    def __init__(self, message: str, *, together: Sequence[str] = (), **facts: Any) -> None:
        """Store the facts."""
        super().__init__(message, **facts)
        self.together = tuple(together)


class SpaceMismatch(ConfigError):
    """Two vector spaces would be mixed. The message says which field differs and what to do."""


class InvalidRequest(GatewayError):
    """The caller's input is at fault: the same error at every target.

    Not a ValueError: frameworks take those for a parser's, and return an empty answer for a refused request.

    Attributes:
        place: index of the input in the call, if it is known.
    """

    try_next = False
    counts = False

    def __init__(self, message: str, *, place: int | None = None, **facts: Any) -> None:
        """Store the facts."""
        super().__init__(message, **facts)
        self.place = place

    def of_input(self, place: int, count: int, noun: str = "text") -> Self:
        """Return the same error for an input of a call.

        Args:
            place: the index.
            count: how many inputs the call has.
            noun: what an input is called.
        """
        named, words = f"{noun} {place} of {count}:", self.message
        if self.place is not None:  # the message begins with the input's name within a smaller call
            total, _, words = self.message.partition(f" {self.place} of ")[2].partition(" ")
            named = named if total.endswith(":") else named.removesuffix(":")
        found = self.restated(f"{named} {words}", self.retry_after)
        found.place = place
        return found


class ContextOverflow(InvalidRequest):
    """A text is longer than the target's model accepts.

    Attributes:
        limit: tokens that the target accepts, if it reported that.
        length: tokens of the text or conversation, if the target counted them.
    """

    try_next = True

    def __init__(
        self,
        message: str,
        *,
        limit: int | None = None,
        length: int | None = None,
        **facts: Any,
    ) -> None:
        """Store the facts."""
        super().__init__(message, **facts)
        self.limit = limit
        self.length = length


class ContentFiltered(GatewayError):
    """The provider's content policy refused the request; the reason is the provider's own."""

    try_next = False
    counts = False


class BatchTooLarge(GatewayError):
    """Too much at once. The chain divides the batch and continues with the same target.

    Attributes:
        max_texts, max_bytes: the known limits; without any, half of the batch is tried.
    """

    try_next = False
    counts = False

    def __init__(
        self, message: str, *, max_texts: int | None = None, max_bytes: int | None = None, **facts: Any
    ) -> None:
        """Store the limits."""
        super().__init__(message, **facts)
        self.max_texts = max_texts
        self.max_bytes = max_bytes


class Unavailable(GatewayError):
    """A target, or all targets of a chain, could not serve a valid request.

    Under its other name, `EmbeddingUnavailable`, it is what a retriever catches to search by keywords instead, which is correct
    where vectors of another model would not be.
    """


EmbeddingUnavailable = Unavailable


class Quarantined(SpaceMismatch, Unavailable):
    """A target's vectors were measured and belong to another space: none of them is returned. Another target may serve."""

    try_next = True


class AuthenticationFailed(Unavailable):
    """The key was refused."""


class KeyMissing(AuthenticationFailed):
    """A required key is missing. Raised before anything is sent."""

    counts = False


class PermissionDenied(Unavailable):
    """The key is known but may not do this."""


class GatedModel(PermissionDenied):
    """The model's licence has to be accepted on its page first."""


class PaymentRequired(Unavailable):
    """The account's credits are used up. Other targets billed to the same account are skipped."""


class BudgetExceeded(Unavailable):
    """A budget of the caller's own organisation does not allow the request. Raised before anything is sent to any target.

    Attributes:
        tenant: whose budget, "*" for all tenants; period: "day" or "month".
        limit, spent, reserved, needed: USD: the budget of the period, what was spent, what requests under way may still
            spend, and
            the maximum of this request; None for `needed` if its price is unknown.
        resets: when the next period begins, in UTC.
    """

    try_next = False
    counts = False

    def __init__(
        self,
        message: str,
        *,
        tenant: str = "*",
        period: str = "day",
        limit: Decimal = Decimal(0),
        spent: Decimal = Decimal(0),
        reserved: Decimal = Decimal(0),
        needed: Decimal | None = None,
        resets: dt.datetime | None = None,
        **facts: Any,
    ) -> None:
        """Take the budget and the amounts along."""
        super().__init__(message, **facts)
        self.tenant, self.period, self.resets = tenant, period, resets
        self.limit, self.spent, self.reserved, self.needed = limit, spent, reserved, needed


class BudgetUnavailable(Unavailable):
    """The tenant has a budget, and the database with its balance cannot be read. Nothing is sent."""

    try_next = False
    counts = False


class ModelNotFound(Unavailable):
    """The target does not have this model, or the model cannot do this task."""


class Unsupported(ModelNotFound):
    """The server, or its model there, cannot do what this request needs: embeddings, tools, images, a template.

    Its circuit breaker does not count it, since other requests may need less.
    """

    counts = False


class RateLimited(Unavailable):
    """Too many requests. The target rests until the time that it asked for."""

    waits = True
    counts = False


class ModelLoading(Unavailable):
    """The server is up and still loading the model."""

    waits = True
    counts = False


class Overloaded(Unavailable):
    """The server is up and too busy."""

    retries = True


class ServerError(Unavailable):
    """The server failed."""

    retries = True


class EngineFailed(ServerError):
    """The model in this process failed; the same input would fail again."""

    retries = False


class EngineMissing(EngineFailed):
    """The package that runs models in this process is not installed; the message contains the `pip install` line."""


class ConnectFailed(Unavailable):
    """No answer at all: refused, unknown host, TLS failure, or a connection that broke."""

    retries = True


class AttemptTimedOut(Unavailable):
    """The server accepted the request and did not answer in time. Not retried: it may still be working on it."""


class BadResponse(Unavailable):
    """The answer violates the protocol: HTML, invalid JSON, wrong count, wrong dimension, NaN, zeros."""


class BadGeneration(BadResponse):
    """The model wrote a tool call or JSON that its own server cannot parse. The request was valid, so it is retried.

    Attributes:
        failed_generation: the model's output, if the server reported it.
    """

    retries = True
    counts = False

    def __init__(self, message: str, *, failed_generation: str | None = None, **facts: Any) -> None:
        """Store the model's output."""
        super().__init__(message, **facts)
        self.failed_generation = failed_generation


class StreamBroken(BadResponse):
    """A stream broke, stalled, or ended without a finish reason, and none of it has reached the caller.

    So the next target can start again; what had arrived is discarded, never returned as a whole answer.
    """


class StreamInterrupted(GatewayError):
    """A stream broke after its first content reached the caller.

    Attributes:
        partial: the text so far.
    """

    try_next = False

    def __init__(self, message: str, *, partial: str = "", **facts: Any) -> None:
        """Store the text so far."""
        super().__init__(message, **facts)
        self.partial = partial


class DeadlineExceeded(Unavailable):
    """The time for the whole request is up, over all targets and retries.

    Not a TimeoutError, which code that awaits a task with a limit would take for the end of that limit.
    """

    try_next = False
    counts = False


class AllTargetsFailed(Unavailable):
    """None of several targets could serve.

    Attributes:
        errors: one error per target, in chain order.
    """

    try_next = False
    counts = False

    def __init__(self, errors: Sequence[GatewayError]) -> None:
        """List every target with its error."""
        lines = "".join(f"\n  - {error.target}: {type(error).__name__}: {error.message}" for error in errors)
        super().__init__(f"none of the {len(errors)} targets could serve the request:{lines}")
        self.errors = tuple(errors)
        waits = [error.retry_after for error in errors if error.retry_after is not None]
        self.retry_after = min(waits) if waits else None


MAX_COMPARED_CHARS = 1000
"""Characters of an unknown name up to which the nearest known one is looked for."""


def did_you_mean(name: str, names: "set[str] | list[str]") -> str:
    """Return '; did you mean …?' with the nearest known name, or a list of the names if none is near.

    Args:
        name: the unknown name.
        names: the known names.
    """
    # To compare takes time by the length of the name, which a server's caller chooses.
    near = len(name) <= MAX_COMPARED_CHARS
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6) if near else []
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(names))}"
