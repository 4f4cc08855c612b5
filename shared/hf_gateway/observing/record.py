"""The record of one request: what the core measured of it, and what the service of its task adds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from hf_gateway.errors import GatewayError
from hf_gateway.observing.tags import Tags, tags
from hf_gateway.values.result import Result
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import TaskFacts
from hf_gateway.values.usage import Usage


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at one target."""

    target: Target
    """The target that was tried."""
    outcome: Literal["served", "failed", "skipped", "split", "cancelled"]
    """"skipped" if nothing was sent, "split" if the server asked for smaller batches."""
    error: GatewayError | None = None
    """Why it did not serve."""
    started: float = 0.0
    """When it started, in seconds of the clock of `RequestRecord.began`."""
    seconds: float = 0.0
    """Duration."""
    first_content_seconds: float | None = None
    """Seconds from its start to the first content of a stream."""
    usage: Usage = field(default_factory=Usage)
    """What the server counted, if it answered."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, as the server reports it."""
    request_id: str | None = None
    """The server's own id of the request."""
    asked: str | None = None
    """The model that was asked for, if it is not the target's own."""


@dataclass(kw_only=True)
class RequestRecord:
    """What is known of one request, from its check until its caller has the result or the error, or cancelled it.

    Plain values: no texts, no vectors, no tracebacks, unless a watcher adds `prompt` and `answer`.
    """

    task: TaskFacts
    """The task that the request is of."""
    chain: str | None
    """Name of the chain in the config file."""
    model: str | None
    """The chain's model."""
    targets: tuple[Target, ...]
    """The targets of the chain, in their order."""
    streamed: bool
    """Whether the caller takes the answer in pieces."""
    time: float
    """When it began, in seconds since the epoch."""
    began: float
    """When it began, in seconds of the gateway's clock."""
    inputs: int | None = None
    """How many inputs it has (texts, documents, images); None for a task that has one."""
    asked_model: str | None = None
    """The model that this request names instead of the chain's."""
    tags: Tags = field(default_factory=tags)
    """On whose behalf the call is made."""
    outcome: Literal["ok", "failed", "cancelled"] = "ok"
    """How it ended."""
    error_class: str | None = None
    """Class of the error that the caller received."""
    http_status: Any = None
    """HTTP status of that error."""
    attempts: list[AttemptRecord] = field(default_factory=list)
    """All attempts, in the order in which they ended."""
    usage: Usage = field(default_factory=Usage)
    """What the attempts that served used."""
    shared: bool = False
    """Whether another request's attempt brought the result; that request's record has the attempt and its usage."""
    looked_up: int = 0
    """How many different inputs were looked up in a cache."""
    cached_inputs: int | None = None
    """How many of them a cache had; None for a task without a cache."""
    space_id: str | None = None
    """The vector space of the result."""
    seconds: float = 0.0
    """Duration of the whole request."""
    first_content_seconds: float | None = None
    """Seconds until the first content of a stream."""
    prompt: str | None = None
    """The input as JSON, if a watcher keeps it."""
    answer: str | None = None
    """The output as JSON, if a watcher keeps it."""

    @property
    def served_attempt(self) -> AttemptRecord | None:
        """The attempt that served; of several, the last."""
        attempts = self.attempts
        if len(attempts) == 1:  # nearly always, and asked for by many columns of a row
            return attempts[0] if attempts[0].outcome == "served" else None
        return next((attempt for attempt in reversed(attempts) if attempt.outcome == "served"), None)


RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT", bound=Result)


class RequestDetails(Generic[RequestT, ResultT]):
    """What the service of a task knows of one request beyond the plain values; computed only if a watcher asks for it.

    A task subclasses it, and overrides what applies to the task.
    """

    task: ClassVar[TaskFacts]
    """The task's facts."""

    def __init__(self, request: RequestT) -> None:
        """Take a request that was checked."""
        self.request = request
        self.result: ResultT | None = None

    def request_columns(self) -> Mapping[str, Any]:
        """Return the fields of `RequestRecord` that the task takes from its request."""
        return {}

    def result_columns(self, result: ResultT) -> Mapping[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the fields of `RequestRecord` that the task takes from its result."""
        return {}

    def ceiling(self) -> Usage:
        """Return the units that the request may use at most; None for a unit without a known limit."""
        return Usage()

    def span_attributes(self, *, content: bool) -> Mapping[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the attributes of the request's span that belong to the task; None values are left out.

        Args:
            content: Whether the input and the output are to be among them.
        """
        return {}

    def prompt(self) -> Any:
        """Return the input as values for JSON; None for a task whose content is not kept."""
        return None

    def answer(self) -> Any:
        """Return the output as values for JSON; None without one, or for a task whose output is not kept."""
        return None
