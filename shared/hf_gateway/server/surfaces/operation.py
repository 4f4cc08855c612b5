"""Operation: whether the process lives, whether it is ready, its version, its metrics, its OpenAPI document."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from hf_gateway._version import __version__
from hf_gateway.server import problems
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.access.credentials import read_credential
from hf_gateway.server.dispatch.call import TEXT, Answer, Call
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.wire.json import dumps


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error: `{"error": message, "code": code}`."""
    return dumps(problems.as_dict(problem))


class PlainError(BaseModel):
    """The body of an error."""

    error: str
    """What happened, and what to do."""
    code: str
    """A short name of it."""


SURFACE = Surface("operation", write_problem, problem=PlainError)


class Version(BaseModel):
    """The version of the server."""

    name: str
    """Always `hf-gateway`."""
    version: str
    """Its version."""


async def live(_: Call) -> Answer:
    """Answer "ok": the process serves requests. Reads no file, sends no request."""
    return Answer(b"ok", media_type=TEXT)


async def ready(call: Call) -> Answer:
    """Answer in one word whether requests are welcome; who may read learns, too, what does not work as it is set."""
    state = call.state
    if state.ready:
        notes = sorted(state.notes) if state.notes and await _may_read(call) else []
        told = "".join(f"\nnote: {about}, see /admin/status" for about in notes)
        return Answer(f"ready{told}".encode(), media_type=TEXT)
    word = b"draining" if state.draining else b"unready"
    return Answer(word, 503, TEXT, [(b"retry-after", b"1")])


async def _may_read(call: Call) -> bool:
    """Return whether the caller may read; a probe without a key waits for no database."""
    authenticator, cookie = call.state.authenticator, call.source.own_page
    headers = call.scope["headers"]
    try:
        if read_credential(headers, cookie=cookie) is None:
            return call.may_be_anonymous and not authenticator.needs_key
        return (await authenticator.caller_of(headers, cookie=cookie, anonymous=call.may_be_anonymous)).may("read")
    except Problem:
        return False


async def version(_: Call) -> Answer:
    """Answer with the version."""
    return Answer(dumps({"name": "hf-gateway", "version": __version__}))


async def metrics(call: Call) -> Answer:
    """Answer with the metrics of this server's processes, in Prometheus's text format."""
    body = await asyncio.to_thread(call.state.metrics.text)
    return Answer(body, media_type=CONTENT_TYPE_LATEST.encode())


async def openapi(call: Call) -> Answer:
    """Answer with the OpenAPI document."""
    import json

    from hf_gateway.server.dispatch.openapi import openapi_document

    needs_key = call.state.authenticator.needs_key or not call.may_be_anonymous
    document = openapi_document(call.state.routes, call.settings.root_path, needs_key=needs_key)
    return Answer(json.dumps(document).encode())


ROUTES = (
    Route("GET", "/livez", SURFACE, PUBLIC, live, "Whether the process lives", media_type="text/plain"),
    Route("GET", "/health", SURFACE, PUBLIC, live, "Whether the process lives", media_type="text/plain"),
    Route("GET", "/healthz", SURFACE, PUBLIC, live, "Whether the process lives", media_type="text/plain"),
    Route(
        "GET",
        "/readyz",
        SURFACE,
        PUBLIC,
        ready,
        "Whether requests are welcome",
        media_type="text/plain",
        statuses=(503,),
    ),
    Route("GET", "/version", SURFACE, PUBLIC, version, "The version of the server", answer=Version),
    Route(
        "GET",
        "/metrics",
        SURFACE,
        "metrics",
        metrics,
        "Metrics in Prometheus's text format",
        media_type="text/plain",
        of_all=True,
    ),
    Route("GET", "/openapi.json", SURFACE, PUBLIC, openapi, "This document"),
)
