"""Administration of keys: what `hf-gateway keys` does, for administrators of a running server.

A key is in the answer that makes or rotates it, and in no other. An administrator's key grants no more than it has, and one
with a tenant sees and makes keys of that tenant alone.
"""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.budget import KEY_BUDGET, Budget, Period
from hf_gateway.server.access.rights import KeyRights
from hf_gateway.server.dispatch.bodies import Body
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.admin import SURFACE
from hf_gateway.wire.json import dumps

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.server.access.store import StoredKey

MAX_GRACE_S = 30 * 86_400
_NOT_STORED = (b"cache-control", b"no-store")

T = TypeVar("T")
Limit = Annotated[int, Field(gt=0, lt=2**31)]
Usd = Annotated[Decimal, Field(ge=0, lt=1_000_000, max_digits=18, decimal_places=12)]


class _Body(Body):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)


class _Limits(_Body):
    chains: list[str] | None = None
    """The names of the chains that it may use; null for all."""
    expires: AwareDatetime | None = None
    """When it ends; null for never."""
    requests_per_minute: Limit | None = None
    """Maximum requests in a minute."""
    tokens_per_minute: Limit | None = None
    """Maximum tokens in a minute."""
    parallel: Limit | None = None
    """Maximum requests under way at one time."""
    usd_per_day: Usd | None = None
    """Its budget for a day, in USD."""
    usd_per_month: Usd | None = None
    """Its budget for a month, in USD."""


class NewKeyBody(_Limits):
    """The body of POST /admin/keys."""

    name: str
    """What it is for."""
    scopes: list[str]
    """What it may do."""
    tenant: str | None = None
    """Who is billed; by default the tenant of the administrator's key."""


class ChangeBody(_Limits):
    """The body of PATCH /admin/keys/{id}: only what it has is changed."""

    name: str | None = None
    """What it is for."""
    scopes: list[str] | None = None
    """What it may do."""


class RotateBody(_Body):
    """The body of POST /admin/keys/{id}/rotate."""

    grace_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0
    """For how long the old key is accepted beside the new one."""


class KeyObject(BaseModel):
    """A key without its secret."""

    id: str
    """The public part."""
    name: str
    """What it is for."""
    tenant: str | None
    """Who is billed."""
    scopes: list[str]
    """What it may do."""
    chains: list[str] | None
    """The chains that it may use; null for all."""
    requests_per_minute: int | None
    """Maximum requests in a minute."""
    tokens_per_minute: int | None
    """Maximum tokens in a minute."""
    parallel: int | None
    """Maximum requests under way at one time."""
    created: str
    """When it was made."""
    expires: str | None
    """When it ends."""
    revoked: str | None
    """When it was revoked."""
    previous_until: str | None
    """Until when the key that the last rotation replaced is accepted."""


class NewKeyObject(KeyObject):
    """A key with its secret, which is shown this once."""

    key: str
    """The key itself."""


class KeyList(BaseModel):
    """The answer of GET /admin/keys."""

    keys: list[KeyObject]
    """The keys in the order in which they were made."""


async def list_keys(call: Call) -> Answer:
    """List the keys that the administrator may see."""

    def work(engine: "sa.Engine") -> "list[StoredKey]":
        from hf_gateway.server.access import store

        return store.all_keys(engine, call.caller.tenant)

    found = await call.state.database.run(work)
    return _answer({"keys": [key.to_json() for key in found]})


async def create(call: Call) -> Answer:
    """Make a key."""
    body: NewKeyBody = call.parsed
    given = _rights(body)
    rights = KeyRights(**{**given, "tenant": body.tenant if body.tenant is not None else call.caller.tenant})

    def work(engine: "sa.Engine") -> "tuple[str, StoredKey]":
        from hf_gateway.server.access import store

        made = store.create_key(engine, rights, call.caller)
        _set_budgets(engine, made[1].id, body)
        return made

    return _new(*await _changed(call, work))


