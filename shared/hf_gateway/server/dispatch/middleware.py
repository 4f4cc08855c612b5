"""The one ASGI middleware: ids, bounds, rights, the request's life from its first byte to its last.

It decides by the route table and by `scope["path"]` alone, never by a URL that a Host header has a part in. Routes of the table
are called from here; what is not in the table is an error in the form of the surface that its path belongs to.
"""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

from pydantic import ValidationError

from hf_gateway.errors import GatewayError
from hf_gateway.observing.tags import tagged
from hf_gateway.server import problems
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.dispatch.bodies import MAX_ENTRIES_COUNT, is_too_dense
from hf_gateway.server.dispatch.call import Answer, Call, RawHeaders, RequestIds
from hf_gateway.server.dispatch.limits import Admission
from hf_gateway.server.dispatch.routing import Surface
from hf_gateway.server.dispatch.state import ServerState
from hf_gateway.server.dispatch.streams import (
    CLIENT_WATCH,
    ClientLeft,
    ClientWatch,
    Receive,
    Send,
    StreamSender,
    until_client_leaves,
)
from hf_gateway.server.dispatch.tracing import continued_trace
from hf_gateway.server.problems import CLIENT_CLOSED_STATUS, Problem
from hf_gateway.settings.server import ServerSettings
from hf_gateway.values.image_type import image_type
from hf_gateway.values.logs import logger

log = logger(__name__)

REQUEST_ID = b"x-request-id"


