"""The OpenAPI 3.1 document, made of the route table."""

import re
from typing import Any

from pydantic.json_schema import models_json_schema

from hf_gateway._version import __version__
from hf_gateway.server.access.caller import ANONYMOUS_SCOPES, PUBLIC
from hf_gateway.server.dispatch.routing import Route, RouteTable

_REFERENCE = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}
_TEXT = "text/plain"
_COMMON = {400: "the request is invalid", 431: "the headers are too large"}
_WITH_KEY = {401: "there is no valid credential", 403: "the credential does not have the scope"}
_WITH_BODY = {408: "the body arrives too slowly", 413: "the body is too large"}
_WORDS = {
    204: "done; there is no content",
    304: "the client has it already",
    308: "it is at another path",
    402: "a budget is used up",
    404: "there is no such model",
    405: "the method is not allowed",
    409: "it cannot be done in this state",
    412: "the vectors would be of another space than the request demands",
    422: "the configuration is invalid",
    429: "too many requests",
    500: "the server failed",
    501: "the model cannot do this",
    502: "a target failed",
    503: "nothing can serve the request now",
    504: "the answer took too long",
}


def openapi_document(table: RouteTable, root_path: str = "", *, needs_key: bool = True) -> dict[str, Any]:
    """Return the document.

    Args:
        table: the routes.
        root_path: the path under which a proxy serves them.
        needs_key: whether callers need a key; without, only the routes that always need one ask for it.
    """
    models = [
        *((route.request, "validation") for route in table if route.request is not None),
        *((route.answer, "serialization") for route in table if route.answer is not None),
        *((surface.problem, "serialization") for surface in table.surfaces if surface.problem is not None),
    ]
    names, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REFERENCE)  # type: ignore[arg-type]
    paths: dict[str, Any] = {}
    for route in table:
        operation = _operation(route, names, needs_key=needs_key)
        paths.setdefault(re.sub(r":path\}", "}", route.path), {})[route.method.lower()] = operation
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "hf-gateway",
            "version": __version__,
            "description": "Chains of models behind the APIs that clients already speak.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "tags": [{"name": surface.name} for surface in table.surfaces],
    }
    if root_path:
        document["servers"] = [{"url": root_path}]
    return document


def _operation(route: Route, names: Any, *, needs_key: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.surface.name],
        "operationId": _operation_id(route),
        "responses": {} if route.success is None else {str(route.success): _success(route, names)},
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)(?::path)?\}", route.path)
    ]
    if parameters := parameters + _query_parameters(route):
        made["parameters"] = parameters
    if route.scope is not PUBLIC:
        if needs_key or not {route.scope, *route.other_scopes} & ANONYMOUS_SCOPES:
            made["security"] = [{"key": []}]
        made["description"] = (
            f"Needs the scope {' or '.join(f'`{each}`' for each in (route.scope, *route.other_scopes))}."
        )
    if route.request is not None:
        made["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": names[route.request, "validation"]},
                **({"image/*": {"schema": _BINARY}} if route.images else {}),
            },
        }
    errors = dict(_COMMON)
    if route.scope is not PUBLIC:
        errors |= _WITH_KEY
    if route.request is not None:
        errors |= _WITH_BODY | {status: _WORDS[status] for status in (429, 500, 503, 504)}
    for status in route.statuses:
        errors[status] = _WORDS[status]
    media_type = route.surface.media_type.decode().partition(";")[0]
    problem = names[route.surface.problem, "serialization"] if route.surface.problem is not None else {}
    for status, words in sorted(errors.items()):
        if status == 304:
            made["responses"]["304"] = {"description": words}
        elif status != route.success:
            made["responses"][str(status)] = {"description": words, "content": {media_type: {"schema": problem}}}
    if route.media_type == _TEXT and 503 in errors:
        made["responses"]["503"]["content"][_TEXT] = {"schema": {}}
    return made


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema()
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(each)}
        for name, each in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional parameter: a query has no null, the parameter is left out."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title") and value is not None}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, **({"anyOf": kinds} if kinds else {})}


def _operation_id(route: Route) -> str:
    folder = "_folder" if len(route.path) > 1 and route.path.endswith("/") else ""
    return f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_') or 'root'}{folder}"


def _success(route: Route, names: Any) -> dict[str, Any]:
    if route.success in (204, 308):
        return {"description": _WORDS[route.success]}
    schema = names[route.answer, "serialization"] if route.answer is not None else {}
    content: dict[str, Any] = {route.media_type: {"schema": schema}}
    if route.streams:
        content[route.stream_type] = {"schema": {}}
    return {"description": "the answer", "content": content}
