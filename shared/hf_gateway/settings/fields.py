"""Types of fields: what a constructor accepts, and what the field stores."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BeforeValidator, Field

from hf_gateway.errors import ConfigError
from hf_gateway.keys.credentials import read_key_file
from hf_gateway.values.secret import EnvKey, FileKey, Secret, parse_key
from hf_gateway.values.target import Target


class SecretHolder(Protocol):
    """A key in another library's wrapper, such as pydantic's `SecretStr`."""

    def get_secret_value(self) -> str:
        """Return the key itself."""


ApiKeyInput = str | Secret | SecretHolder | None
TargetsInput = str | Target | Iterable[str | Target | Mapping[str, Any]] | None


def parse_api_key(value: Any) -> Secret | None:
    """Parse a key; `env:NAME` is read from the environment, `file:/PATH` from the file, once. Raises ConfigError."""
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"api_key is a string, not {type(value).__name__}")
    found = parse_key(value, "api_key")
    if isinstance(found, EnvKey):
        named = os.environ.get(found.name, "")
        return Secret(named, f"api_key, read from {found.name},")
    if isinstance(found, FileKey):
        return Secret(read_key_file(found.path), f"api_key, read from {found.path},")
    return found


def parse_targets(value: Any) -> tuple[Target, ...] | None:
    """Parse targets from an argument or the environment. Raises ConfigError."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [item for item in value.split(",") if item.strip()]
    if isinstance(value, Target | Mapping):
        value = [value]
    if not isinstance(value, Iterable):
        raise ConfigError(f"targets is a list such as ['tei:http://tei:8080', 'local'], not {str(value)[:80]!r}")
    return tuple(Target.of(item) for item in value)


@dataclass(frozen=True)
class Accepts:
    """Marks a field whose constructor accepts more than the field stores; shown in signatures and JSON schemas."""

    annotation: Any
    """The accepted type."""
    json_types: tuple[Mapping[str, Any], ...]
    """JSON schemas of what is accepted besides the field's own type."""
    own: bool = True
    """Whether the field's own type has a JSON schema."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the schema of the values allowed in a file."""
        own: dict[str, Any] = handler(core_schema) if self.own else {"anyOf": []}
        return {"anyOf": [*map(dict, self.json_types), *own.get("anyOf", [own])]}


if TYPE_CHECKING:
    _Kept = TypeVar("_Kept", covariant=True)
    _Accepted = TypeVar("_Accepted", contravariant=True)

    class Parsed(Generic[_Kept, _Accepted]):
        """A parsed field for type checkers: assignments accept one type, the attribute has the other."""

        def __get__(self, instance: object, owner: Any) -> _Kept: ...
        def __set__(self, instance: object, value: _Accepted) -> None: ...

    ApiKey = Parsed[Secret | None, ApiKeyInput]
    Targets = Parsed[tuple[Target, ...] | None, TargetsInput]
else:
    _NULL = {"type": "null"}
    ApiKey = Annotated[
        Secret | None,
        BeforeValidator(parse_api_key),
        Accepts(ApiKeyInput, ({"type": "string", "format": "password", "writeOnly": True}, _NULL), own=False),
    ]
    Targets = Annotated[
        tuple[Target, ...] | None,
        BeforeValidator(parse_targets),
        Accepts(TargetsInput, ({"type": "string"}, Target.table_schema())),
    ]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
