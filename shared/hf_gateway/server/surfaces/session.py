"""Signing in from a browser: a key or token is sent once, in a header, and exchanged for a cookie that scripts cannot read."""

from typing import TYPE_CHECKING

from pydantic import BaseModel

from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.access.credentials import COOKIE, read_credential
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.operation import PlainError, write_problem
from hf_gateway.wire.json import dumps

if TYPE_CHECKING:
    import sqlalchemy as sa

SURFACE = Surface("page", write_problem, ("/ui/",), problem=PlainError)
_NOT_STORED = (b"cache-control", b"no-store")


class SessionObject(BaseModel):
    """Who is signed in."""

    needs_key: bool
    """Whether this server's callers need a key."""
    key: str | None
    """The public part of the key, or issuer and subject of the token."""
    tenant: str | None
    """Who is billed."""
    scopes: list[str]
    """What the caller may do."""
    chains: list[str] | None
    """The chains that the caller may use; null for all."""


async def sign_in(call: Call) -> Answer:
    """Exchange the request's credential for a cookie; without one, answer who is signed in already."""
    if not call.source.own_page:
        raise Problem(403, "foreign_origin", "a browser signs in from this server's own page")
    caller = call.caller
    credential = read_credential(call.scope["headers"], cookie=False)
    headers = [_NOT_STORED]
    if caller.key is not None and credential is not None:
        sha256 = credential.key.sha256 if credential.key is not None else None

        def work(engine: "sa.Engine") -> tuple[str, float]:
            import time

            from hf_gateway.server.access.sessions import begin_session

            now = time.time()
            text, expires = begin_session(engine, caller, sha256, now)
            return text, expires - now

        text, seconds = await call.state.database.run(work)
        headers.append((b"set-cookie", _cookie(call, text, max(0, round(seconds)))))
    found = {
        "needs_key": call.state.authenticator.needs_key,
        "key": caller.key,
        "tenant": caller.tenant,
        "scopes": sorted(caller.scopes),
        "chains": None if caller.chains is None else sorted(caller.chains),
    }
    return Answer(dumps(found), headers=headers)


async def sign_out(call: Call) -> Answer:
    """End the session of the request's cookie."""
    found = read_credential([pair for pair in call.scope["headers"] if pair[0] == b"cookie"])
    if found is not None and call.source.own_page:
        text = found.text

        def work(engine: "sa.Engine") -> None:
            from hf_gateway.server.access.sessions import end_session

            end_session(engine, text)

        await call.state.database.run(work)
        call.state.authenticator.forget_session(text)
    return Answer(status=204, headers=[_NOT_STORED, (b"set-cookie", _cookie(call, "", 0))])


def _cookie(call: Call, text: str, seconds: int) -> bytes:
    """Return the value of Set-Cookie: no script reads it, and no other site's page sends it."""
    path = call.settings.root_path or "/"
    secure = "; Secure" if call.source.scheme == "https" else ""
    return f"{COOKIE}={text}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}".encode("ascii")


ROUTES = (
    Route(
        "POST",
        "/ui/session",
        SURFACE,
        "read",
        sign_in,
        "Exchange a key or token for a browser's cookie",
        answer=SessionObject,
        statuses=(503,),
    ),
    Route("DELETE", "/ui/session", SURFACE, PUBLIC, sign_out, "End a browser's session", statuses=(503,), success=204),
)
