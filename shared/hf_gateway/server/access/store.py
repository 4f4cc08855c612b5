"""Callers' keys in the database: the tables are the ledger's, since a key, its budget and its usage belong together.

Importing this module imports SQLAlchemy. All functions block; the server calls them in threads. Every value is a bound
parameter.
"""

import dataclasses
import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.budget import KEY_BUDGET
from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import budgets, keys, sessions
from hf_gateway.server.access.caller import Caller
from hf_gateway.server.access.keys import is_same, new_key
from hf_gateway.server.access.rights import KeyRights

_RIGHTS = tuple(each.name for each in dataclasses.fields(KeyRights))
_SETS = ("scopes", "chains")


class NotNarrower(ConfigError):
    """An administrator's key does not have the right that it would grant, or that a key has which it would change."""


class UnknownKey(ConfigError):
    """There is no key with this public part that the caller may see."""


@dataclass(frozen=True)
class StoredKey:
    """A key, without its secret."""

    id: str
    """The public part."""
    rights: KeyRights
    """What it allows."""
    created: dt.datetime
    """When it was made."""
    revoked: dt.datetime | None
    """When it was revoked; None if it was not."""
    previous_until: dt.datetime | None
    """Until when the key that the last rotation replaced is still accepted."""
    _sha256: bytes = field(repr=False)
    _previous_sha256: bytes | None = field(repr=False)

    @functools.cached_property
    def caller(self) -> Caller:
        """The caller who presents it: one for all requests for which the key is remembered."""
        return self.rights.caller(self.id)

    def accepts(self, sha256: bytes, now: float) -> bool:
        """Return whether a key with a digest is this one, and valid.

        Args:
            sha256: of the key that was presented.
            now: seconds since 1970.
        """
        current = is_same(sha256, self._sha256)
        previous = is_same(sha256, self._previous_sha256)
        still = self.previous_until is not None and now < self.previous_until.timestamp()
        return (current or (previous and still)) and self.revoked is None and not self.is_expired(now)

    def is_expired(self, now: float) -> bool:
        """Return whether its time is over. `now` is in seconds since 1970."""
        return self.rights.expires is not None and now >= self.rights.expires.timestamp()

    def to_json(self) -> dict[str, Any]:
        """Return what may be shown of it, as JSON types."""
        rights = self.rights
        return {
            "id": self.id,
            "name": rights.name,
            "tenant": rights.tenant,
            "scopes": sorted(rights.scopes),
            "chains": None if rights.chains is None else sorted(rights.chains),
            "requests_per_minute": rights.requests_per_minute,
            "tokens_per_minute": rights.tokens_per_minute,
            "parallel": rights.parallel,
            "created": self.created.isoformat(),
            "expires": rights.expires and rights.expires.isoformat(),
            "revoked": self.revoked and self.revoked.isoformat(),
            "previous_until": self.previous_until and self.previous_until.isoformat(),
        }


def create_key(engine: sa.Engine, rights: KeyRights, maker: Caller | None = None) -> tuple[str, StoredKey]:
    """Make a key and store what it allows.

    Args:
        engine: the database.
        rights: of the key.
        maker: the administrator who makes it by HTTP; None for the command, which may grant all.

    Returns:
        The key itself, which cannot be read again, and what is stored.

    Raises:
        ConfigError: a right is invalid, or not the maker's.
        SQLAlchemyError: the database cannot be written to.
    """
    text, made = new_key()
    values = {"id": made.id, "sha256": made.sha256, "created": _now(), **_columns(rights.checked(_now()))}
    with engine.begin() as connection:
        _check_maker(connection, maker, rights)
        connection.execute(sa.insert(keys).values(values))
        return text, _read(connection, made.id, None)


def all_keys(engine: sa.Engine, tenant: str | None = None) -> list[StoredKey]:
    """Return the keys in the order in which they were made.

    Args:
        engine: the database.
        tenant: only this tenant's; None for all.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    query = sa.select(keys).order_by(keys.c.created, keys.c.id)
    if tenant is not None:
        query = query.where(keys.c.tenant == tenant)
    with reading(engine).connect() as connection:
        return [_stored(row) for row in connection.execute(query)]


def has_keys(engine: sa.Engine) -> bool:
    """Return whether any key was ever made: without one, callers on loopback need none. Raises SQLAlchemyError."""
    with reading(engine).connect() as connection:
        return connection.execute(sa.select(keys.c.id).limit(1)).first() is not None


def find_key(engine: sa.Engine, key_id: str) -> StoredKey | None:
    """Return the key with a public part, or None.

    Args:
        engine: the database.
        key_id: the public part.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    with reading(engine).connect() as connection:
        row = connection.execute(sa.select(keys).where(keys.c.id == key_id)).first()
    return None if row is None else _stored(row)


