"""Every route of the table with a hostile value in every place that a caller can write to: fields of bodies, also those that no
model has, headers, paths and queries."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx

    from hf_gateway.server.dispatch.routing import Route

Path = tuple[str | int, ...]
SAMPLES: Mapping[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "context": "SupportBot",
    "component": "SupportBot",
    "modelId": "owner/talk",
    "task": "text-generation",
    "scopes": ["embed"],
    "usd": {"input": "1"},
}
"""Values of required fields that lead further than the first check."""
EXTRA_FIELDS = (
    *(
        "url",
        "base_url",
        "baseUrl",
        "api_base",
        "apiBase",
        "endpoint",
        "endpoint_url",
        "endpointUrl",
        "host",
        "custom_host",
    ),
    *("webhook", "callback_url", "image", "image_url", "images", "mask", "proxy", "server_url", "gatewayUrl", "target"),
    *("extra_body", "extra_headers", "file", "path", "template", "provider", "deployment", "api_key", "user_config"),
)
"""Fields by which other servers let a caller say where to send or fetch something."""
HEADERS = (
    *("x-portkey-custom-host", "x-portkey-config", "x-forwarded-host", "x-forwarded-for", "x-forwarded-proto"),
    *(
        "x-forwarded-server",
        "x-forwarded-prefix",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
    ),
    *("x-host", "x-real-ip", "via", "from", "referer", "destination", "proxy-authorization", "api-base", "x-api-base"),
    *(
        "x-base-url",
        "x-target-url",
        "x-endpoint",
        "openai-organization",
        "helicone-target-url",
        "x-request-id",
        "traceparent",
    ),
    *("tracestate", "baggage", "x-use-cache", "user-agent", "accept", "accept-language", "content-location", "link"),
)
"""Headers that other servers take an address from, or that carry one."""


@dataclass(frozen=True)
class Request:
    """One request of the walk."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def chain_for(route: "Route") -> str:
    """Return the chain that a route with a chain in its path needs."""
    for words, chain in (
        (("chat", "completions", "text-generation"), "talk"),
        (("sparse",), "words"),
        (("rerank",), "sorter"),
        (("predict", "classification"), "judge"),
        (("image",), "draw"),
    ):
        if any(word in route.path for word in words):
            return chain
    return "docs"


def plain_path(route: "Route", **params: str) -> str:
    """Return the path of a route with values for its parameters."""
    path = route.path.replace(":path}", "}")
    for name in ("chain", "id", "name", "file", "path", "revision"):
        path = path.replace(f"{{{name}}}", params.get(name, chain_for(route)))
    return path


def bodies(route: "Route", values: Iterator[str], each: int) -> Iterator[bytes]:
    """Yield bodies of a route, each with a value in one field, nested ones too; the last has one in all that it has not.

    each: how many values a field gets.
    """
    if route.request is None:
        return
    schema = route.request.model_json_schema()
    base = sample(schema, schema)
    for path in sorted(set(places(schema, schema)), key=str):
        for value in islice(values, each):
            yield json.dumps(put(base, path, value)).encode()
    fields = schema.get("properties", {})
    for more in parts(values) if fields.keys() & {"messages", "images", "tools"} else ():
        yield json.dumps(base | more).encode()
    yield json.dumps({name: next(values) for name in EXTRA_FIELDS if name not in fields} | base).encode()


