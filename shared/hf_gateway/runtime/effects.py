"""The effects that a backend yields: `Send`, `Open`, `Read`, `Compute`."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from hf_gateway.chain.effects import Emit
from hf_gateway.keys.credentials import Credential
from hf_gateway.values.http import HttpRequest


class StreamSource(Protocol):
    """Something that comes in pieces: the body of a response, or an answer that is made in this process.

    Closing it ends whatever makes the pieces; a source that was read to its end needs no closing.
    """

    def read(self, timeout: float) -> Any:
        """Block for the next piece, at most `timeout` seconds; None at the end. Raises AttemptTimedOut."""

    async def aread(self, timeout: float) -> Any:
        """Wait for the next piece, at most `timeout` seconds; None at the end. Raises AttemptTimedOut."""

    def close(self) -> None:
        """Want no more."""

    async def aclose(self) -> None:
        """Want no more."""


@dataclass(frozen=True)
class Opened:
    """A response whose body is still to be read. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    source: StreamSource


@dataclass(frozen=True)
class Send:
    """Wish: send this and give the response, whatever its status. The key goes along only to its own origin.

    follow: go where a redirect within the origin leads; max_bytes: of the answer, None for the transport's own limit.
    """

    request: HttpRequest
    credential: Credential | None = None
    follow: bool = True
    max_bytes: int | None = None
    streamed: ClassVar[bool] = False
    patient: ClassVar[bool] = False


@dataclass(frozen=True)
class Open:
    """Wish: send this and give the response as soon as its headers are there (`Opened`), whatever its status.

    follow: go where a redirect within the origin leads; max_bytes: of the answer, None for the transport's own limit.
    """

    request: HttpRequest
    credential: Credential | None = None
    follow: bool = True
    max_bytes: int | None = None
    streamed: ClassVar[bool] = True
    patient: ClassVar[bool] = False


@dataclass(frozen=True)
class Read:
    """Wish: give the next piece, None at the end.

    within: fewer seconds than the chain would allow. patient: before the first content silence means work, not a dead server,
    so only the deadline and other targets limit it.
    """

    source: StreamSource
    within: float | None = None
    patient: bool = False
    streamed: ClassVar[bool] = True


@dataclass(frozen=True)
class Compute:
    """Wish: run this function; in async on the executor given, so that the event loop goes on."""

    function: Callable[[], Any]
    executor: Executor | None = None
    streamed: ClassVar[bool] = False
    patient: ClassVar[bool] = False


Effects = Generator[Send | Open | Read | Compute | Emit, Any, Any]
