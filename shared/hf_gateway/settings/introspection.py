"""What settings say about themselves: the signature that `help` shows, and the descriptions in a JSON schema.

Loaded when either is asked for, since both read types or source texts that an import has no need of.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_type_hints

from pydantic import BaseModel

from hf_gateway.settings.fields import Accepts
from hf_gateway.values.plain_numbers import PlainNumbers

NAMES_OF_MODEL = ("model", "model_name")


def signature_of(settings: type[BaseModel], generated: inspect.Signature) -> inspect.Signature:
    """Return the signature of a settings class: the model and the targets, our other arguments, those of a framework.

    Args:
        settings: the class.
        generated: its signature as pydantic makes it, with the fields' order and the parsed types.
    """
    fields = {field.alias or name: (name, field) for name, field in settings.model_fields.items()}
    accepted = {name: _accepted_type(field) for name, field in fields.values()}
    own = own_arguments(settings)

    def place(parameter: inspect.Parameter) -> int:
        name = fields[parameter.name][0]
        return own.index(name) if name in own else len(own)

    parameters = [
        parameter.replace(annotation=accepted[fields[parameter.name][0]])
        for parameter in generated.parameters.values()
        if parameter.name in fields
    ]
    return generated.replace(parameters=sorted(parameters, key=place))


def own_arguments(settings: type[BaseModel]) -> list[str]:
    """Return the fields of a settings class that no framework has: its model and its targets first."""
    declared = {name for part in _own_parts(settings) for name in part.__annotations__}
    names = [name for name in settings.model_fields if name in declared]
    first = [*(name for name in NAMES_OF_MODEL if name in names), "targets"]
    return first + [name for name in names if name not in first]


def with_descriptions(
    settings: type[BaseModel], schema: dict[str, Any], resolve: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return a JSON schema with the docstrings under the fields as descriptions, where the fields have no other.

    Args:
        settings: the class.
        schema: its schema, or a reference to it.
        resolve: follows such a reference.
    """
    found: dict[str, str] = {}
    for part in _own_parts(settings):
        found |= docstrings_under_fields(part)
    properties = resolve(schema).get("properties", {})
    for name, field in settings.model_fields.items():
        if name in found and (written := properties.get(field.alias or name)) is not None:
            written.setdefault("description", found[name])
    return schema


def _own_parts(settings: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the classes that declare settings, the most general first."""
    return [part for part in reversed(settings.__mro__) if issubclass(part, PlainNumbers)]


def _accepted_type(field: Any) -> Any:
    """Return the type that a constructor takes for a field, without what pydantic checks beside the type."""
    marked = next((mark.annotation for mark in field.metadata if isinstance(mark, Accepts)), field.annotation)

    def holder() -> None: ...

    holder.__annotations__ = {"field": marked}
    return get_type_hints(holder)["field"]


def docstrings_under_fields(settings: type) -> dict[str, str]:
    """Return field → its docstring; {} where the source is not on this machine."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(settings)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found = {}
    for field, after in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else ()):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = " ".join(after.value.value.split())
    return found
