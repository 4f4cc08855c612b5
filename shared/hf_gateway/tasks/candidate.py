"""A target as the chain sees it: its ability for a task, its breaker and its key check."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.backends.base import Ability, Server
from hf_gateway.chain.circuit_breaker import Breaker
from hf_gateway.errors import (
    GatewayError,
    KeyMissing,
    Overloaded,
    RateLimited,
)
from hf_gateway.keys.policy import missing_key_hint
from hf_gateway.runtime.effects import Effects
from hf_gateway.spaces.space_check import SpaceCheck
from hf_gateway.values.kinds import KeyLevel
from hf_gateway.values.secret import KeyReference
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace


@dataclass(eq=False)
class TargetCandidate:
    """A target in the chain, with its breaker."""

    ability: Ability
    """Its ability for the chain's task."""
    breaker: Breaker = field(default_factory=Breaker)
    """Its circuit breaker."""
    alone: bool = True
    """Whether there is no other target."""
    on_overload: Callable[[], None] | None = None
    """Called when it refuses a request because of overload."""

    @property
    def server(self) -> Server:
        """Its server: URL and key."""
        return self.ability.server

    @property
    def target(self) -> Target:
        """The target itself, with the chain's model if it names none."""
        return self.ability.target

    @property
    def label(self) -> str:
        """The target's name in errors and logs."""
        return self.ability.target.label

    @property
    def account(self) -> str | None:
        """The account that a call is billed to."""
        return self.ability.server.account

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text or conversation."""
        return self.ability.context

    @property
    def required_space(self) -> VectorSpace | None:
        """The vector space that its vectors are held to; None where it makes none."""
        return None

    @property
    def space_check(self) -> SpaceCheck | None:
        """The result of its space check; None if it makes no vectors."""
        return None

    def refusal(self) -> GatewayError | None:
        """Return why no request may be sent to it, or None."""
        server = self.ability.server
        if isinstance(bound := server.target.credential, KeyReference) and bound.refusal:
            return KeyMissing(bound.refusal, target=self.label)
        needed = server.key_requirement()
        credential = server.credential() if needed.level is KeyLevel.REQUIRED else None
        if way := missing_key_hint(server.target, needed, credential, server.key_url, alone=self.alone):
            return KeyMissing(f"a required key is missing: {needed.reason}; {way}", target=self.label)
        return None

    def effects(self, payload: Any) -> Effects:
        """Yield the effects of a call, without the key in errors and names: servers quote it, also in the body of a 200."""
        try:
            return self._with_plain_names((yield from self._without_key_in_errors(self.answer(payload))))
        except (RateLimited, Overloaded):
            if self.on_overload is not None:
                self.on_overload()
            raise

    def probe(self) -> Effects:
        """Yield the effects of asking what it serves, without the key in errors."""
        return (yield from self._without_key_in_errors(self.ability.probe()))

    def _without_key_in_errors(self, effects: Effects) -> Effects:
        try:
            return (yield from effects)
        except GatewayError as failure:
            if (message := self._without_key(failure.message)) == failure.message:
                raise
            without_key = failure.restated(message, failure.retry_after).with_traceback(failure.__traceback__)
        raise without_key

    def _with_plain_names(self, answer: Any) -> Any:
        """Return an answer without the key in what is recorded of it: the model, the provider and the request's id."""
        names = {name: getattr(answer, name, None) for name in ("model", "provider", "request_id")}
        quoting = {name: plain for name, text in names.items() if text and (plain := self._without_key(text)) != text}
        return replace(answer, **quoting) if quoting else answer

    def _without_key(self, text: str) -> str:
        credential = self.ability.server.credential()
        return text if credential is None else credential.secret.scrub(text)

    def answer(self, payload: Any) -> Effects:
        """Yield the effects of a call, and check the answer."""
        raise NotImplementedError