def parts(values: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield fields of chats in which other servers fetch something."""
    value = next(values)
    for part in (
        {"type": "image_url", "image_url": {"url": value, "detail": "high"}},
        {"type": "image_url", "image_url": value},
        {"type": "video_url", "video_url": {"url": value}},
        {"type": "audio_url", "audio_url": {"url": value}},
        {"type": "input_audio", "input_audio": {"data": value, "format": "wav"}},
        {"type": "file", "file": {"file_data": value, "file_id": value, "filename": value}},
        {"type": "image", "source": {"type": "url", "url": value}},
    ):
        yield {"messages": [{"role": "user", "content": [{"type": "text", "text": value}, part]}]}
    yield {"messages": [{"role": "user", "content": "x", "images": [value]}], "images": [value]}
    yield {"tools": [{"type": "mcp", "server_label": "x", "server_url": value}]}
    function = {"name": "f", "description": value, "parameters": {"$ref": value, "$schema": value}}
    yield {"tools": [{"type": "function", "function": function}]}
    schema = {"name": "x", "schema": {"$ref": value, "$id": value, "$schema": value}}
    yield {"response_format": {"type": "json_schema", "json_schema": schema}, "format": schema["schema"]}
    yield {"web_search_options": {"user_location": value}, "plugins": [{"id": "web", "url": value}]}


def query_paths(route: "Route", value: str) -> Iterator[str]:
    """Yield paths of a route with a value in each parameter of its query, those that it does not have together."""
    known = route.query.model_fields if route.query is not None else ()
    for name in known:
        yield f"{plain_path(route)}?{name}={quote(value, safe='')}"
    yield plain_path(route) + "?" + "&".join(f"{name}={quote(value, safe='')}" for name in EXTRA_FIELDS)


def hostile_paths(route: "Route", value: str) -> Iterator[str]:
    """Yield paths of a route with a value in its parameters, encoded and as it is."""
    if "{" in route.path:
        for written in (quote(value, safe=""), quote(value, safe="/:@[]{}'~*")):
            yield plain_path(route, **dict.fromkeys(("chain", "id", "name", "file", "path", "revision"), written))


def sample(schema: Mapping[str, Any], root: Mapping[str, Any], name: str = "") -> Any:
    """Return a small valid value of a schema: its required fields alone."""
    if name in SAMPLES:
        return deepcopy(SAMPLES[name])
    if "$ref" in schema:
        return sample(root["$defs"][schema["$ref"].rpartition("/")[2]], root, name)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return sample(schema[key][0], root, name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {each: sample(fields[each], root, each) for each in schema.get("required", ())}
        case "array":
            return [sample(schema.get("items", {}), root)]
        case "integer" | "number":
            return 1
        case "boolean":
            return False
    return "x"


def places(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path = (), seen: Path = ()) -> Iterator[Path]:
    """Yield the paths of all strings of a schema, and of one value in what may be anything."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            yield from places(root["$defs"][name], root, path, (*seen, name))
        return
    options = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())]
    for each in options:
        yield from places(each, root, path, seen)
    kind = schema.get("type")
    if kind == "string" or (kind is None and not options and "const" not in schema and "enum" not in schema):
        yield path
    elif kind == "array":
        yield from places(schema.get("items", {}), root, (*path, 0), seen)
    elif kind == "object":
        for name, each in schema.get("properties", {}).items():
            yield from places(each, root, (*path, name), seen)
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping):
            yield from places(more, root, (*path, "key"), seen)
        elif more is True or (more is None and "properties" not in schema):
            yield (*path, "key")


def put(body: Any, path: Path, value: Any) -> Any:
    """Return a body with a value at a path, whose containers are made where they are missing."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        there = list(body) if isinstance(body, list) and body else [None]
        return [put(there[0], tuple(rest), value), *there[1:]]
    found = dict(body) if isinstance(body, dict) else {}
    return {**found, first: put(found.get(first), tuple(rest), value)}


def requests(routes: Iterable["Route"], forms: Sequence[str]) -> Iterator[Request]:
    """Yield the requests of the whole walk.

    Every field of a body gets every form. A route that has its handler and its body from one before, under another path, gets
    one form in each field: its fields are read by the same code.

    Args:
        routes: that are asked.
        forms: the values; where a place gets one of them alone, they take turns.
    """
    values = cycle(forms)
    walked = set()
    for route in routes:
        plain = plain_path(route)
        base = b""
        reader = (route.handler, route.request)
        each = 1 if reader in walked else len(forms)
        walked.add(reader)
        for body in bodies(route, values, each):
            yield Request(route.method, plain, body)
            base = body
        yield Request(route.method, plain, base, tuple((name, next(values)) for name in HEADERS))
        value = next(values)
        for path in (*query_paths(route, value), *hostile_paths(route, value)):
            yield Request(route.method, path, base)


def walk(client: "httpx.Client", found: Iterable[Request]) -> Iterator[tuple[Request, int, str]]:
    """Send requests; yields each with its status and the whole answer."""
    import httpx

    for each in found:
        with contextlib.suppress(httpx.InvalidURL):  # which a client cannot send
            answer = client.request(each.method, each.path, content=each.body, headers=list(each.headers))
            yield each, answer.status_code, f"{answer.headers}\n{answer.text}"
