"""Everything that can go wrong, as a closed set of classes; `wire.classify` sorts a server's answer into it.

    GatewayError
    ├── ConfigError             the settings do not make sense; raised while a class or a chain is built
    │   └── SpaceMismatch       two targets, or a server and its target, do not share one vector space
    ├── InvalidRequest          the caller's input is at fault; no other target would do better
    │   └── ContextOverflow     a text is longer than the target takes
    ├── ContentFiltered         the provider refuses the content
    ├── BatchTooLarge           too many texts or bytes at once; the chain splits and goes on
    ├── StreamInterrupted       a stream that broke after its first content reached the caller
    └── Unavailable             the request was right, and nobody could serve it; also called EmbeddingUnavailable
        ├── Quarantined         a target whose vectors were measured, and are of another space (also a SpaceMismatch)
        ├── AuthenticationFailed    401, or a 400 that speaks of the key
        │   └── KeyMissing      a key is needed and there is none; nothing was sent
        ├── PermissionDenied    403
        │   └── GatedModel      the model's licence has to be accepted first
        ├── PaymentRequired     402
        ├── BudgetExceeded      what the tenant may spend is spent; nothing was sent
        ├── BudgetUnavailable   there is a budget, and what is left of it cannot be found out; nothing was sent
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
        ├── BadResponse         an answer that is not one: HTML, no JSON, wrong count, NaN
        │   ├── BadGeneration   the model wrote a tool call or JSON that its own server cannot read
        │   └── StreamBroken    a stream that broke, stalled or ended early before anything of it reached the caller
        ├── DeadlineExceeded    the time for the whole request is up
        └── AllTargetsFailed    more than one target was tried, and none answered

The chain never looks at a status code: it asks the class what may be done (`retries`, `try_next`, `waits`, `counts`).
None of them is a ValueError, RuntimeError or another built-in class: frameworks catch those for reasons of their own, and an
error would become an empty answer, another attempt or another error.
"""

import copy
import datetime as dt
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

# C0 and C1, which command a terminal or start a line; what turns the direction of a line; halves of characters, which no stream
# takes. What joins letters and emojis (U+200C, U+200D) is a part of texts.
_INVISIBLE = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_IN_A_NAME = re.compile(f"[{_INVISIBLE}]")
_IN_A_TEXT = re.compile(rf"(?![\n\t])[{_INVISIBLE}]")
_NEW_LINE = re.compile(r"\n(?![ \t]|$)")


def visible(text: str, *, lines: bool = False) -> str:
    """Return foreign text as a terminal or a log may take it: what would command it is written out by its number.

    Args:
        text: what a server, a file or the environment said.
        lines: keep line breaks and tabs, for texts of several lines; without it the text cannot start a line of its own.
    """
    if lines:
        return _IN_A_TEXT.sub(_escaped, text.replace("\r\n", "\n"))
    return _IN_A_NAME.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


@dataclass(frozen=True)
class Attempt:
    """One try at one target, as results and errors list it.

    outcome: "served", "failed", or "skipped" when nothing was sent; error: the class name and the message; seconds: how long
    the calls took together; calls: how many calls to this target were answered in a row this way.
    """

    target: str
    outcome: str
    error: str | None = None
    seconds: float = 0.0
    calls: int = 1