async def change(call: Call) -> Answer:
    """Change what a key allows."""
    body: ChangeBody = call.parsed
    changes = _rights(body)
    for name in ("name", "scopes"):
        if name in changes and changes[name] is None:
            raise Problem(400, "invalid_request", f"{name} cannot be null", param=name)

    def work(engine: "sa.Engine") -> "StoredKey":
        from hf_gateway.server.access import store

        found = store.change_key(engine, call.params["id"], changes, call.caller)
        _set_budgets(engine, found.id, body)
        return found

    return _answer((await _changed(call, work)).to_json())


async def rotate(call: Call) -> Answer:
    """Replace the secret part of a key."""
    body: RotateBody = call.parsed

    def work(engine: "sa.Engine") -> "tuple[str, StoredKey]":
        from hf_gateway.server.access import store

        return store.rotate_key(engine, call.params["id"], dt.timedelta(seconds=body.grace_seconds), call.caller)

    return _new(*await _changed(call, work))


async def revoke(call: Call) -> Answer:
    """End a key for good."""

    def work(engine: "sa.Engine") -> "StoredKey":
        from hf_gateway.server.access import store

        return store.revoke_key(engine, call.params["id"], call.caller)

    return _answer((await _changed(call, work)).to_json())


async def _changed(call: Call, work: "Callable[[sa.Engine], T]") -> T:
    """Change keys in the database, and look up all of them again. Raises Problem."""

    def checked(engine: "sa.Engine") -> T:
        from hf_gateway.server.access.store import NotNarrower, UnknownKey

        try:
            return work(engine)
        except NotNarrower as error:
            raise Problem(403, "not_narrower", error.message) from None
        except UnknownKey as error:
            raise Problem(404, "key_not_found", error.message) from None
        except ConfigError as error:
            raise Problem(400, "invalid_request", error.message) from None

    made = await call.state.database.run(checked)
    call.state.authenticator.forget()
    return made


def _rights(body: NewKeyBody | ChangeBody) -> dict[str, Any]:
    """Return the rights that a body has, as values of `KeyRights`."""
    given: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"usd_per_day", "usd_per_month", "tenant"})
    for name in ("scopes", "chains"):
        if given.get(name) is not None:
            given[name] = frozenset(given[name])
    return given


def _set_budgets(engine: "sa.Engine", key_id: str, body: NewKeyBody | ChangeBody) -> None:
    from hf_gateway.ledger.budgets import set_budget

    limits: dict[Period, Decimal | None] = {"day": body.usd_per_day, "month": body.usd_per_month}
    for period, limit in limits.items():
        if limit is not None:
            set_budget(engine, Budget(KEY_BUDGET + key_id, period, limit))


def _new(text: str, key: "StoredKey") -> Answer:
    return _answer({"key": text, **key.to_json()})


def _answer(found: dict[str, Any]) -> Answer:
    return Answer(dumps(found), headers=[_NOT_STORED])


_STATUSES = (404, 503)

ROUTES = (
    Route("GET", "/admin/keys", SURFACE, "admin", list_keys, "List keys", answer=KeyList, statuses=(503,)),
    Route(
        "POST",
        "/admin/keys",
        SURFACE,
        "admin",
        create,
        "Make a key, which is shown once",
        request=NewKeyBody,
        answer=NewKeyObject,
    ),
    Route(
        "PATCH",
        "/admin/keys/{id}",
        SURFACE,
        "admin",
        change,
        "Change what a key allows",
        request=ChangeBody,
        answer=KeyObject,
        statuses=_STATUSES,
    ),
    Route(
        "POST",
        "/admin/keys/{id}/rotate",
        SURFACE,
        "admin",
        rotate,
        "Replace the secret part of a key, and show the new key once",
        request=RotateBody,
        answer=NewKeyObject,
        statuses=_STATUSES,
    ),
    Route(
        "DELETE",
        "/admin/keys/{id}",
        SURFACE,
        "admin",
        revoke,
        "End a key for good",
        answer=KeyObject,
        statuses=_STATUSES,
    ),
)
