"""The effects that a backend yields: `Send`, `Open`, `Read`, `Compute`, `Pause`."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from hf_gateway.chain.effects import Emit
from hf_gateway.keys.credentials import Credential
from hf_gateway.values.http import HttpRequest


class StreamSource(Protocol):
    """A source of pieces: the body of a response, or an answer that is made in this process.

    Closing it ends the work behind it; a source that was read to its end needs no closing.
    """

    def read(self, timeout: float) -> Any:
        """Block for the next piece, at most `timeout` seconds; None at the end. Raises AttemptTimedOut."""

    async def aread(self, timeout: float) -> Any:
        """Wait for the next piece, at most `timeout` seconds; None at the end. Raises AttemptTimedOut."""

    def close(self) -> None:
        """Stop."""

    async def aclose(self) -> None:
        """Stop."""


@dataclass(frozen=True)
class Opened:
    """A response whose body is still to be read."""

    status: int
    """The status code."""
    headers: Mapping[str, str]
    """Names in lower case."""
    source: StreamSource
    """Yields the body."""


@dataclass(frozen=True)
class Send:
    """Send a request and return the response, whatever its status. The key is sent only to its own origin."""

    request: HttpRequest
    """What to send."""
    credential: Credential | None = None
    """The key, if there is one."""
    follow: bool = True
    """Whether to follow a redirect within the origin."""
    max_bytes: int | None = None
    """Maximum size of the answer; None for the transport's own limit."""
    streamed: ClassVar[bool] = False
    patient: ClassVar[bool] = False


@dataclass(frozen=True)
class Open:
    """Send a request and return the response as soon as its headers have arrived (`Opened`), whatever its status."""

    request: HttpRequest
    """What to send."""
    credential: Credential | None = None
    """The key, if there is one."""
    follow: bool = True
    """Whether to follow a redirect within the origin."""
    max_bytes: int | None = None
    """Maximum size of the answer; None for the transport's own limit."""
    streamed: ClassVar[bool] = True
    patient: ClassVar[bool] = False


@dataclass(frozen=True)
class Read:
    """Return the next piece, None at the end."""

    source: StreamSource
    """Where to read."""
    within: float | None = None
    """Seconds, if fewer than the chain allows."""
    patient: bool = False
    """Whether silence before the first content means work rather than a dead server, so that only the deadline and other
    targets limit it."""
    streamed: ClassVar[bool] = True


@dataclass(frozen=True)
class Compute:
    """Run a function; in async on an executor, so that the event loop continues."""

    function: Callable[[], Any]
    """What to run."""
    executor: Executor | None = None
    """The executor for async callers; None for the loop's own."""
    streamed: ClassVar[bool] = False
    patient: ClassVar[bool] = False


@dataclass(frozen=True)
class Pause:
    """Wait for a job that a server works on, before it is asked again; AttemptTimedOut if the attempt's time ends before."""

    seconds: float
    """How long."""
    streamed: ClassVar[bool] = False
    patient: ClassVar[bool] = False


Effects = Generator[Send | Open | Read | Compute | Pause | Emit, Any, Any]
