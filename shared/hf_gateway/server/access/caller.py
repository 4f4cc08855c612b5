"""Callers and their rights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import ConfigError, did_you_mean

SCOPES = ("embed", "chat", "rerank", "image", "classify", "read", "metrics", "any-model", "admin")
"""All scopes: the tasks, reading what the server has, its metrics, models that no chain has, administration."""
PUBLIC = "public"
"""The scope of a route that is open to all: it shows nothing of the server's configuration."""
ANONYMOUS_SCOPES = frozenset({"embed", "chat", "rerank", "image", "classify", "read", "metrics"})
"""What a caller without a key may do, on loopback."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is served. Each field narrows what the server as a whole allows; none widens it."""

    key: str | None = None
    """The public part of the key, or issuer and subject of a token; None for an anonymous caller."""
    tenant: str | None = None
    """Who is billed."""
    scopes: frozenset[str] = frozenset()
    """What the caller may do."""
    chains: frozenset[str] | None = None
    """The names of the chains that may be used; None for all of them."""
    expires: float | None = None
    """When the right to call ends, in seconds since 1970; None for never."""
    requests_per_minute: int | None = None
    """Maximum requests in a minute; None for no limit of its own."""
    tokens_per_minute: int | None = None
    """Maximum tokens in a minute; None for no limit of its own."""
    parallel: int | None = None
    """Maximum requests under way at one time; None for no limit of its own."""

    def may(self, scope: str) -> bool:
        """Return whether the caller has a scope."""
        return scope == PUBLIC or scope in self.scopes

    @property
    def is_limited(self) -> bool:
        """Whether the caller has a limit of its own."""
        return (self.requests_per_minute or self.tokens_per_minute or self.parallel) is not None

    @property
    def sees_all(self) -> bool:
        """Whether what concerns all tenants and chains may be shown to the caller."""
        return self.tenant is None and self.chains is None

    def may_use(self, chain: str) -> bool:
        """Return whether the caller may use a chain, by its name."""
        return self.chains is None or chain in self.chains

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "key": self.key,
            "tenant": self.tenant,
            "scopes": sorted(self.scopes),
            "chains": None if self.chains is None else sorted(self.chains),
            "expires": self.expires,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "parallel": self.parallel,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Caller":
        """Return the caller that `to_json` wrote."""
        chains = values["chains"]
        return cls(
            **{
                **values,
                "scopes": frozenset(values["scopes"]),
                "chains": None if chains is None else frozenset(chains),
            }
        )


ANONYMOUS = Caller(scopes=ANONYMOUS_SCOPES)
"""The caller of a server without keys."""
UNKNOWN = Caller()
"""The caller of a public route, whose credentials are not read."""

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers of a request, names in lower case; a name may stand several times."""


def checked_scopes(given: Iterable[str]) -> frozenset[str]:
    """Return scopes as a set. Raises ConfigError for an unknown one."""
    found = frozenset(given)
    for scope in sorted(found):
        if scope not in SCOPES:
            raise ConfigError(f"unknown scope {scope!r}{did_you_mean(scope, set(SCOPES))}")
    return found
