"""Settings of the HTTP server: `[server]` of hf-gateway.toml, over it the environment, over that the command's flags.

[server]
host = "127.0.0.1"
port = 8080
database = "postgresql+psycopg://gateway@db/gateway"
default_embedding = "docs"

[server.aliases]
"text-embedding-3-small" = "docs"

[server.open]
targets = ["hf"]

[server.indexes]
manual = "indexes/manual"

[server.jwt."https://login.example.org"]
audience = ["hf-gateway"]
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.config_file import line_of, read_config
from hf_gateway.settings.fields import Seconds, Targets
from hf_gateway.values.plain_numbers import PlainNumbers

SECTION = "server"
PREFIX = "HF_GATEWAY_SERVER_"
"""Prefix of the environment variables of the settings that are a single value or a list."""
DEFAULT_PORT = 8080
_DEFAULT = "default_"

Count = Annotated[int, Field(gt=0)]


class _Section(PlainNumbers):
    """A table of the file: unknown names are errors."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe each setting by the docstring under its field."""
        from hf_gateway.settings.introspection import with_descriptions

        return with_descriptions(cls, handler(core_schema), handler.resolve_ref_schema)


class OpenModels(_Section):
    """`[server.open]`: callers with the scope `any-model` may name models that no chain has."""

    targets: Targets = Field(default=(), validate_default=True)
    """The targets that are asked for such a model, such as `["hf"]`; empty for none."""
    max_models: Count = 32
    """How many of these chains are kept, those that were used last."""


