"""The route table: what each surface answers, who may call it, and how it is described.

One row decides everything about a route: its path, the scope that it needs, the models of its body and of its answer. Whatever is
not in the table does not exist, and a row without a scope does not start.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from hf_gateway.server.access.caller import PUBLIC, SCOPES, Caller
from hf_gateway.server.dispatch.bodies import Body
from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.problems import Problem

Handler = Callable[[Call], Awaitable[Answer | Stream]]
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")
UNDER_CHAIN = "/tei/{chain:path}"
"""The base of the URLs that serve one chain."""


@dataclass(frozen=True)
class Surface:
    """A family of routes that clients of one kind call."""

    name: str
    """Its name, which is the tag in the OpenAPI document."""
    error: Callable[[Problem], bytes]
    """Writes a problem as this surface's body of an error."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of paths whose unknown ones answer in this surface's form."""
    media_type: bytes = b"application/json"
    """Type of the body of an error."""
    problem: type[BaseModel] | None = None
    """The model of the body of an error."""
    left_out: tuple[str, ...] = ()
    """Paths of its API that are not served, written as a route's: 404, though a row that takes any id may fit them, too."""


@dataclass(frozen=True)
class Route:
    """One row of the table."""

    method: str
    """GET, POST and so on; GET answers HEAD, too."""
    path: str
    """The path; `{name}` is one segment, `{name:path}` is any number of them."""
    surface: Surface
    """The surface, which writes errors in its own form."""
    scope: str
    """The scope that a caller needs; PUBLIC for none."""
    handler: Handler
    """Answers a call."""
    summary: str
    """What it does, for the OpenAPI document."""
    request: type[Body] | None = None
    """The model of the body; None if the body is not read."""
    answer: type[BaseModel] | None = None
    """The model of the answer; None for one that is not a JSON object."""
    streams: bool = False
    """Whether the answer may be a stream."""
    media_type: str = "application/json"
    """Type of the answer."""
    of_all: bool = False
    """Whether it is about all tenants and chains, so that a caller with a tenant, or with some chains, is refused."""
    statuses: tuple[int, ...] = ()
    """Statuses of its answers beside 200 and those that every route has."""
    other_scopes: tuple[str, ...] = ()
    """Scopes that admit a caller, too; the handler then asks for the right one by `Call.require_scope`."""
    images: bool = False
    """Whether the body may also be an image; it is then in `Call.body` alone."""
    success: int | None = 200
    """The status of a request that succeeds; 204 has no content, and None is of a route that refuses every request."""
    stream_type: str = "text/event-stream"
    """Type of the answer if it is a stream."""
    query: type[BaseModel] | None = None
    """The model of the query's parameters, which the handler reads by `Call.parse_query`."""

    def admits(self, caller: Caller) -> bool:
        """Return whether a caller has a scope that the route asks for."""
        return any(caller.may(scope) for scope in (self.scope, *self.other_scopes))


_CHAT_ADVICE = "ask /v1/chat/completions"
LEFT_OUT: Mapping[str, str] = {
    "/v1/responses": f"{_CHAT_ADVICE}, by `chat.completions` of the client",
    "/v1/messages": _CHAT_ADVICE,
    "/v1/audio/speech": "there is no task for audio over HTTP",
    "/v1/audio/transcriptions": "there is no task for audio over HTTP",
    "/tokenize": "GET /v1/models has the length that a chain's model accepts",
    "/similarity": "compare the vectors of /embed",
}
"""Routes of other servers that clients look for, and what takes their place."""


class RouteTable:
    """The rows, found by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Check and order the rows. Raises ValueError for a row without a scope, or two for the same requests."""
        self.routes = tuple(routes)
        by_shape: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            for scope in (route.scope, *route.other_scopes):
                if scope not in (*SCOPES, PUBLIC):
                    raise ValueError(f"the route {route.method} {route.path} has no scope: {scope!r}")
            methods = by_shape.setdefault(route.path, {})
            for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
                if method in methods and method != "HEAD":
                    raise ValueError(f"the route {route.method} {route.path} is there twice")
                methods[method] = route
        self.surfaces = tuple(dict.fromkeys(route.surface for route in self.routes))
        surfaces = {path: next(iter(methods.values())).surface for path, methods in by_shape.items()}
        for surface in self.surfaces:
            for path in surface.left_out:
                if path in by_shape:
                    raise ValueError(f"{path} is a route, and left out")
                by_shape[path], surfaces[path] = {}, surface
        self._fixed = {path: (methods, surfaces[path]) for path, methods in by_shape.items() if "{" not in path}
        self._patterns = [
            (_pattern(path), by_shape[path], surfaces[path])
            for path in sorted(by_shape, key=_fixed_length, reverse=True)
            if "{" in path
        ]

    def __iter__(self) -> Iterator[Route]:
        """Iterate over the rows."""
        return iter(self.routes)

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Return the row of a request, and the parameters of its path.

        Args:
            method: of the request.
            path: decoded, without the server's root path.

        Raises:
            Problem: 404 or 405.
        """
        methods, _, params = self._row(path)
        if not methods:
            raise Problem(404, "not_found", f"there is no route {path[:200]!r}{self._advice(path)}")
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise Problem(
                405,
                "method_not_allowed",
                f"{path[:200]} answers {allowed}, not {method[:20]}",
                headers=((b"allow", allowed.encode()),),
            )
        return route, params

    def surface_of(self, path: str) -> Surface | None:
        """Return the surface in whose form an error of a path is written: its route's, or that of its beginning."""
        _, surface, _ = self._row(path)
        if surface is not None:
            return surface
        for each in self.surfaces:
            if path.startswith(each.prefixes or ("\0",)):
                return each
        meant, _ = self._meant(path)
        return self._row(meant)[1]

    def _advice(self, path: str) -> str:
        """Return what a client that asked for a path that is not there probably has to change; empty if that is not known."""
        if path in LEFT_OUT:
            return f", which is left out here; {LEFT_OUT[path]}"
        meant, ends = self._meant(path)
        return f"; did you mean {meant[:200]!r}? The base URL of OpenAI's clients {ends} with /v1" if meant else ""

    def _meant(self, path: str) -> tuple[str, str]:
        """Return the path that was meant with another base URL, and how that URL ends; both empty for any other path."""
        if self._row(path)[1] is not None:
            return "", ""  # left out below a chain, whatever its base URL is
        for meant, ends in ((f"/v1{path}", "ends"), (path.replace("/v1/v1/", "/v1/", 1), "ends once")):
            if meant != path and self._row(meant)[0]:
                return meant, ends
        return "", ""

    def _row(self, path: str) -> tuple[Mapping[str, Route], Surface | None, Mapping[str, str]]:
        """Return the routes of a path by their methods, their surface, and the path's parameters."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return *fixed, {}
        for pattern, methods, surface in self._patterns:
            if (found := pattern.fullmatch(path)) is not None:
                return methods, surface, found.groupdict()
        return {}, None, {}


def _fixed_length(path: str) -> int:
    """Return how much of a path is fixed: of two that fit a request, the one with more is meant."""
    return len(_PARAMETER.sub("", path))


def _pattern(path: str) -> re.Pattern[str]:
    """Return the expression of a path with parameters."""
    made, end = "", 0
    for found in _PARAMETER.finditer(path):
        made += re.escape(path[end : found.start()]) + f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"
        end = found.end()
    return re.compile(made + re.escape(path[end:]), re.DOTALL)
