"""Finds the caller of a request by a key, a token or a browser's session.

What the database says of a credential is remembered for at most 5 seconds, by the SHA-256 of the whole credential: so long a
change or a revocation takes to be seen by every process. Expiry is checked at each request.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_gateway.server.access.caller import ANONYMOUS, Caller, RawHeaders
from hf_gateway.server.access.credentials import Credential, read_credential
from hf_gateway.server.access.database import ServerDatabase
from hf_gateway.server.access.keys import digest
from hf_gateway.server.problems import Problem

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.server.access.jwt import TokenVerifier
    from hf_gateway.server.access.sessions import Session
    from hf_gateway.server.access.store import StoredKey

MEMORY_S = 5.0
"""Seconds for which an answer of the database is used."""
MAX_REMEMBERED_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class _Remembered:
    """An answer of the database."""

    until: float
    """By the monotonic clock."""
    found: "StoredKey | Session"


class KeyAuthenticator:
    """The callers of one server process."""

    def __init__(
        self,
        database: ServerDatabase,
        tokens: "TokenVerifier | None" = None,
        *,
        anonymous: bool = True,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the database; nothing is connected yet.

        Args:
            database: the server's.
            tokens: verifies tokens of the configured issuers.
            anonymous: whether callers without a key are served while there are no keys.
            now: returns seconds since 1970.
            monotonic: returns seconds of a monotonic clock.
        """
        self._database, self._tokens = database, tokens
        self._anonymous = anonymous and tokens is None
        self._now, self._monotonic = now, monotonic
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Any]] = {}
        self._keyless_until = float("-inf")

    async def caller_of(self, headers: RawHeaders, *, cookie: bool = True, anonymous: bool = True) -> Caller:
        """Return the caller.

        Args:
            headers: the request's, names in lower case; a name may stand several times.
            cookie: whether a browser's cookie counts: not if another origin's page sent it.
            anonymous: whether a caller without a key may be served while there are no keys: not beyond loopback.

        Raises:
            Problem: 400 for two credentials, 401 for none or an invalid one, 503 if the database cannot be read.
        """
        credential = read_credential(headers, cookie=cookie)
        if credential is not None and credential.kind != "other":
            caller = await self._caller(credential)
            if caller is not None:
                return caller
            if credential.kind in ("key", "token"):
                raise invalid_credential()
        if anonymous and await self.is_open():
            # Clients insist on sending some key; one that is not of this server means nothing here.
            return ANONYMOUS
        raise invalid_credential() if credential is not None else key_required()

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key, as far as it is known."""
        return not self._anonymous

    def check_keys(self) -> bool:
        """Look into the database whether callers need a key, and return it; blocks. Raises what the database raises."""
        began = self._monotonic()
        if self._anonymous and self._has_keys():
            # For good: what was protected once does not open again while the process lives.
            self._anonymous = False
        self._keyless_until = began + MEMORY_S
        return self.needs_key

    async def is_open(self) -> bool:
        """Return whether callers need no key. Raises Problem 503."""
        if self._anonymous and self._monotonic() >= self._keyless_until:
            await self._database.in_thread(self.check_keys)
        return self._anonymous

    def forget(self) -> None:
        """Ask the database again at the next request, after a change by this process."""
        self._remembered.clear()
        self._keyless_until = float("-inf")

    def forget_session(self, text: str) -> None:
        """Ask the database again for one session; what is known of all others stays.

        Args:
            text: the cookie's value.
        """
        self._remembered.pop(digest(text), None)

    async def aclose(self) -> None:
        """Close the connections to issuers."""
        if self._tokens is not None:
            await self._tokens.aclose()

    async def _caller(self, credential: Credential) -> Caller | None:
        if credential.kind == "token":
            return None if self._tokens is None else await self._tokens.caller_of(credential.text)
        now = self._now()
        if credential.key is not None:
            key = credential.key
            stored: StoredKey | None = await self._look_up(key.sha256, lambda engine: _find_key(engine, key.id))
            return stored.caller if stored is not None and stored.accepts(key.sha256, now) else None
        sha256 = digest(credential.text)
        session: Session | None = await self._look_up(sha256, lambda engine: _find_session(engine, sha256))
        caller = None if session is None else session.caller(now)
        if session is None or caller is None or session.token_caller is None:
            return caller
        # A reload may have taken its issuer away, or some of its rights, and a token itself would be refused.
        return None if self._tokens is None else self._tokens.granted_now(caller)

    async def _look_up(self, sha256: bytes, find: "Callable[[sa.Engine], Any]") -> Any:
        """Return what the database has of a credential; requests with the same one ask together."""
        known = self._remembered.get(sha256)
        if known is not None and self._monotonic() < known.until:
            return known.found
        task = self._asking.get(sha256)
        if task is None:
            task = asyncio.create_task(self._ask(sha256, find))
            self._asking[sha256] = task
            task.add_done_callback(lambda done: self._end_asking(sha256, done))
        return await asyncio.shield(task)

    def _end_asking(self, sha256: bytes, done: "asyncio.Task[Any]") -> None:
        self._asking.pop(sha256, None)
        if not done.cancelled():
            done.exception()  # each waiting request has it; without one it would be reported as lost

    async def _ask(self, sha256: bytes, find: "Callable[[sa.Engine], Any]") -> Any:
        began = self._monotonic()
        found = await self._database.run(find)
        self._remembered.pop(sha256, None)
        if found is not None:
            self._remembered[sha256] = _Remembered(began + MEMORY_S, found)
            while len(self._remembered) > MAX_REMEMBERED_ENTRIES:
                self._remembered.popitem(last=False)
        return found

    def _has_keys(self) -> bool:
        if not self._database.exists:
            return False  # and nothing is made or imported for it
        from hf_gateway.server.access.store import has_keys

        return has_keys(self._database.engine())


# Imported in a thread: SQLAlchemy takes tenths of a second.


def _find_key(engine: "sa.Engine", key_id: str) -> "StoredKey | None":
    from hf_gateway.server.access.store import find_key

    return find_key(engine, key_id)


def _find_session(engine: "sa.Engine", sha256: bytes) -> "Session | None":
    from hf_gateway.server.access.sessions import find_session

    return find_session(engine, sha256)


def key_required() -> Problem:
    """Return the problem of a request without a credential."""
    return Problem(
        401,
        "key_required",
        "this server needs a key in the header 'authorization: Bearer …'; its administrator makes one with "
        "`hf-gateway keys create`",
        headers=((b"www-authenticate", b"Bearer"),),
    )


def invalid_credential() -> Problem:
    """Return the problem of an invalid credential, whatever is wrong with it; it is not repeated."""
    return Problem(
        401,
        "invalid_key",
        "the key is unknown, revoked or expired; its administrator sees which with `hf-gateway keys list`",
        headers=((b"www-authenticate", b'Bearer error="invalid_token"'),),
    )
