"""HTTP client of the Hub: bounded in time, within its rate limits, and the token is sent to the Hub's own origin only.

huggingface_hub is not used for requests: it has no time limit unless each call sets one, waits as long as a server
asks for, does not use ETags, and raises exceptions that contain the token. It is used for publishing, and downloads
use its cache layout. Requests are generators of steps for the driver, so that the same code serves blocking and async
callers.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hf_gateway.chain.effects import Call, Steps, Wait
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
from hf_gateway.http.transport import HttpTransport
from hf_gateway.hub import names
from hf_gateway.hub.errors import HubOffline, HubTimedOut, of_the_hub
from hf_gateway.keys.credentials import Credential, find_credential, origin_of
from hf_gateway.keys.policy import parse_flag
from hf_gateway.runtime.driver import Clock, Driver, Transport
from hf_gateway.runtime.effects import Compute, Send
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.secret import Secret
from hf_gateway.wire.hub_models import TARGET, rate_limit, refusal
from hf_gateway.wire.retry_after import retry_after_seconds

TIMEOUT_S = 10.0
"""Seconds for one request."""
CONNECT_TIMEOUT_S = 3.0
"""Seconds to connect."""
LOCAL_WORK_TIMEOUT_S = 600.0
"""Seconds for work on files."""
MAX_WAIT_S = 10.0
"""Seconds to wait, once, for an exhausted rate limit or a busy Hub; a longer wait raises."""
MAX_REST_S = 300.0
"""Seconds, a window of the Hub's rate limit: no server can suspend requests for longer."""
RECHECK_AFTER_S = 30.0
"""Seconds for which an unreachable Hub is not called again; the cache is used meanwhile."""
CALL_TIMEOUT_S = 60.0
"""Seconds for all requests of one call: a list may have many pages, each of them just within its own limit."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables by which all Hugging Face tools are switched offline."""

AWAY = (ConnectFailed, AttemptTimedOut, RateLimited, Overloaded, ServerError, ModelLoading, BadResponse)
"""Failures of the Hub that may pass; older cached data is used."""


class HubOutage:
    """Remembers that a Hub could not be reached, and until when it is not called again. Clients may share one."""

    def __init__(self) -> None:
        """Start with a Hub that is reachable."""
        self._noted: tuple[float, GatewayError] | None = None

    def note(self, until: float, error: GatewayError) -> None:
        """Record an outage.

        Args:
            until: time by the clients' clock before which no request is sent.
            error: why the Hub could not be reached.
        """
        self._noted = (until, error)

    def over(self) -> None:
        """Forget the outage, after an answer of the Hub."""
        self._noted = None

    def at(self, now: float) -> GatewayError | None:
        """Return why the Hub is not called at a time by the clients' clock; None if it may be called."""
        noted = self._noted
        return noted[1].restated(noted[1].message, None) if noted is not None and now < noted[0] else None


