"""Asks the Hub: bounded in time, within its rate limits, the token to its own origin only.

Not through huggingface_hub, whose questions have no limit in time unless each is given one, wait as long as a server says,
take no ETags, and raise what carries the token. That library publishes; its cache's layout is what downloads are kept in.
Questions are generators of steps for `hf_gateway.drive`, so one text serves blocking and async callers.
"""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from hf_gateway.chain import Call, Steps, Wait
from hf_gateway.credentials import Credential, find, origin_of
from hf_gateway.drive import Clock, Compute, Driver, Send, Transport
from hf_gateway.errors import (
    AttemptTimedOut,
    BadResponse,
    ConfigError,
    ConnectFailed,
    GatewayError,
    ModelLoading,
    Overloaded,
    RateLimited,
    ServerError,
)
from hf_gateway.hub import names
from hf_gateway.hub.errors import HubOffline
from hf_gateway.key_policy import truthy
from hf_gateway.retry_after import retry_after_seconds
from hf_gateway.secret import Secret
from hf_gateway.transport import HttpTransport
from hf_gateway.wire.http import HttpRequest, HttpResponse
from hf_gateway.wire.hub_models import TARGET, rate_limit, refusal

TIMEOUT = 10.0
"""Seconds for one question."""
CONNECT_TIMEOUT = 3.0
LOCAL_WORK = 600.0
PATIENCE = 10.0
"""Seconds for which a full rate limit, or a busy Hub, is waited out, once; beyond it the caller is told."""
LONGEST_REST = 300.0
"""Seconds: a window of the Hub's rate limit. Who says more is believed for this long."""
AWAY_FOR = 30.0
"""Seconds until a Hub that could not be reached is asked again: what is cached serves meanwhile."""

AWAY = (ConnectFailed, AttemptTimedOut, RateLimited, Overloaded, ServerError, ModelLoading, BadResponse)
"""The Hub cannot say anything just now, and what it said before is the best there is."""


class HubClient:
    """One Hub, asked as one account or as nobody. Safe for threads; its clock and transport are what tests replace."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the Hub's base; nothing is sent. Raises ConfigError for one that is never called."""
        self.endpoint = names.endpoint(endpoint)
        self.environment = environment
        self._given: Secret | None = None
        self._credential: Credential | None = None
        self._looked = False
        self._clock = clock or Clock()
        self._transport = transport if transport is not None else HttpTransport()
        self._driver = Driver(self._transport, self._clock, CONNECT_TIMEOUT)
        self._lock = threading.Lock()
        self._rests: dict[str, float] = {}
        self._away: tuple[float, GatewayError] | None = None
        self._address_checked = False

    def run(self, steps: Steps) -> Any:
        """Carry steps out, blocking."""
        return self._driver.run(steps)

    async def arun(self, steps: Steps) -> Any:
        """Carry steps out on the event loop; files are read on other threads."""
        return await self._driver.arun(steps)

    def close(self) -> None:
        """Close connections; a later question opens new ones."""
        if isinstance(self._transport, HttpTransport):
            self._transport.close()

    async def aclose(self) -> None:
        """Close connections, those of this event loop too."""
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()

    def use(self, token: Secret) -> None:
        """Ask with this token from now on. Raises ConfigError where it would travel unprotected."""
        if not (self.endpoint.startswith("https://") or _within_the_house(self.endpoint)):
            raise ConfigError(
                f"{self.endpoint} is plain http, and the token would be read by everybody on the way; use https"
            )
        self._given, self._looked, self._away = token, False, None

    @property
    def offline(self) -> bool:
        """The environment says that there is no network."""
        return truthy(self.environment.get("HF_HUB_OFFLINE", ""))

    def credential(self) -> Credential | None:
        """Return the key for this Hub: the one given, or for Hugging Face's own the one that is found. Reads files."""
        if self._given is not None:
            return Credential(self._given, origin_of(self.endpoint), "the token given to connect()")
        if not self._looked:
            self._credential, self._looked = find(self.endpoint, environment=self.environment), True
        return self._credential

    def compute(self, function: Callable[[], Any]) -> Steps:
        """Run what reads files or blocks otherwise; on another thread where the caller is async."""
        return (yield Call(Compute(function), LOCAL_WORK, TARGET))

    def ask(self, request: HttpRequest, what: str) -> Steps:
        """Send a question and return a success, or 304 where it had an ETag.

        what: the model or the question, for errors. A rate limit and a busy Hub are waited out once, within PATIENCE.

        Raises:
            HubOffline, ConnectFailed, AttemptTimedOut: nobody answered; for AWAY_FOR seconds nobody is asked again.
            RateLimited: the window begins anew later than PATIENCE; nothing is sent until then.
            ModelNotFound, AuthenticationFailed, PermissionDenied, GatedModel: as it says.
        """
        yield from self._ready()
        kind = "api" if "/api/" in request.url else "resolvers"
        for last in (False, True):
            if left := self._rest(kind):
                if left > PATIENCE:
                    raise RateLimited(
                        f"the Hub's rate limit is used up, and begins anew in {left:.0f} s"
                        + ("" if self._credential or self._given else "; a token has a higher one (set HF_TOKEN)"),
                        target=TARGET,
                        status=429,
                        retry_after=left,
                    )
                yield Wait(left)
            try:
                response: HttpResponse = yield Call(Send(request, self.credential()), TIMEOUT, TARGET)
            except (ConnectFailed, AttemptTimedOut) as error:
                self._away = (self._clock.now() + AWAY_FOR, error)
                raise
            self._away = None
            self._note(response, kind)
            if 200 <= response.status < 300 or response.status == 304:
                return response
            refused = refusal(response, what, with_token=self._sent_token(request))
            again = isinstance(refused, RateLimited | Overloaded | ServerError | ModelLoading)
            if last or not again or (refused.retry_after or 0) > PATIENCE:
                raise refused
            if not isinstance(refused, RateLimited):
                yield Wait(min(refused.retry_after or 1.0, PATIENCE))
        raise AssertionError("not reached")

    def _ready(self) -> Steps:
        if self.offline:
            raise HubOffline("HF_HUB_OFFLINE is set, so the Hub is not asked", target=TARGET)
        with self._lock:
            away = self._away
        if away is not None and self._clock.now() < away[0]:
            raise away[1].restated(away[1].message, None)
        yield from self.compute(self._prepare)

    def _prepare(self) -> None:
        if isinstance(self._transport, HttpTransport):
            self._transport.prepare()
        self.credential()
        if not self._address_checked:
            names.check_address(self.endpoint, told_by="the Hub's URL")
            self._address_checked = True

    def _sent_token(self, request: HttpRequest) -> bool:
        credential = self.credential()
        return credential is not None and bool(credential.header_for(request.url))

    def _rest(self, kind: str) -> float:
        return max(0.0, self._rests.get(kind, 0.0) - self._clock.now())

    def _note(self, response: HttpResponse, kind: str) -> None:
        """Remember when to ask again: an empty window, or a refusal that says when."""
        seconds: float | None = None
        if (limit := rate_limit(response.headers)) is not None and limit.left == 0:
            kind, seconds = limit.kind, limit.reset
        elif response.status == 429:
            seconds = retry_after_seconds(response.headers) or 1.0
        if seconds is not None:
            until = self._clock.now() + min(seconds, LONGEST_REST)
            self._rests[kind] = max(self._rests.get(kind, 0.0), until)


def _within_the_house(url: str) -> bool:
    """Say whether a URL names this machine or a private network, where plain http is usual."""
    import ipaddress
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))
    return address.is_loopback or address.is_private
