"""One request, its redirects and its answer: the rules that are the same for every library."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, Protocol, TypeVar
from urllib.parse import urljoin

from hf_gateway._version import __version__
from hf_gateway.errors import AttemptTimedOut, BadResponse, ConnectFailed, GatewayError, InvalidRequest
from hf_gateway.http.decoding import ACCEPTED, Decoder, Truncated, Undecodable, UnknownEncoding
from hf_gateway.keys.credentials import origin_of
from hf_gateway.runtime.effects import Open, Opened, Send
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.redaction import shown_url

MAX_BODY_BYTES = 512 * 2**20
"""Maximum size of a decoded answer; 2,048 vectors of 4,096 numbers in JSON are about 170 MB."""
MAX_REDIRECTS = 5
MAX_CONNECTIONS = 512
"""Maximum per pool, in use or idle; further requests wait."""
MAX_URL_CHARS = 2**16
SHOWN_URL_CHARS = 200
"""Maximum length of a URL in a message; a server may send any length."""
KEEP_ALIVE_S = 30.0
"""How long an idle connection is kept."""
USER_AGENT = f"hf-gateway/{__version__}"
ALWAYS_SENT = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": ACCEPTED, "connection": "keep-alive"}
"""The headers that httpx and httpcore send unless the request sets them."""

_Address = TypeVar("_Address")


class Exchange:
    """A request under way. url: its current URL, after redirects; ends: its deadline, in monotonic seconds."""

    def __init__(self, send: Send | Open, timeout: float, connect_timeout: float, target: str) -> None:
        """timeout, connect_timeout: seconds from now."""
        self.sent = send
        self.url = send.request.url
        self.target = target
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.ends = time.monotonic() + timeout
        self._hops = 0

    def remaining_s(self) -> float:
        """Return the remaining seconds. Raises AttemptTimedOut after the deadline."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self.too_late()
        return left

    def headers(self) -> dict[str, str]:
        """Return the headers for the current URL: the key is sent only to its own origin."""
        request, credential = self.sent.request, self.sent.credential
        headers = dict(request.headers)
        if credential is not None:
            headers.update(credential.header_for(self.url))
        for name, value in headers.items():
            # Libraries differ in what they accept, and in the exceptions for the rest.
            if not (value.isascii() and value.isprintable() and name.isascii() and name.isprintable()):
                raise self.uncallable(f"the header {name!r} has characters that no header can have")
        return headers

    def address(self, parse: Callable[[str], _Address]) -> _Address:
        """Return the current URL in a library's form. parse: raises ValueError for one that it cannot call."""
        if len(self.url) > MAX_URL_CHARS:
            raise self.uncallable(f"it is longer than {MAX_URL_CHARS:,} characters")
        try:
            return parse(self.url)
        except ValueError as error:
            words = str(error)
        raise self.uncallable(words)

    def redirected(self, status: int, headers: Mapping[str, str]) -> bool:
        """Follow a redirect within the same origin; to any other neither the key nor the texts may be sent.

        Args:
            status: the answer's status.
            headers: its headers.

        Returns:
            Whether `url` has changed.

        Raises:
            BadResponse: the redirect must not be followed.
        """
        if status not in (301, 302, 303, 307, 308) or "location" not in headers or not self.sent.follow:
            return False
        try:
            there = urljoin(self.url, headers["location"])
            same = origin_of(there) == origin_of(self.url)
        except ValueError:
            raise BadResponse("redirects to an invalid URL", target=self.target, status=status) from None
        if not same:
            raise BadResponse(
                f"redirects to another server, {self._shown_url(there)}, which is not followed: neither the texts nor a key "
                "were meant for it; if it is the right one, name it as the target's URL",
                target=self.target,
                status=status,
            )
        self._hops += 1
        if self._hops > MAX_REDIRECTS or (status in (301, 302, 303) and self.sent.request.method != "GET"):
            raise BadResponse(
                f"redirects to {self._shown_url(there)}, and a POST would be lost on the way; use that URL",
                target=self.target,
                status=status,
            )
        self.url = there
        return True

    def check_size(self, size: int, status: int | None = None) -> None:
        """Raise BadResponse for a body that exceeds the request's limit, by default MAX_BODY_BYTES.

        Args:
            size: bytes so far.
            status: the answer's status.
        """
        most = self.sent.max_bytes or MAX_BODY_BYTES
        if size > most:
            raise BadResponse(
                f"answered with more than {most >> 20} MB; the rest was not read", target=self.target, status=status
            )

    def decoder(self, status: int, headers: Mapping[str, str]) -> Decoder:
        """Return the decoder of the body.

        Args:
            status: the answer's status.
            headers: its headers.

        Raises:
            BadResponse: an encoding that was not accepted.
        """
        try:
            return Decoder(headers)
        except UnknownEncoding as error:
            words = f"answered in the encoding {str(error)[:80]!r}, which was not asked for"
        raise BadResponse(words, target=self.target, status=status)

    def response(self, status: int, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Build the response; a key that the server quotes is removed from an error's body.

        Args:
            status: its status.
            headers: names in lower case.
            body: decoded.
        """
        if self.sent.credential is not None and status >= 300:
            # Some servers quote a key that they refuse.
            body = body.replace(self.sent.credential.secret.reveal().encode(), b"***")
        return HttpResponse(status, headers, body)

    def connect_failed(self, words: str) -> ConnectFailed:
        """Return the error for a connection that could not be made."""
        return ConnectFailed(
            f"no connection to {origin_of(self.url)}: {self._scrubbed(words)}; is the server running, and the URL right?",
            target=self.target,
        )

    def connection_broken(self, words: str) -> ConnectFailed:
        """Return the error for a connection that was lost."""
        return ConnectFailed(
            f"the connection to {origin_of(self.url)} broke before the answer was complete: {self._scrubbed(words)}",
            target=self.target,
        )

    def uncallable(self, words: str) -> InvalidRequest | BadResponse:
        """Return the error for a URL or headers that cannot be sent: the caller's fault, unless a redirect led there."""
        if self._hops:
            return BadResponse(
                f"redirects to {self._shown_url(self.url)}, which cannot be called: {self._scrubbed(words)}",
                target=self.target,
            )
        return InvalidRequest(
            f"{self._shown_url(self.url)} cannot be called: {self._scrubbed(words)}", target=self.target
        )

    def too_late(self) -> AttemptTimedOut:
        """Return the error for an exchange whose deadline has passed."""
        return AttemptTimedOut(
            f"no {'answer' if isinstance(self.sent, Open) else 'whole answer'} from {origin_of(self.url)} "
            f"within {self.timeout:.3g} s",
            target=self.target,
        )

    def stalled(self, seconds: float) -> AttemptTimedOut:
        """Return the error for a body whose next piece did not arrive in time."""
        return AttemptTimedOut(
            f"nothing more came from {origin_of(self.url)} within {seconds:.3g} s", target=self.target
        )

    def _shown_url(self, url: str) -> str:
        url = shown_url(url)
        return repr(url if len(url) <= SHOWN_URL_CHARS else f"{url[:SHOWN_URL_CHARS]}…")

    def _scrubbed(self, words: str) -> str:
        return self.sent.credential.secret.scrub(words) if self.sent.credential else words


Failure = Callable[["Exchange", Exception], GatewayError | None]
"""Translates an exception of an HTTP library; None for any other exception."""


class AsyncPool(Protocol):
    """The connections of one event loop. Its methods raise the library's own exceptions, which `failure` translates.

    None of them enforces the deadline of the exchange as a whole: the caller does.
    """

    @property
    def failure(self) -> Failure:
        """The function that translates the library's exceptions."""

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""

    async def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""

    async def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""

    async def aclose(self) -> None:
        """Close the connections."""


def lowercase_names(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers with names in lower case; values of one name are joined by commas (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def translate(failure: Failure, exchange: Exchange, error: Exception) -> GatewayError:
    """Return the error for an exception; an unknown exception is raised.

    Args:
        failure: translates the exceptions of the library in use.
        exchange: the request under way.
        error: what was raised.
    """
    known: GatewayError | None
    match error:
        case GatewayError():
            return error
        case Undecodable():
            known = BadResponse(f"the answer cannot be decompressed: {error}", target=exchange.target)
        case Truncated():
            known = exchange.connection_broken("its compression does not come to an end")
        case _:
            known = failure(exchange, error)
    if known is None and isinstance(error, TimeoutError):
        known = exchange.too_late()
    if known is None:
        raise error
    return known


def raise_error(failure: GatewayError | None) -> NoReturn:
    """Raise an error, outside of any except block: otherwise its context would be the library's exception, with the key."""
    assert failure is not None
    raise failure