class GatewayError(Exception):
    """What every error of this package is.

    Attributes:
        target: label of the target it happened at, or None.
        status: HTTP status, where there was one.
        retry_after: seconds after which the target asked to be tried again, or None.
        attempts: what was tried before this was raised.
    """

    retries: ClassVar[bool] = False
    """Another try at the same target, at once, may help."""
    waits: ClassVar[bool] = False
    """The target will be able to answer later and often says when."""
    try_next: ClassVar[bool] = True
    """Another target may do better."""
    counts: ClassVar[bool] = True
    """It is the target's fault, so its circuit breaker counts it."""

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep the message for the reader and the facts for the chain."""
        self.message = message
        super().__init__(self.message)
        self.target = target
        self.status = status
        self.retry_after = retry_after
        self.attempts: tuple[Attempt, ...] = ()

    @property
    def message(self) -> str:
        """What happened, in words that are safe for a terminal and a log, also where a server wrote them."""
        return self._message

    @message.setter
    def message(self, words: str) -> None:
        # Lists within a message are indented, so a line that is not was started by a server.
        self._message = _NEW_LINE.sub(r"\\n", visible(words, lines=True))

    def __str__(self) -> str:
        """Name the target first, unless the message does."""
        if self.target and self.target not in self.message:
            return f"{self.target}: {self.message}"
        return self.message

    def restated(self, message: str, retry_after: float | None) -> Self:
        """Return an error of the same class with another message, for a target that still suffers from it."""
        again = copy.copy(self)
        again.message, again.retry_after = message, retry_after
        again.args = (again.message,)
        return again

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors cross process borders whole."""
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(kind: type[GatewayError], args: tuple[Any, ...], state: dict[str, Any]) -> GatewayError:
    error = kind.__new__(kind, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ConfigError(GatewayError):
    """The settings, a target or a configuration file do not make sense.

    Not a ValueError, or pydantic would bury it in a ValidationError of its own.
    """

    try_next = False
    counts = False


class SpaceMismatch(ConfigError):
    """Two vector spaces would be mixed. Says which field differs and what the ways out are."""


class InvalidRequest(GatewayError):
    """The caller's input is at fault: it fails at once, everywhere the same.

    Not a ValueError: frameworks catch those as a parser's, and make an empty answer of a refused request.
    """

    try_next = False
    counts = False


class ContextOverflow(InvalidRequest):
    """A text is longer than the target's model takes.

    Attributes:
        limit: tokens the target takes, where it said so.
        length: tokens of the text or conversation, where the target counted them.
        place: which text of the call it is, counted from 0, where that is known.
    """

    try_next = True

    def __init__(
        self,
        message: str,
        *,
        limit: int | None = None,
        length: int | None = None,
        place: int | None = None,
        **facts: Any,
    ) -> None:
        """Take the facts along."""
        super().__init__(message, **facts)
        self.limit = limit
        self.length = length
        self.place = place

    def of_text(self, place: int, count: int) -> Self:
        """Return the same error of the text at this place, counted from 0, among so many of a call."""
        named = f"text {place} of {count}"
        words = (
            self.message
            if self.place is None
            else self.message.removeprefix(f"text {self.place} of ").partition(" ")[2]
        )
        found = self.restated(f"{named}: {words}" if self.place is None else f"{named} {words}", self.retry_after)
        found.place = place
        return found


class ContentFiltered(GatewayError):
    """The provider's content policy refused the request; the reason is the provider's own."""

    try_next = False
    counts = False


class BatchTooLarge(GatewayError):
    """Too much at once. The chain splits the batch and goes on with the same target.

    Attributes:
        max_texts, max_bytes: what fits, where it is known; with neither, half is tried.
    """

    try_next = False
    counts = False

    def __init__(
        self, message: str, *, max_texts: int | None = None, max_bytes: int | None = None, **facts: Any
    ) -> None:
        """Take the limits along."""
        super().__init__(message, **facts)
        self.max_texts = max_texts
        self.max_bytes = max_bytes


class Unavailable(GatewayError):
    """What a target could not do for reasons of its own, or what none of a chain's could; the caller's request was right.

    Under its other name, `EmbeddingUnavailable`, it is what a retriever catches to search by words instead: keyword search is
    honest where vectors of another model would not be.
    """


EmbeddingUnavailable = Unavailable


class Quarantined(SpaceMismatch, Unavailable):
    """A target's vectors were measured and belong to another space: none of them gets out. Another target may serve."""

    try_next = True


class AuthenticationFailed(Unavailable):
    """The key was refused."""


class KeyMissing(AuthenticationFailed):
    """A key is needed and none is there. Raised before anything is sent."""

    counts = False


class PermissionDenied(Unavailable):
    """The key is known but may not do this."""


class GatedModel(PermissionDenied):
    """The model's licence has to be accepted on its page first."""


class PaymentRequired(Unavailable):
    """The account's credits are used up. Other targets billed to the same account are skipped."""


class BudgetExceeded(Unavailable):
    """A budget of the caller's own house does not allow the request. Raised before anything is sent to any target.

    Attributes:
        tenant: whose budget, "*" for everybody's; period: "day" or "month".
        limit, spent, reserved, needed: USD: what may be spent in the period, what was, what requests that are under way may
            yet spend, and what this one would at most; None for `needed` where no price is known.
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
    """There is a budget, and the database that knows what is left of it cannot be asked. Nothing is sent."""

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
    """Too many requests. The target rests until it said it may be asked again."""

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
    """The package that runs models in this process is not installed; the message has the `pip install` line."""


class ConnectFailed(Unavailable):
    """No answer at all: refused, unknown host, TLS failure, or a connection that broke."""

    retries = True


class AttemptTimedOut(Unavailable):
    """The server took the request and did not answer in time. Not asked again: it may still be busy with it."""


class BadResponse(Unavailable):
    """The answer is not what the protocol says: HTML, broken JSON, wrong count, wrong dimension, NaN, zeros."""


class BadGeneration(BadResponse):
    """The model wrote a tool call or JSON that its own server cannot read. The request was right, so it is asked again.

    Attributes:
        failed_generation: what the model had written, where the server said so.
    """

    retries = True
    counts = False

    def __init__(self, message: str, *, failed_generation: str | None = None, **facts: Any) -> None:
        """Take along what the model had written."""
        super().__init__(message, **facts)
        self.failed_generation = failed_generation


class StreamBroken(BadResponse):
    """A stream broke, stalled, or ended without a finish reason, and nothing of it has reached the caller.

    So the next target can start afresh and completely; what had come is thrown away, never passed off as a whole answer.
    """


class StreamInterrupted(GatewayError):
    """A stream broke after its first content reached the caller.

    Attributes:
        partial: the text so far.
    """

    try_next = False

    def __init__(self, message: str, *, partial: str = "", **facts: Any) -> None:
        """Take the text so far along."""
        super().__init__(message, **facts)
        self.partial = partial


class DeadlineExceeded(Unavailable):
    """The time for the whole request is up, over all targets and retries.

    Not a TimeoutError: code that waits for a task with a limit takes one for the end of that limit.
    """

    try_next = False
    counts = False


class AllTargetsFailed(Unavailable):
    """Nobody in a chain of several targets could serve.

    Attributes:
        errors: one error a target, in chain order.
    """

    try_next = False
    counts = False

    def __init__(self, errors: Sequence[GatewayError]) -> None:
        """List every target with its reason."""
        lines = "".join(f"\n  - {error.target}: {type(error).__name__}: {error.message}" for error in errors)
        super().__init__(f"none of the {len(errors)} targets could serve the request:{lines}")
        self.errors = tuple(errors)
        waits = [error.retry_after for error in errors if error.retry_after is not None]
        self.retry_after = min(waits) if waits else None


def did_you_mean(name: str, names: "set[str] | list[str]") -> str:
    """Return '; did you mean …?' for the nearest known name, or the list of names when none is near."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(names))}"
