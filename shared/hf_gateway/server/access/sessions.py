"""Browsers that are signed in: a cookie that means a key or a token, and ends with it.

Importing this module imports SQLAlchemy; all functions block.
"""

import datetime as dt
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import sessions
from hf_gateway.server.access.caller import Caller
from hf_gateway.server.access.credentials import SESSION_PREFIX
from hf_gateway.server.access.keys import SECRET_BYTES, digest
from hf_gateway.server.access.store import StoredKey, find_key

LIFETIME_S = 12 * 3600.0
"""Seconds after which a browser has to sign in again."""


@dataclass(frozen=True)
class Session:
    """A browser that is signed in."""

    expires: float
    """When it ends, in seconds since 1970."""
    key: StoredKey | None = None
    """The key that signed in, as it is now."""
    key_sha256: bytes | None = None
    """SHA-256 of that key as it was then."""
    token_caller: Caller | None = None
    """What a token granted."""

    def caller(self, now: float) -> Caller | None:
        """Return the caller, or None if the session or what began it has ended. `now` is in seconds since 1970."""
        if now >= self.expires:
            return None
        if self.key is None:
            return self.token_caller
        accepted = self.key_sha256 is not None and self.key.accepts(self.key_sha256, now)
        return self.key.caller if accepted else None


def begin_session(engine: sa.Engine, caller: Caller, key_sha256: bytes | None, now: float) -> tuple[str, float]:
    """Sign a browser in.

    Args:
        engine: the database.
        caller: who signs in.
        key_sha256: SHA-256 of the key; None for a token, whose rights are stored.
        now: seconds since 1970.

    Returns:
        The cookie's value, and when it ends, in seconds since 1970: with the key or token at the latest.

    Raises:
        SQLAlchemyError: the database cannot be written to.
    """
    text = f"{SESSION_PREFIX}{secrets.token_urlsafe(SECRET_BYTES)}"
    expires = min(now + LIFETIME_S, caller.expires or float("inf"))
    begins = dt.datetime.fromtimestamp(now, dt.UTC)
    values = {
        "sha256": digest(text),
        "key": caller.key if key_sha256 is not None else None,
        "key_sha256": key_sha256,
        "caller": None if key_sha256 is not None else caller.to_json(),
        "created": begins,
        "expires": dt.datetime.fromtimestamp(expires, dt.UTC),
    }
    with engine.begin() as connection:
        connection.execute(sa.delete(sessions).where(sessions.c.expires <= begins))
        connection.execute(sa.insert(sessions).values(values))
    return text, expires


def find_session(engine: sa.Engine, sha256: bytes) -> Session | None:
    """Return a session, or None.

    Args:
        engine: the database.
        sha256: of the cookie's value.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    with reading(engine).connect() as connection:
        row = connection.execute(sa.select(sessions).where(sessions.c.sha256 == sha256)).first()
    if row is None:
        return None
    expires = row.expires.timestamp()
    if row.key is None:
        return Session(expires, token_caller=Caller.from_json(row.caller))
    key = find_key(engine, row.key)
    return None if key is None else Session(expires, key, bytes(row.key_sha256))


def end_session(engine: sa.Engine, text: str) -> None:
    """Sign a browser out.

    Args:
        engine: the database.
        text: the cookie's value.

    Raises:
        SQLAlchemyError: the database cannot be written to.
    """
    this = sessions.c.sha256 == digest(text)
    with reading(engine).connect() as connection:
        if connection.execute(sa.select(sessions.c.sha256).where(this)).first() is None:
            return  # who invents one causes no write
    with engine.begin() as connection:
        connection.execute(sa.delete(sessions).where(this))
