"""Keys of a server under test, made in its database as the command makes them."""

import datetime as dt
from typing import Any

from hf_gateway.server.access.caller import SCOPES
from hf_gateway.server.access.rights import KeyRights
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import keys
    from hf_gateway.server.access import store

ALL = frozenset(SCOPES)


def make_key(url: str, **rights: Any) -> str:
    """Make a key with all scopes, or with other rights; returns the key itself."""
    given = {"name": "a test's", "scopes": ALL, **rights}
    given["scopes"] = frozenset(given["scopes"])
    with open_ledger(url) as engine:
        return store.create_key(engine, KeyRights(**given))[0]


def public_part(key: str) -> str:
    """Return the public part of a key."""
    return key.split("_")[1]


def expire(url: str, key: str) -> None:
    """Move the expiry of a key into the past."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with open_ledger(url) as engine, engine.begin() as connection:
        connection.execute(sa.update(keys).where(keys.c.id == public_part(key)).values(expires=past))


def revoke(url: str, key: str) -> None:
    """Revoke a key."""
    with open_ledger(url) as engine:
        store.revoke_key(engine, public_part(key))


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"authorization": f"Bearer {key}"}
