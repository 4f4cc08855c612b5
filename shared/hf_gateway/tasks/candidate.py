"""A target as the chain sees it: a backend with its breaker and its key check."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hf_gateway.backends.base import Backend
from hf_gateway.chain.circuit_breaker import Breaker
from hf_gateway.errors import (
    GatewayError,
    KeyMissing,
    Overloaded,
    RateLimited,
)
from hf_gateway.keys.policy import KeyLevel, missing_key_hint
from hf_gateway.runtime.effects import Effects
from hf_gateway.spaces.space_check import SpaceCheck
from hf_gateway.values.secret import EnvKey


@dataclass(eq=False)
class TargetCandidate:
    """A backend in the chain, with its breaker. alone: there is no other target; refused: is told that it has too much to do."""

    backend: Backend
    breaker: Breaker = field(default_factory=Breaker)
    alone: bool = True
    refused: Callable[[], None] | None = None

    @property
    def label(self) -> str:
        """How errors and logs call it."""
        return self.backend.target.label

    @property
    def account(self) -> str | None:
        """Whom a call is billed to."""
        return self.backend.account

    @property
    def context(self) -> int | None:
        """Tokens of the longest text, or conversation, that it takes."""
        return self.backend.context

    @property
    def space_check(self) -> SpaceCheck | None:
        """How its vectors stand to the space's fingerprint; None where it makes none, or none was measured."""
        return None

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all, or None."""
        backend = self.backend
        if isinstance(bound := backend.target.credential, EnvKey) and bound.refusal:
            return KeyMissing(bound.refusal, target=self.label)
        needed = backend.key_requirement()
        credential = backend.credential() if needed.level is KeyLevel.REQUIRED else None
        if way := missing_key_hint(backend.target, needed, credential, backend.key_url, alone=self.alone):
            return KeyMissing(f"a key is needed and there is none: {needed.reason}; {way}", target=self.label)
        return None

    def effects(self, payload: Any) -> Effects:
        """Ask it, and let no error out that quotes the key: servers do, also inside a 200."""
        try:
            return (yield from self.answer(payload))
        except GatewayError as failure:
            failure.message = self._without_key(failure.message)
            failure.args = (failure.message,)
            if self.refused is not None and isinstance(failure, RateLimited | Overloaded):
                self.refused()
            raise

    def _without_key(self, text: str) -> str:
        credential = self.backend.credential()
        return text if credential is None else credential.secret.scrub(text)

    def answer(self, payload: Any) -> Effects:
        """Do what the backend does, and the checks that hold for every answer."""
        raise NotImplementedError