class HubClient:
    """Client of one Hub, as one account or without a token. Thread-safe; tests replace its clock and transport."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
        absence: HubOutage | None = None,
    ) -> None:
        """Set the Hub's base URL; nothing is sent. Raises ConfigError for an address that must not be called."""
        self.endpoint = names.endpoint(endpoint)
        self.environment = environment
        self._given: Secret | None = None
        self._credential: Credential | None = None
        self._looked = False
        self._clock = clock or Clock()
        self._transport = transport if transport is not None else HttpTransport()
        self._driver = Driver(self._transport, self._clock, CONNECT_TIMEOUT_S)
        self._rests: dict[str, float] = {}
        self._absence = absence or HubOutage()
        self._address_checked = False

    def run(self, steps: Steps, within: float = CALL_TIMEOUT_S) -> Any:
        """Run steps, blocking.

        Args:
            steps: a generator of steps.
            within: seconds for all its requests and waits.

        Returns:
            The return value of the generator.
        """
        return self._driver.run(self._bounded(steps, within))

    async def arun(self, steps: Steps, within: float = CALL_TIMEOUT_S) -> Any:
        """Run steps on the event loop; files are read in other threads.

        Args:
            steps: a generator of steps.
            within: seconds for all its requests and waits.

        Returns:
            The return value of the generator.
        """
        return await self._driver.arun(self._bounded(steps, within))

    def _bounded(self, steps: Steps, seconds: float) -> Steps:
        ends = self._clock.now() + seconds
        resume, value = steps.send, None
        try:
            while True:
                try:
                    step = resume(value)
                except StopIteration as done:
                    return done.value
                try:
                    resume, value = steps.send, (yield self._in_time(step, ends, seconds))
                except GatewayError as failure:
                    resume, value = steps.throw, failure
        finally:
            steps.close()

    def _in_time(self, step: Any, ends: float, seconds: float) -> Any:
        """Return the step with its timeout cut to the time that is left. Raises HubTimedOut if it is too little."""
        if isinstance(step, Call) and isinstance(step.effect, Compute):
            return step
        left = ends - self._clock.now()
        if left <= 0 or (isinstance(step, Wait) and step.seconds > left):
            raise HubTimedOut(f"{self.endpoint} did not answer all questions within {seconds:.0f} s", target=TARGET)
        return replace(step, timeout=min(step.timeout, left)) if isinstance(step, Call) else step

    def close(self) -> None:
        """Close connections and forget the token; a later request opens new ones and looks for a token again."""
        self._forget()
        if isinstance(self._transport, HttpTransport):
            self._transport.close()

    async def aclose(self) -> None:
        """Async form of `close`, which also closes the connections of this event loop."""
        self._forget()
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()

    def use(self, token: Secret) -> None:
        """Use this token from now on. Raises ConfigError if it would be sent unencrypted."""
        if not (self.endpoint.startswith("https://") or _is_private_host(self.endpoint)):
            raise ConfigError(f"{self.endpoint} is plain http, so the token could be read on its way; use https")
        self._given, self._looked = token, False
        self._absence.over()

    def use_only(self, credential: Credential | None) -> None:
        """Use this credential from now on and look for no other; None to send requests without a token."""
        self._given, self._credential, self._looked = None, credential, True

    def _forget(self) -> None:
        self._given = self._credential = None
        self._looked = False

    @property
    def offline(self) -> str | None:
        """Name of the variable that sets offline mode; None if no such variable is set."""
        return next((name for name in OFFLINE if parse_flag(self.environment.get(name, ""))), None)

    def credential(self) -> Credential | None:
        """Return the credential for this Hub: the one given, or for Hugging Face's own Hub the one that is found. Reads files."""
        if self._given is not None:
            return Credential(self._given, origin_of(self.endpoint), "the token given to connect()")
        if not self._looked:
            self._credential, self._looked = find_credential(self.endpoint, environment=self.environment), True
        return self._credential

    def compute(self, function: Callable[[], Any]) -> Steps:
        """Run a blocking function, such as one that reads files; in another thread if the caller is async."""
        return (yield Call(Compute(function), LOCAL_WORK_TIMEOUT_S, TARGET))

    def ask(self, request: HttpRequest, what: str) -> Steps:
        """Send a request and return the response: a success, or 304 if the request has an ETag.

        A rate limit or a busy Hub is waited for once, for up to MAX_WAIT_S.

        Args:
            request: the request.
            what: model id or description of the request, for error messages.

        Raises:
            HubOffline: offline mode is set.
            ConnectFailed, AttemptTimedOut: the Hub did not answer; no request is sent for the next RECHECK_AFTER_S
                seconds.
            RateLimited: the rate limit resets later than MAX_WAIT_S; no request is sent until then.
            ModelNotFound, AuthenticationFailed, PermissionDenied, GatedModel: the Hub refused the request.
        """
        yield from self._ready()
        kind = "api" if "/api/" in request.url else "resolvers"
        for last in (False, True):
            if left := self._rest(kind):
                if left > MAX_WAIT_S:
                    raise RateLimited(
                        f"the Hub's rate limit is used up, and resets in {left:.0f} s"
                        + ("" if self._credential or self._given else "; a token has a higher one (set HF_TOKEN)"),
                        target=TARGET,
                        status=429,
                        retry_after=left,
                    )
                yield Wait(left)
            try:
                response: HttpResponse = yield Call(Send(request, self.credential()), TIMEOUT_S, TARGET)
            except (ConnectFailed, AttemptTimedOut) as error:
                failed = of_the_hub(error)
                self._absence.note(self._clock.now() + RECHECK_AFTER_S, failed)
                raise failed from None
            self._absence.over()
            self._note(response, kind)
            if 200 <= response.status < 300 or response.status == 304:
                return response
            refused = refusal(response, what, sent=self._sent_key(request))
            again = isinstance(refused, RateLimited | Overloaded | ServerError | ModelLoading)
            if last or not again or (refused.retry_after or 0) > MAX_WAIT_S:
                raise of_the_hub(refused)
            if not isinstance(refused, RateLimited):
                yield Wait(min(refused.retry_after or 1.0, MAX_WAIT_S))
        raise AssertionError("not reached")

    def _ready(self) -> Steps:
        if self.offline:
            raise HubOffline(f"{self.offline} is set, so the Hub is not asked", target=TARGET)
        if (away := self._absence.at(self._clock.now())) is not None:
            raise away
        yield from self.compute(self._prepare)

    def _prepare(self) -> None:
        if isinstance(self._transport, HttpTransport):
            self._transport.prepare()
        self.credential()
        if not self._address_checked:
            names.check_address(self.endpoint, told_by="the Hub's URL")
            self._address_checked = True

    def _sent_key(self, request: HttpRequest) -> Credential | None:
        credential = self.credential()
        return credential if credential is not None and credential.header_for(request.url) else None

    def _rest(self, kind: str) -> float:
        return max(0.0, self._rests.get(kind, 0.0) - self._clock.now())

    def _note(self, response: HttpResponse, kind: str) -> None:
        """Remember when the next request may be sent: after an exhausted window, or after the time that a refusal names."""
        seconds: float | None = None
        if (limit := rate_limit(response.headers)) is not None and limit.left == 0:
            kind, seconds = limit.kind, limit.reset
        elif response.status == 429:
            seconds = retry_after_seconds(response.headers) or 1.0
        if seconds is not None:
            until = self._clock.now() + min(seconds, MAX_REST_S)
            self._rests[kind] = max(self._rests.get(kind, 0.0), until)


def _is_private_host(url: str) -> bool:
    """Return whether a URL's host is this machine or in a private network, where plain http is usual."""
    import ipaddress
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))
    return address.is_loopback or address.is_private