def change_key(engine: sa.Engine, key_id: str, changes: Mapping[str, Any], maker: Caller | None = None) -> StoredKey:
    """Replace some rights of a key; servers see it within 5 seconds.

    Args:
        engine: the database.
        key_id: the public part.
        changes: the new rights by name.
        maker: the administrator who changes it by HTTP; None for the command.

    Raises:
        ConfigError: there is no such key, a right is invalid, or the maker does not have one that the key has or would have.
        SQLAlchemyError: the database cannot be written to.
    """
    with engine.begin() as connection:
        before = _read(connection, key_id, maker, lock=True)
        rights = before.rights.changed(changes).checked(_now() if "expires" in changes else None)
        for each in (before.rights, rights):
            _check_maker(connection, maker, each)
        connection.execute(sa.update(keys).where(keys.c.id == key_id).values(_columns(rights)))
        return _read(connection, key_id, maker)


def rotate_key(
    engine: sa.Engine, key_id: str, grace: dt.timedelta = dt.timedelta(0), maker: Caller | None = None
) -> tuple[str, StoredKey]:
    """Replace the secret part of a key; its rights, its usage and its budgets stay.

    Args:
        engine: the database.
        key_id: the public part.
        grace: for how long the old key is accepted beside the new one.
        maker: the administrator who rotates it by HTTP; None for the command.

    Returns:
        The new key itself, which cannot be read again, and what is stored.

    Raises:
        ConfigError: there is no such key, it was revoked, or it has rights that the maker does not have.
        SQLAlchemyError: the database cannot be written to.
    """
    text, made = new_key(key_id)
    with engine.begin() as connection:
        before = _read(connection, key_id, maker, lock=True)
        if before.revoked is not None:
            raise ConfigError(f"the key {key_id} was revoked; make a new one")
        _check_maker(connection, maker, before.rights)
        connection.execute(
            sa.update(keys)
            .where(keys.c.id == key_id)
            .values(
                sha256=made.sha256,
                previous_sha256=keys.c.sha256 if grace else None,
                previous_until=_now() + grace if grace else None,
            )
        )
        return text, _read(connection, key_id, maker)


def revoke_key(engine: sa.Engine, key_id: str, maker: Caller | None = None) -> StoredKey:
    """End a key for good, with the sessions that it began; servers see it within 5 seconds.

    Args:
        engine: the database.
        key_id: the public part.
        maker: the administrator who revokes it by HTTP; None for the command.

    Raises:
        UnknownKey: there is no such key.
        NotNarrower: it is not the maker's own key, and has scopes or chains that the maker does not have.
        SQLAlchemyError: the database cannot be written to.
    """
    with engine.begin() as connection:
        before = _read(connection, key_id, maker, lock=True)
        if maker is not None and maker.key != key_id:
            # A maker whose own key ends sooner, or has lower limits, may end a key all the same: that grants nothing.
            unlimited = dataclasses.replace(
                maker, expires=None, requests_per_minute=None, tokens_per_minute=None, parallel=None
            )
            _refuse_broader(unlimited, before.rights)
        if before.revoked is None:
            connection.execute(sa.update(keys).where(keys.c.id == key_id).values(revoked=_now()))
        connection.execute(sa.delete(sessions).where(sessions.c.key == key_id))
        return _read(connection, key_id, maker)


def _check_maker(connection: sa.Connection, maker: Caller | None, rights: KeyRights) -> None:
    if maker is None:
        return
    # Another key would not be bound by a budget that is the maker's key's alone.
    of_key = sa.select(budgets.c.limit_usd).where(budgets.c.tenant == f"{KEY_BUDGET}{maker.key}").limit(1)
    if connection.execute(of_key).first() is not None:
        raise NotNarrower("your own key has a budget of its own, which another key would not have")
    _refuse_broader(maker, rights)


def _refuse_broader(maker: Caller, rights: KeyRights) -> None:
    if more := list(rights.beyond(maker)):
        raise NotNarrower(
            f"your own key does not allow {' and '.join(more)}, so it cannot grant, change or revoke a key with that"
        )


def _read(connection: sa.Connection, key_id: str, maker: Caller | None, *, lock: bool = False) -> StoredKey:
    """Return a key that a maker may see; with `lock` no one else changes it before the transaction ends. Raises UnknownKey."""
    query = sa.select(keys).where(keys.c.id == key_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None or (maker is not None and maker.tenant is not None and row.tenant != maker.tenant):
        raise UnknownKey("there is no key with this public part: the 12 characters between hfg_ and the next _")
    return _stored(row)


def _stored(row: Any) -> StoredKey:
    values = {name: getattr(row, name) for name in _RIGHTS}
    for name in _SETS:
        values[name] = None if values[name] is None else frozenset(values[name])
    sha256 = (bytes(row.sha256), None if row.previous_sha256 is None else bytes(row.previous_sha256))
    return StoredKey(row.id, KeyRights(**values), row.created, row.revoked, row.previous_until, *sha256)


def _columns(rights: KeyRights) -> dict[str, Any]:
    values = {name: getattr(rights, name) for name in _RIGHTS}
    return {**values, **{name: None if values[name] is None else sorted(values[name]) for name in _SETS}}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
