"""Asks the Hub: bounded in time, within its rate limits, the token to its own origin only.

Not through huggingface_hub, whose questions have no limit in time unless each is given one, wait as long as a server says,
take no ETags, and raise what carries the token. That library publishes; its cache's layout is what downloads are kept in.
Questions are generators of steps for the driver, so one text serves blocking and async callers.
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
"""Seconds for one question."""
CONNECT_TIMEOUT_S = 3.0
LOCAL_WORK_TIMEOUT_S = 600.0
MAX_WAIT_S = 10.0
"""Seconds for which a full rate limit, or a busy Hub, is waited out, once; beyond it the caller is told."""
MAX_REST_S = 300.0
"""Seconds: a window of the Hub's rate limit. Who says more is believed for this long."""
RECHECK_AFTER_S = 30.0
"""Seconds until a Hub that could not be reached is asked again: what is cached serves meanwhile."""
CALL_TIMEOUT_S = 60.0
"""Seconds for all questions of one call: a list may have many pages, each of which comes just in time."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What all Hugging Face tools take for "there is no network"."""

AWAY = (ConnectFailed, AttemptTimedOut, RateLimited, Overloaded, ServerError, ModelLoading, BadResponse)
"""The Hub cannot say anything just now, and what it said before is the best there is."""


class HubOutage:
    """That a Hub could not be reached, and until when it is not asked again; clients that share one find out once."""

    def __init__(self) -> None:
        """Start with a Hub that is there."""
        self._noted: tuple[float, GatewayError] | None = None

    def note(self, until: float, error: GatewayError) -> None:
        """Ask no more until then, by the clock of the clients."""
        self._noted = (until, error)

    def over(self) -> None:
        """The Hub has answered."""
        self._noted = None

    def at(self, now: float) -> GatewayError | None:
        """Return why the Hub is not asked now, None where it is."""
        noted = self._noted
        return noted[1].restated(noted[1].message, None) if noted is not None and now < noted[0] else None


class HubClient:
    """One Hub, asked as one account or as nobody. Safe for threads; its clock and transport are what tests replace."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
        absence: HubOutage | None = None,
    ) -> None:
        """Take the Hub's base; nothing is sent. Raises ConfigError for one that is never called."""
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
        """Carry steps out, blocking, with so many seconds for all that they send and wait."""
        return self._driver.run(self._bounded(steps, within))

    async def arun(self, steps: Steps, within: float = CALL_TIMEOUT_S) -> Any:
        """Carry steps out on the event loop; files are read on other threads."""
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
        """Return a step that does not go beyond the end. Raises HubTimedOut where there is no time for it."""
        if isinstance(step, Call) and isinstance(step.effect, Compute):
            return step
        left = ends - self._clock.now()
        if left <= 0 or (isinstance(step, Wait) and step.seconds > left):
            raise HubTimedOut(f"{self.endpoint} did not answer all questions within {seconds:.0f} s", target=TARGET)
        return replace(step, timeout=min(step.timeout, left)) if isinstance(step, Call) else step

    def close(self) -> None:
        """Close connections and forget the token; a later question opens new ones, and looks for a key again."""
        self._forget()
        if isinstance(self._transport, HttpTransport):
            self._transport.close()

    async def aclose(self) -> None:
        """Do as `close`, with the connections of this event loop too."""
        self._forget()
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()

    def use(self, token: Secret) -> None:
        """Ask with this token from now on. Raises ConfigError where it would travel unprotected."""
        if not (self.endpoint.startswith("https://") or _same_origin_redirect(self.endpoint)):
            raise ConfigError(
                f"{self.endpoint} is plain http, and the token would be read by everybody on the way; use https"
            )
        self._given, self._looked = token, False
        self._absence.over()

    def use_only(self, credential: Credential | None) -> None:
        """Ask with this key from now on, and look for no other: without one where it is None."""
        self._given, self._credential, self._looked = None, credential, True

    def _forget(self) -> None:
        self._given = self._credential = None
        self._looked = False

    @property
    def offline(self) -> str | None:
        """The variable by which the environment says that there is no network; None where it does not."""
        return next((name for name in OFFLINE if parse_flag(self.environment.get(name, ""))), None)

    def credential(self) -> Credential | None:
        """Return the key for this Hub: the one given, or for Hugging Face's own the one that is found. Reads files."""
        if self._given is not None:
            return Credential(self._given, origin_of(self.endpoint), "the token given to connect()")
        if not self._looked:
            self._credential, self._looked = find_credential(self.endpoint, environment=self.environment), True
        return self._credential

    def compute(self, function: Callable[[], Any]) -> Steps:
        """Run what reads files or blocks otherwise; on another thread where the caller is async."""
        return (yield Call(Compute(function), LOCAL_WORK_TIMEOUT_S, TARGET))

    def ask(self, request: HttpRequest, what: str) -> Steps:
        """Send a question and return a success, or 304 where it had an ETag.

        what: the model or the question, for errors. A rate limit and a busy Hub are waited out once, within PATIENCE.

        Raises:
            HubOffline, ConnectFailed, AttemptTimedOut: nobody answered; for RECHECK_AFTER_S seconds nobody is asked again.
            RateLimited: the window begins anew later than PATIENCE; nothing is sent until then.
            ModelNotFound, AuthenticationFailed, PermissionDenied, GatedModel: as it says.
        """
        yield from self._ready()
        kind = "api" if "/api/" in request.url else "resolvers"
        for last in (False, True):
            if left := self._rest(kind):
                if left > MAX_WAIT_S:
                    raise RateLimited(
                        f"the Hub's rate limit is used up, and begins anew in {left:.0f} s"
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
        """Remember when to ask again: an empty window, or a refusal that says when."""
        seconds: float | None = None
        if (limit := rate_limit(response.headers)) is not None and limit.left == 0:
            kind, seconds = limit.kind, limit.reset
        elif response.status == 429:
            seconds = retry_after_seconds(response.headers) or 1.0
        if seconds is not None:
            until = self._clock.now() + min(seconds, MAX_REST_S)
            self._rests[kind] = max(self._rests.get(kind, 0.0), until)


def _same_origin_redirect(url: str) -> bool:
    """Say whether a URL names this machine or a private network, where plain http is usual."""
    import ipaddress
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))
    return address.is_loopback or address.is_private
