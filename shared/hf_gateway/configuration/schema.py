"""The JSON schema of hf-gateway.toml, made from the classes by which the file is checked. Editors use it; we do not.

A schema cannot say everything that the classes check: whether a target can be built, a chain of that name exists, a variable is
set. Every file that `hf-gateway config check` finds right is right by the schema, unless it writes a number or a flag as text.
"""

from typing import Any

from pydantic import BaseModel, TypeAdapter

from hf_gateway.ledger.file_prices import PriceSection
from hf_gateway.settings.introspection import docstrings_under_fields
from hf_gateway.settings.keys import KeysSection
from hf_gateway.settings.ledger import LedgerSection
from hf_gateway.settings.server import ServerSettings
from hf_gateway.tasks.base import Task
from hf_gateway.tasks.registry import DEFAULT_TASK, find_task, task_names
from hf_gateway.values.target import Target

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:hf-gateway:hf-gateway.toml"
_TARGET = TypeAdapter(Target).json_schema()


def file_schema() -> dict[str, Any]:
    """Return the schema of the whole file, for the installed tasks."""
    tasks = [find_task(name) for name in sorted(task_names())]
    definitions: dict[str, Any] = {}
    chains = {task.name: _of_chain(task, definitions) for task in tasks}
    kinds = (PriceSection, KeysSection, LedgerSection, ServerSettings)
    price, keys, ledger, server = (_of_class(kind, definitions) for kind in kinds)
    definitions |= {f"{name}_chain": written for name, written in chains.items()}
    definitions |= {"chain": _any_chain(tasks), "price": price, "keys": keys, "ledger": ledger, "server": server}
    definitions |= _target()
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "hf-gateway.toml",
        "description": "The configuration of hf-gateway: chains, keys, prices, the ledger, and the server.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "chains": _table_of("[chains.<name>]: a model, and where it can be had.", _link("chain")),
            "keys": _link("keys"),
            "ledger": _link("ledger"),
            "prices": _table_of(
                '[prices."<model>"], or [[prices."<model>"]] for each provider: what calls of a model cost.',
                {"anyOf": [_link("price"), {"type": "array", "items": _link("price")}]},
            ),
            "server": _link("server"),
        },
        "$defs": dict(sorted(definitions.items())),
    }


def _link(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _table_of(about: str, of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "description": about, "additionalProperties": of}


def _any_chain(tasks: list[Task]) -> dict[str, Any]:
    """Return the schema of a chain, whose task says which settings it has.

    The conditions name the setting that is wrong, as alternatives would not. Editors that complete names look only into
    alternatives; the last of these takes everything.
    """
    conditions = [
        {
            "if": {"properties": {"task": {"const": task.name}}} | _required(task),
            "then": _link(f"{task.name}_chain"),
        }
        for task in tasks
    ]
    names = [task.name for task in tasks]
    known = {"properties": {"task": {"enum": names, "default": DEFAULT_TASK}}}
    completions = [_link(f"{name}_chain") for name in names]
    return {"type": "object", "allOf": [known, *conditions], "anyOf": [*completions, {"type": "object"}]}


def _required(task: Task) -> dict[str, Any]:
    return {} if task.name == DEFAULT_TASK else {"required": ["task"]}


def _target() -> dict[str, Any]:
    """Return the definitions of a target and of its long form."""
    short, table = TypeAdapter(Target).json_schema()["anyOf"]
    short["description"] = "The short form: `local`, `hf:novita`, `tei:http://tei:8080`, `local:org/model@main`."
    for name, about in docstrings_under_fields(Target).items():
        table["properties"][name]["description"] = about
    about = "A place that serves a model, and how to reach it."
    return {"target": {"description": about, "anyOf": [short, _link("target_table")]}, "target_table": table}


def _of_chain(task: Task, definitions: dict[str, Any]) -> dict[str, Any]:
    made = _of_class(task.settings, definitions)
    settings = {name: made["properties"][name] for name in ("model", "targets")} | made["properties"]
    own = {"task": {"const": task.name, "description": f"The task of the chain; by default {DEFAULT_TASK}."}}
    made["properties"] = own | {name: settings[name] for name in settings if name in task.settings.file_names()}
    made["description"] = f"A chain for {task.title}."
    return made | _required(task)


def _of_class(kind: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a table, as far as TOML can write it; add those of the tables in it to the definitions."""
    made = kind.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= {name: _for_toml(written) for name, written in made.pop("$defs", {}).items()}
    found: dict[str, Any] = _for_toml(made)
    found["description"] = (kind.__doc__ or "").strip().partition("\n")[0]
    return found


def _for_toml(schema: Any) -> Any:
    """Return a schema without null, which TOML does not have, and without titles, which repeat the names."""
    if isinstance(schema, list):
        return [_for_toml(each) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    if schema in (_TARGET, Target.table_schema()):
        return _link("target" if schema == _TARGET else "target_table")
    made = {}
    for name, value in schema.items():
        if name == "properties":
            made[name] = {each: _for_toml(written) for each, written in value.items()}
        elif name != "title" and not (name == "default" and value is None):
            made[name] = _for_toml(value)
    alternatives = made.get("anyOf")
    if isinstance(alternatives, list) and len(alternatives) == 1:
        made = {**made.pop("anyOf")[0], **made}
    return made
