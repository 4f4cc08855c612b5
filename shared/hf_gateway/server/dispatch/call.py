"""One request on its way through the server, and what a handler returns."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hf_gateway.errors import GatewayError
from hf_gateway.server import problems
from hf_gateway.server.access.caller import UNKNOWN, Caller
from hf_gateway.server.access.origins import Source
from hf_gateway.server.dispatch.chain import Chain, UnknownModel
from hf_gateway.server.dispatch.chains import ChainTable
from hf_gateway.server.problems import Problem
from hf_gateway.settings.server import ServerSettings
from hf_gateway.values.result import Result
from hf_gateway.wire.spaces import SPACE_HEADER

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.server.dispatch.routing import Route
    from hf_gateway.server.dispatch.state import ServerState
    from hf_gateway.server.dispatch.streams import StreamSender
    from hf_gateway.tasks.chat.streams import AsyncChatStream

RawHeaders = list[tuple[bytes, bytes]]

T = TypeVar("T")

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
SPACE = SPACE_HEADER.encode()
SERVED_BY = b"x-hf-gateway-served-by"
TARGET = b"x-hf-gateway-target"
_ID_BYTES = 12
_IDS_PER_DRAW = 256


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    body: bytes = b""
    """Its bytes."""
    status: int = 200
    """HTTP status."""
    media_type: bytes = JSON
    """Type of the body."""
    headers: RawHeaders = field(default_factory=list)
    """More headers, names in lower case."""

    def raw_headers(self) -> RawHeaders:
        """Return all headers but those that every answer has."""
        if self.status == 304:
            return self.headers  # a length here would be taken for that of what the client has already
        found: RawHeaders = [(b"content-length", b"%d" % len(self.body))]
        if self.status != 204:
            found.append((b"content-type", self.media_type))
        found += self.headers
        return found


@dataclass(slots=True)
class Stream:
    """An answer in pieces. Until the first one, an error is a whole answer with its own status."""

    pieces: AsyncIterator[bytes]
    """Whole events or lines; each is sent at once, and pings only between two of them."""
    error: Callable[[Problem], bytes]
    """Writes the event for a failure after the first piece, which ends the stream."""
    ping: bytes = b": ping\n\n"
    """What is sent after silence."""
    media_type: bytes = b"text/event-stream; charset=utf-8"
    """Type of the stream."""
    headers: Callable[[], RawHeaders] = list
    """Returns more headers; called when the first piece is there, so that they may name the target that serves."""

    def raw_headers(self) -> RawHeaders:
        """Return all headers but those that every answer has."""
        return [
            (b"content-type", self.media_type),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self.headers(),
        ]


class RequestIds:
    """Makes the ids of requests."""

    def __init__(self) -> None:
        """Draw none yet."""
        self._drawn, self._place, self._pid = "", 0, 0

    def next(self) -> str:
        """Return a new id."""
        # To draw the bytes of each by itself releases the interpreter's lock, and a busy server waits to get it back.
        if self._place >= len(self._drawn) or self._pid != os.getpid():
            self._drawn, self._place, self._pid = os.urandom(_ID_BYTES * _IDS_PER_DRAW).hex(), 0, os.getpid()
        self._place += 2 * _ID_BYTES
        return f"req_{self._drawn[self._place - 2 * _ID_BYTES : self._place]}"


class Call:
    """One request: who calls, what is wanted, and which chain answers."""

    __slots__ = (
        "_chain",
        "began",
        "body",
        "caller",
        "extra",
        "headers",
        "may_be_anonymous",
        "params",
        "parsed",
        "path",
        "request_id",
        "route",
        "scope",
        "sender",
        "source",
        "state",
        "table",
        "used",
    )

    def __init__(self, state: "ServerState", scope: Mapping[str, Any], request_id: str) -> None:
        """Begin, with the table of chains that is in force now.

        Args:
            state: of the server.
            scope: of ASGI.
            request_id: the id of this request.
        """
        self.state, self.scope, self.request_id = state, scope, request_id
        self.table: ChainTable = state.chains
        """The chains; the same ones to the request's end, also after a reload."""
        self.headers: dict[bytes, bytes] = {}
        """The request's headers by names in lower case; of a repeated one the first."""
        self.path: str = ""
        """The decoded path, without the server's root path."""
        self.extra: RawHeaders = []
        """Headers that the answer gets whatever it is."""
        self.sender: StreamSender | None = None
        """What sends the answer, if it is a stream."""
        self.params: Mapping[str, str] = {}
        """What the path's parameters are."""
        self.source = Source(None, "http", own_page=False)
        """From where the request comes."""
        self.may_be_anonymous = False
        """Whether its caller needs no key while the server has none."""
        self.caller: Caller = UNKNOWN
        """Who calls."""
        self.body: bytes = b""
        """The request's body."""
        self.parsed: Any = None
        """The body, as an instance of the route's `request`."""
        self._chain: Chain | None = None
        self.used: list[Chain] = []
        """Every chain that it has used, which no one closes before its end."""
        self.route = cast("Route", None)
        """The route."""
        self.began = time.monotonic()
        """When it began."""

    @property
    def chain(self) -> Chain | None:
        """The chain that was found, for logs and metrics."""
        return self._chain

    @chain.setter
    def chain(self, chain: Chain | None) -> None:
        self._chain = chain
        if chain is not None:
            self.used.append(chain)

    @property
    def settings(self) -> ServerSettings:
        """The settings of the server."""
        return self.state.settings

    def query(self, name: str) -> str | None:
        """Return the first value of a parameter in the query, or None."""
        from urllib.parse import parse_qs

        raw: bytes = self.scope.get("query_string", b"")
        return parse_qs(raw.decode("latin-1"), keep_blank_values=True).get(name, [None])[0]

    def parse_query(self) -> Any:
        """Return the query's parameters as an instance of the route's `query`.

        Raises:
            Problem: 400 if one is there twice or is not text.
            ValidationError: one is unknown or invalid.
        """
        from urllib.parse import parse_qsl

        assert self.route.query is not None
        raw: bytes = self.scope.get("query_string", b"")
        found: dict[str, str] = {}
        try:
            pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError:
            raise Problem(400, "invalid_request", "the query has bytes that are not text, or too many parts") from None
        for name, value in pairs:
            if name in found:
                raise Problem(400, "invalid_request", f"{name[:50]} is in the query twice", param=name[:50])
            found[name] = value
        return self.route.query.model_validate(found)

    def require_scope(self, scope: str) -> None:
        """Raise Problem if the caller does not have a scope."""
        if scope not in self.caller.scopes:
            raise self.scope_problem(scope)

    def scope_problem(self, scope: str) -> Problem:
        """Return the problem of a caller without a scope: 401 without a key, 403 with one."""
        if self.caller.key is None:
            return Problem(
                401,
                "key_required",
                f"this route needs a key with the scope {scope!r}; make one with `hf-gateway keys create`",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        return Problem(
            403, "scope_missing", f"this route needs a key with the scope {scope!r}, which yours does not have"
        )

    def find_chain(self, model: str | None, task: str) -> Chain:
        """Return the chain that answers, with the target that the header `x-hf-gateway-target` picks.

        Below `/tei/{chain}` it is that chain, whatever the body names.

        Args:
            model: what the request calls its model; None or "" for nothing.
            task: the name of the task.

        Raises:
            Problem: 404 if it does not exist, 403 if the caller may not use it.
        """
        try:
            chain = self.table.find(self.params.get("chain") or model, task, may_open="any-model" in self.caller.scopes)
        except UnknownModel as unknown:
            raise self.unknown_model(model, unknown) from None
        return self.use_chain(chain)

    def unknown_model(self, model: str | None, unknown: UnknownModel | None) -> Problem:
        """Return the 404 for a model that no chain has.

        Args:
            model: what the request calls its model.
            unknown: names the nearest ones, which may be of chains that this caller does not know of.
        """
        words = unknown.message if unknown else ""
        if self.caller.chains is not None:
            words = f"this key may use no model {(model or '')[:200]!r}"
        return problems.not_found(words, "model", "model_not_found")

    def use_chain(self, chain: Chain) -> Chain:
        """Return a chain as this caller may use it, and remember it for logs and metrics. Raises Problem."""
        if not chain.opened and not self.caller.may_use(chain.name):
            raise Problem(403, "chain_forbidden", f"this key may not use the chain {chain.name!r}", param="model")
        if (target := self.headers.get(TARGET)) is not None:
            if "read" not in self.caller.scopes:
                raise Problem(403, "scope_missing", "the header x-hf-gateway-target needs a key with the scope 'read'")
            try:
                chain = chain.with_target(target.decode("latin-1"))
            except UnknownModel as unknown:
                raise Problem(400, "target_not_found", unknown.message) from None
        self.chain = chain
        return chain

    async def read_ledger(self, read: "Callable[[sa.Engine], T]") -> T:
        """Read the ledger or its budgets in a thread: for a caller with a tenant, the rows of this tenant alone.

        Args:
            read: gets the database, of which it sees what the caller may.

        Raises:
            Problem: 503 if the database failed.
        """
        tenant = self.caller.tenant

        def work(engine: "sa.Engine") -> T:
            if tenant is None:
                return read(engine)
            from hf_gateway.ledger.tenant_reads import check_reader, engine_of_tenant

            check_reader(engine)
            return read(engine_of_tenant(engine, tenant))

        return await self.state.database.run(work, patient=True)

    def demand_space(self, space_id: str) -> None:
        """Raise Problem 412 if the request demands another vector space than the one that the answer would have."""
        if SPACE not in self.headers:
            return
        # Each of them, if a proxy has added one to the client's.
        for name, value in self.scope["headers"]:
            if name == SPACE and (wanted := value.decode("latin-1")) != space_id:
                raise Problem(
                    412,
                    "space_mismatch",
                    f"the request demands vectors of the space {wanted!r}, and this chain's are of {space_id!r}; nothing was "
                    "computed",
                    headers=((SPACE, header_value(space_id)),),
                )

    def served_headers(self, result: Result, *more: tuple[bytes, bytes]) -> RawHeaders:
        """Return the header that names the targets of a result, and more headers."""
        assert self.chain is not None
        return [(SERVED_BY, header_value(self.chain.served_by(result.served_by))), *more]

    def serving_headers(self, stream: "AsyncChatStream") -> Callable[[], RawHeaders]:
        """Return what makes the headers of a streamed answer: its target, unless a ping has to go first."""
        chain = self.chain
        assert chain is not None

        def headers() -> RawHeaders:
            target = stream.served_by
            return [] if target is None else [(SERVED_BY, header_value(chain.served_by(target)))]

        return headers

    def problem_of(self, error: GatewayError) -> Problem:
        """Return the problem of a gateway's error, without the addresses of targets."""
        return problems.of_error(error, self.chain.public if self.chain is not None else str)

    def check_count(self, values: Sequence[Any], most: int, param: str) -> None:
        """Raise Problem 400 if a list of the body is longer than allowed.

        Args:
            values: the list.
            most: how many are allowed.
            param: its name.
        """
        if len(values) > most:
            raise Problem(
                400,
                "too_many",
                f"{param} has {len(values):,} entries, and this server accepts {most:,} in one request",
                param=param,
            )


def header_value(text: str) -> bytes:
    """Return a text as the value of a header: characters that it cannot hold are escaped as in a URL."""
    if text.isascii() and text.isprintable():
        return text.encode()
    from urllib.parse import quote

    return quote(text, safe=" !#$&'()*+,/:;=?@[]~").encode()