class JwtIssuer(_Section):
    """`[server.jwt."<issuer>"]`: tokens of one issuer are accepted as credentials."""

    audience: tuple[str, ...] = Field(min_length=1)
    """The values of `aud` of which a token must have one."""
    jwks_url: str | None = None
    """Where the issuer's public keys are; by default as its OpenID configuration says."""
    tenant: str | None = None
    """The tenant of all its tokens; by default their claim names it."""
    tenant_claim: str = "tenant"
    """The claim with the name of the tenant; a token without it is refused."""
    scopes: tuple[str, ...] = ("embed", "chat", "rerank", "image", "classify", "read")
    """The scopes that its tokens can have at most, and those of a token without the claim."""
    scopes_claim: str = "scope"
    """The claim with the scopes, a list or a text with blanks between them; other words in it are ignored."""
    chains_claim: str = "chains"
    """The claim with the names of the chains that may be used; absent for all of them."""
    requests_per_minute: Count | None = None
    """Maximum requests of one subject in a minute."""
    tokens_per_minute: Count | None = None
    """Maximum tokens of one subject in a minute."""
    parallel: Count | None = None
    """Maximum requests of one subject under way at one time."""
    leeway: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds by which the clocks of the issuer and the server may differ."""


class ServerSettings(_Section):
    """The settings of `hf-gateway serve`."""

    host: str = "127.0.0.1"
    """The address to listen at; one beyond loopback needs keys, or `insecure_no_auth`."""
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    """The port to listen at; 0 for a free one, which is printed."""
    root_path: str = ""
    """The path under which a proxy serves this server, such as `/ai`."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of processes; each holds its own models."""
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """Seconds that requests under way have to end after SIGTERM."""
    insecure_no_auth: bool = False
    """Whether callers without a key are served beyond loopback."""
    database: str | None = Field(default=None, repr=False)
    """SQLAlchemy URL of the database of keys and usage; by default a file under HF_GATEWAY_HOME."""
    redis: str | None = Field(default=None, repr=False)
    """URL of a Redis that holds the limits of all replicas; by default they are held per process."""
    defaults: dict[str, str] = Field(default_factory=dict)
    """The chain of a request that names no model, by task: written as `default_embedding`, `default_chat` and so on."""
    aliases: dict[str, str] = Field(default_factory=dict)
    """Other names of chains, such as names of models that clients insist on."""
    open: OpenModels = Field(default_factory=OpenModels)
    """Models that no chain has."""
    indexes: dict[str, Path] = Field(default_factory=dict)
    """Folders with passages and their vectors, by the name of the index."""
    contexts: Path | None = None
    """Folder with the prompt templates of `/api/v1/chat`."""
    jwt: dict[str, JwtIssuer] = Field(default_factory=dict)
    """Issuers whose tokens are accepted, by the value of `iss`."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call from a browser; `*` for all, without cookies."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the Host header may have; by default those of loopback while callers need no key, otherwise all. Addresses may
    always be named."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-*` headers are believed."""
    ping_seconds: Seconds = 15.0
    """After how many silent seconds a stream sends a ping."""
    request_seconds: Seconds = 900.0
    """Maximum duration of a request, whatever its chain's own limit."""
    max_body_bytes: Count = 32 * 2**20
    """Maximum size of a request's body."""
    max_header_bytes: Count = 32 * 2**10
    """Maximum size of a request's headers together."""
    max_texts: Count = 2048
    """Maximum texts or documents in one request."""
    max_messages: Count = 2048
    """Maximum messages in one conversation."""
    max_choices: Count = 8
    """Maximum answers to one request (`n`), and images."""
    max_answer_tokens: Count = 131_072
    """Maximum of `max_tokens` that a caller may ask for."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe the defaults as the keys that a file has."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        found = handler.resolve_ref_schema(schema)
        about = found["properties"].pop("defaults", {}).get("description", "")
        found["patternProperties"] = {f"^{_DEFAULT}[a-z_]+$": {"type": "string", "description": about}}
        return schema

    @model_validator(mode="before")
    @classmethod
    def _collect_defaults(cls, values: Any) -> Any:
        """Move `default_<task>` into `defaults`."""
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        named = {name: given.pop(name) for name in list(given) if name.startswith(_DEFAULT)}
        if named:
            given["defaults"] = {
                **given.get("defaults", {}),
                **{name.removeprefix(_DEFAULT): value for name, value in named.items()},
            }
        return given

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        if "*" in self.cors_origins and len(self.cors_origins) > 1:
            raise ValueError("cors_origins is a list of origins, or ['*'] alone")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError("root_path begins with a slash, and does not end with one")
        return self

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        flags: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """Read the settings.

        Args:
            path: the config file; by default the one in force.
            flags: settings that override all others; None counts as not given.
            environment: where HF_GATEWAY_SERVER_* are looked up.

        Raises:
            ConfigError: a setting is unknown or invalid; with file and line, or with the variable's name.
        """
        found, data = read_config(path)
        table = data.get(SECTION, {})
        text = found.read_text(encoding="utf-8-sig") if found is not None else ""
        if not isinstance(table, dict):
            raise ConfigError(f"{found}:{line_of(text, [], SECTION)}: {SECTION} is a section, [{SECTION}]")
        given = _own_relative(table, found)
        _checked(cls, given, lambda loc: f"{found}:{_line(text, loc)}")
        over = _from_environment(cls, environment)
        for name, value in over.items():
            _checked(cls, {name: value}, lambda _, name=name: f"{PREFIX}{name.upper()}")
        chosen = {name: value for name, value in (flags or {}).items() if value is not None}
        loaded: Self = _checked(cls, {**given, **over, **chosen}, lambda loc: ".".join(map(str, loc)) or SECTION)
        return loaded


def _checked(kind: type[Any], values: Mapping[str, Any], place: Any) -> Any:
    """Build settings; an error names the place of the setting, and not its value, which may be a password."""
    known = {*kind.model_fields} - {"defaults"}
    for name in values:
        if name not in known and not name.startswith(_DEFAULT):
            raise ConfigError(f"{place((name,))}: unknown setting {name!r}{did_you_mean(name, known)}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        loc = first["loc"]
        name = ".".join(map(str, loc))
        words = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place(loc)}: {name + ': ' if name else ''}{words}") from None
    except ConfigError as error:
        raise ConfigError(f"{place(('open', 'targets'))}: {error.message}") from None


def _line(text: str, loc: Sequence[Any]) -> int:
    names = [str(part) for part in loc if not isinstance(part, int)] or [""]
    *inner, name = names
    if inner and inner[0] == "defaults":
        inner, name = [], f"{_DEFAULT}{name}"
    section = [SECTION, *inner]
    line = line_of(text, section, name)
    # The table itself may be what is wrong, or be written inline.
    return line if line > 1 or not inner else line_of(text, section[:-1], section[-1])


def _own_relative(table: Mapping[str, Any], found: Path | None) -> dict[str, Any]:
    """Return the table with its paths relative to the file's own folder."""
    made = dict(table)
    if found is None:
        return made
    folder = found.resolve().parent
    if isinstance(contexts := made.get("contexts"), str):
        made["contexts"] = str(folder / Path(contexts).expanduser())
    if isinstance(indexes := made.get("indexes"), dict):
        made["indexes"] = {
            name: str(folder / Path(place).expanduser()) if isinstance(place, str) else place
            for name, place in indexes.items()
        }
    return made


def _from_environment(kind: type[BaseModel], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that variables name; lists are separated by commas, and an empty variable counts as unset."""
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or not value.strip():
            continue
        field = kind.model_fields.get(name)
        if name.startswith(_DEFAULT):
            found[name] = value
        elif field is None or name == "defaults":
            known = {f"{PREFIX}{known.upper()}" for known in kind.model_fields}
            raise ConfigError(f"{variable} is no setting of the server{did_you_mean(variable, known)}")
        elif str(field.annotation).startswith("tuple"):
            found[name] = [part.strip() for part in value.split(",") if part.strip()]
        else:
            found[name] = value
    return found