class GatewayMiddleware:
    """Serves the route table; everything that is not an HTTP request goes on to the application."""

    def __init__(self, app: Any, state: ServerState, fallback: Surface) -> None:
        """Take the state.

        Args:
            app: the application.
            state: of the server.
            fallback: writes the errors of paths that belong to no surface.
        """
        self._app, self._state, self._fallback = app, state, fallback
        self._request_ids = RequestIds()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = self._state
        call = Call(state, scope, self._request_ids.next())
        state.in_flight[call.request_id] = call
        state.metrics.begin()
        status = CLIENT_CLOSED_STATUS
        try:
            status = await self._respond(call, receive, send)
        finally:
            del state.in_flight[call.request_id]
            seconds = time.monotonic() - call.began
            state.metrics.end(call, status, seconds)
            for notify in state.ended:
                notify(call, status, seconds)

    async def _respond(self, call: Call, receive: Receive, send: Send) -> int:
        """Answer a request, whatever happens; returns the status."""
        try:
            with self._state.deadlines.within(self._state.settings.request_seconds):
                return await self._serve(call, receive, send)
        except ClientLeft:
            return CLIENT_CLOSED_STATUS
        except asyncio.CancelledError:
            ending = Problem(503, "shutting_down", "the server is shutting down; try again", retry_after=1.0)
            await self._send_problem(call, ending, send)
            # The request has its answer and ends here; raised again, it would be logged as a fault of the program.
            return ending.status
        except Exception as error:  # noqa: BLE001 - every fault is an answer
            problem = self._problem_of(call, error)
            await self._send_problem(call, problem, send)
            return problem.status

    async def _serve(self, call: Call, receive: Receive, send: Send) -> int:
        state, scope = self._state, call.scope
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = call.headers
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        for name, value in raw:
            size += len(name) + len(value)
            headers.setdefault(name, value)
        call.path = _path_of(scope)
        if size > state.settings.max_header_bytes or len(raw) > state.settings.max_header_count:
            raise _headers_too_large(state.settings)
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise Problem(400, "unknown_encoding", "a body may be sent in chunks, and is not read in another encoding")
        if b"websocket" in headers.get(b"upgrade", b"").lower():
            # A client that is answered otherwise would take it for a fault of what it speaks, and try again.
            raise Problem(400, "no_websockets", "this server has no WebSockets; streams are answers to HTTP requests")
        for guard in state.guards:
            if (answered := guard(call)) is not None:
                return await _send_answer(call, answered, send)
        call.route, call.params = route, _ = state.routes.find(scope["method"], call.path)
        if route.scope is not PUBLIC:
            call.caller = await state.authenticator.caller_of(
                raw, cookie=call.source.own_page, anonymous=call.may_be_anonymous
            )
            if not route.admits(call.caller):
                raise call.scope_problem(route.scope)
            if route.of_all and not call.caller.sees_all:
                raise Problem(
                    403,
                    "not_of_all",
                    "this route is about all tenants and chains; it needs a key without a tenant and for all chains",
                )
        if not call.caller.is_limited:
            return await self._serve_caller(call, receive, send)
        async with Admission(state.limits, call) as admission:
            return await self._serve_caller(call, receive, admission.ending_with(send), admission)

    async def _serve_caller(self, call: Call, receive: Receive, send: Send, admission: Admission | None = None) -> int:
        """Serve a request whose caller may send it.

        Args:
            call: the request.
            receive: of ASGI.
            send: of ASGI.
            admission: what it holds of its caller's limits; None for a caller without any.
        """
        headers, route = call.headers, call.route
        if route.request is not None:
            call.body = await self._read_body(call, receive)
            if not (route.images and image_type(call.body)):
                if is_too_dense(call.body):
                    raise _too_many_entries(route.request.too_dense_advice)
                call.parsed = route.request.model_validate_json(call.body)
            if admission is not None:
                await admission.reserve_asked()
        work = self._work(call, send)
        caller = call.caller
        # A body that is not read may hold the connection's reading up, so that its end is only seen by who reads on.
        client: ClientWatch | None = call.scope.get(CLIENT_WATCH) if route.request is not None else None
        with tagged(caller.tenant, key=caller.key, request=call.request_id), continued_trace(headers):
            return await until_client_leaves(work, receive, client)

    async def _work(self, call: Call, send: Send) -> int:
        answer = await call.route.handler(call)
        if isinstance(answer, Answer):
            return await _send_answer(call, answer, send)
        call.sender = StreamSender(answer, send, _common(call), self._state.settings.ping_seconds)
        await call.sender.send_all()
        return 200

    async def _read_body(self, call: Call, receive: Receive) -> bytes:
        settings = self._state.settings
        most = settings.max_body_bytes
        length = call.headers.get(b"content-length", b"")
        if length.isdigit() and len(length) < 20 and int(length) > most:
            raise _too_large(most)
        client: ClientWatch | None = call.scope.get(CLIENT_WATCH)
        if client is not None and client.whole:
            message = await receive()  # which waits for nothing, and needs no timer
            found: bytes = message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body", False) and len(found) <= most:
                return found
            raise ClientLeft if message["type"] != "http.request" else _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_seconds) as limit:
                latest = limit.when() or 0.0
                message = await receive()
                while message["type"] == "http.request":
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join([*parts, part]) if parts else part
                    parts.append(part)
                    limit.reschedule(latest + size / settings.min_body_rate)
                    message = await receive()
        except TimeoutError:
            raise Problem(408, "body_too_slow", "the body of the request arrives too slowly") from None
        raise ClientLeft

    def _problem_of(self, call: Call, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, GatewayError):
            return call.problem_of(error)
        if isinstance(error, ValidationError):
            return problems.of_validation(error)
        if isinstance(error, TimeoutError):
            seconds = self._state.settings.request_seconds
            return Problem(504, "deadline_exceeded", f"the answer took more than {seconds:g} s", should_retry=False)
        log.error("%s: %s %s failed", call.request_id, call.scope["method"], call.path, exc_info=error)
        return problems.unexpected(call.request_id)

    async def _send_problem(self, call: Call, problem: Problem, send: Send) -> None:
        if call.sender is not None and call.sender.started:
            await call.sender.send_error(problem)
            return
        surface = call.route.surface if call.route is not None else self._state.routes.surface_of(call.path)
        surface = surface or self._fallback
        answer = Answer(surface.error(problem), problem.status, surface.media_type, problem.raw_headers())
        if problem.status in (408, 413, 431):
            # What the client is still sending would be read as its next request.
            answer.headers.append((b"connection", b"close"))
        await _send_answer(call, answer, send)


def _path_of(scope: Any) -> str:
    """Return the path without the server's root path, which a proxy may or may not have removed."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    for _ in range(2):
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
    return path


def _common(call: Call) -> RawHeaders:
    return [(REQUEST_ID, call.request_id.encode()), *call.extra]


async def _send_answer(call: Call, answer: Answer, send: Send) -> int:
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.raw_headers(), *_common(call)],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})
    return answer.status


def _headers_too_large(settings: ServerSettings) -> Problem:
    return Problem(
        431,
        "headers_too_large",
        f"the request has more than {settings.max_header_count:,} headers, or they have more than "
        f"{settings.max_header_bytes:,} bytes with its path and query",
    )


def _too_many_entries(advice: str) -> Problem:
    return Problem(
        400,
        "too_many",
        f"the body has more than {MAX_ENTRIES_COUNT:,} entries in its lists and objects, and this server reads no more in one "
        f"request; {advice}",
    )


def _too_large(most: int) -> Problem:
    return Problem(413, "body_too_large", f"the body has more than {most:,} bytes")
