"""What a key allows: checked when it is made, and never more than the key of its maker allows."""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.ledger.budget import ALL_CALLS, KEY_BUDGET
from hf_gateway.server.access.caller import Caller, checked_scopes

MAX_NAME_CHARS = 200
MAX_LIMIT_COUNT = 2**31 - 1
"""Maximum of a limit: what every database stores."""
_LIMITS = ("requests_per_minute", "tokens_per_minute", "parallel")


@dataclass(frozen=True, kw_only=True)
class KeyRights:
    """The rights of a key, as they are stored."""

    name: str
    """What it is for, in words of its maker."""
    scopes: frozenset[str]
    """What its caller may do."""
    tenant: str | None = None
    """Who is billed; None for calls without a tenant."""
    chains: frozenset[str] | None = None
    """The names of the chains that may be used; None for all of them."""
    expires: dt.datetime | None = None
    """When it ends; None for never."""
    requests_per_minute: int | None = None
    """Maximum requests in a minute."""
    tokens_per_minute: int | None = None
    """Maximum tokens in a minute."""
    parallel: int | None = None
    """Maximum requests under way at one time."""

    def checked(self, now: dt.datetime | None = None) -> "KeyRights":
        """Return the rights if they are valid.

        Args:
            now: the time, which the expiry has to be after; None to leave the expiry unchecked.

        Raises:
            ConfigError: one is invalid; names the field.
        """
        _check_text("name", self.name)
        if self.tenant is not None:
            check_tenant(self.tenant)
        if not self.scopes:
            raise ConfigError("scopes is empty: the key could do nothing")
        checked_scopes(self.scopes)
        if self.chains is not None:
            if not self.chains:
                raise ConfigError("chains is empty: the key could use no chain; leave it out for all of them")
            for chain in self.chains:
                _check_text("chains", chain)
        for limit in _LIMITS:
            value = getattr(self, limit)
            if value is not None and not 0 < value <= MAX_LIMIT_COUNT:
                raise ConfigError(f"{limit} is a number from 1 to {MAX_LIMIT_COUNT:,}, not {value:,}")
        if self.expires is not None:
            if self.expires.tzinfo is None:
                raise ConfigError("expires needs its time zone, such as 2030-01-31T12:00:00Z")
            if now is not None and self.expires <= now:
                raise ConfigError(f"expires is {self.expires:%Y-%m-%d %H:%M} UTC, which is in the past")
        return self

    def changed(self, changes: Mapping[str, Any]) -> "KeyRights":
        """Return the rights with some of them replaced. Raises ConfigError for an unknown field."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(f"a key has no {name!r}{did_you_mean(name, known)}")
        return dataclasses.replace(self, **changes)

    def beyond(self, maker: Caller) -> Iterator[str]:
        """Yield what these rights allow and those of a maker do not, in words."""
        if more := sorted(self.scopes - maker.scopes):
            yield f"the scopes {', '.join(more)}"
        if maker.tenant is not None and self.tenant != maker.tenant:
            yield "another tenant"
        if maker.chains is not None and (self.chains is None or not self.chains <= maker.chains):
            yield "other chains"
        if maker.expires is not None and (self.expires is None or self.expires.timestamp() > maker.expires):
            yield "a later expiry"
        for limit in _LIMITS:
            own, most = getattr(self, limit), getattr(maker, limit)
            if most is not None and (own is None or own > most):
                yield f"a higher {limit}"

    def caller(self, key_id: str) -> Caller:
        """Return the caller who presents the key with this public part."""
        return Caller(
            key=key_id,
            tenant=self.tenant,
            scopes=self.scopes,
            chains=self.chains,
            expires=None if self.expires is None else self.expires.timestamp(),
            **{limit: getattr(self, limit) for limit in _LIMITS},
        )


def check_tenant(tenant: str) -> None:
    """Raise ConfigError for a name that cannot be a tenant's: it means all tenants, or the budget of a key."""
    _check_text("tenant", tenant)
    if tenant == ALL_CALLS or tenant.startswith(KEY_BUDGET):
        raise ConfigError(f"{tenant!r} cannot be a tenant: budgets of all calls and of single keys have such names")


def _check_text(field: str, text: str) -> None:
    if not text.strip() or len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise ConfigError(f"{field} is 1 to {MAX_NAME_CHARS} characters that can be printed")
