"""Writes what is made from classes: the JSON schema that is shipped, the tables of docs/configuration.md and docs/server.md.

`python -m tests.config_pages` writes them; tests/configuration/test_schema.py and tests/server/test_server_page.py compare them.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.configuration.schema import file_schema
from hf_gateway.configuration.variables import variables

if TYPE_CHECKING:
    from hf_gateway.server.dispatch.routing import Route

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "shared" / "hf_gateway" / "configuration" / "hf-gateway.schema.json"
PAGE = ROOT / "docs" / "configuration.md"
SERVER_PAGE = ROOT / "docs" / "server.md"
BEGIN, END = "<!-- made by python -m tests.config_pages -->\n", "<!-- end -->\n"


def schema_text() -> str:
    return json.dumps(file_schema(), indent=2) + "\n"


def page_text(page: str) -> str:
    return with_lines(page, reference())


def server_page_text(page: str) -> str:
    return with_lines(page, routes())


def with_lines(page: str, lines: Iterable[str]) -> str:
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def routes() -> Iterator[str]:
    """Yield the lines of the route table, a surface after the other."""
    from hf_gateway.server.application import ROUTES

    yield "\n| method | path | scope | |\n|---|---|---|---|"
    for surface in dict.fromkeys(route.surface for route in ROUTES):
        yield f"| **{surface.name}** | | | |"
        for route in ROUTES:
            if route.surface is surface:
                path = route.path.replace(":path}", "}")
                yield f"| {route.method} | `{path}` | {scopes_of(route)} | {cell(route.summary)} |"


def scopes_of(route: "Route") -> str:
    from hf_gateway.server.access.caller import PUBLIC

    if route.scope == PUBLIC:
        return "none"
    words = " or ".join(f"`{scope}`" for scope in (route.scope, *route.other_scopes))
    return f"{words}, of all tenants" if route.of_all else words


def reference() -> Iterator[str]:
    """Yield the lines of the tables."""
    written = file_schema()["$defs"]
    chains = {name.removesuffix("_chain"): each for name, each in written.items() if name.endswith("_chain")}
    shared = set.intersection(*(set(each["properties"]) for each in chains.values()))
    first = next(iter(chains.values()))
    yield "\n### `[chains.<name>]`, for every task\n"
    differing = {"task"} | {
        name
        for name in shared
        if len({json.dumps(each["properties"][name], sort_keys=True) for each in chains.values()}) > 1
    }
    task = {"description": first["properties"]["task"]["description"], "enum": list(chains)}
    yield from rows(
        {"task": task} | {name: first["properties"][name] for name in first["properties"] if name in shared - differing}
    )
    for name, each in chains.items():
        own = {
            title: value for title, value in each["properties"].items() if title not in shared - differing | {"task"}
        }
        yield f'\n### `[chains.<name>]`, for `task = "{name}"`\n'
        yield from rows(own)
    yield "\n### A target, written as a table\n"
    yield from rows(written["target_table"]["properties"])
    for title, name in (
        ("[keys]", "keys"),
        ('[prices."<model>"]', "price"),
        ("[ledger]", "ledger"),
        ("[server]", "server"),
        ("[server.open]", "OpenModels"),
        ('[server.jwt."<issuer>"]', "JwtIssuer"),
    ):
        yield f"\n### `{title}`\n"
        yield from rows(written[name]["properties"])
    yield "\n### Environment\n"
    yield "| variable | what it sets |\n|---|---|"
    yield from (f"| `{each.name}` | {cell(each.about)} |" for each in variables())


def rows(properties: dict[str, Any]) -> Iterator[str]:
    yield "| setting | value | default | |\n|---|---|---|---|"
    for name, each in properties.items():
        default = f"`{json.dumps(each['default'])}`" if "default" in each else ""
        yield f"| `{name}` | {kind_of(each)} | {default} | {cell(each.get('description', ''))} |"


def kind_of(written: dict[str, Any]) -> str:
    if "enum" in written:
        return ", ".join(f"`{each}`" for each in written["enum"])
    if "const" in written:
        return f"`{written['const']}`"
    if "anyOf" in written:
        return " or ".join(dict.fromkeys(map(kind_of, written["anyOf"])))
    if "$ref" in written:
        return "a target" if "/target" in written["$ref"] else "a table"
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "object": "a table",
    }
    if written.get("type") == "array":
        inner = kind_of(written.get("items", {}))
        return f"list of {inner}s" if inner in ("text", "number") else f"list of {inner.removeprefix('a ')}s"
    of = written.get("additionalProperties")
    if isinstance(of, dict) and of:
        return f"a table of {kind_of(of).replace('a table', 'tables')}"
    return names.get(written.get("type", ""), "any value") + bounds(written)


def bounds(written: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {written[name]:,}" for name, sign in signs.items() if name in written]
    return f" {', '.join(found)}" if found else ""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    for written, text_of in ((PAGE, page_text), (SERVER_PAGE, server_page_text)):
        written.write_text(text_of(written.read_text(encoding="utf-8")), encoding="utf-8")
