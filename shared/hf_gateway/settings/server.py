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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.config_file import open_config, section_problems
from hf_gateway.settings.fields import Seconds, Targets
from hf_gateway.settings.problems import Problem, problems_of
from hf_gateway.settings.sections import Section
from hf_gateway.settings.toml_file import ConfigFile
from hf_gateway.values.entry_points import installed
from hf_gateway.values.task_facts import GROUP

SECTION = "server"
PREFIX = "HF_GATEWAY_SERVER_"
"""Prefix of the environment variables of the settings that are a single value or a list."""
DEFAULT_PORT = 8080
_DEFAULT = "default_"

Count = Annotated[int, Field(gt=0)]


class OpenModels(Section):
    """`[server.open]`: callers with the scope `any-model` may name models that no chain has."""

    targets: Targets = Field(default=(), validate_default=True)
    """The targets that are asked for such a model, such as `["hf"]`; empty for none."""
    max_models: Count = 32
    """How many of these chains are kept, those that were used last."""


class JwtIssuer(Section):
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


class ServerSettings(Section):
    """The settings of `hf-gateway serve`."""

    host: str = "127.0.0.1"
    """The address to listen at; one beyond loopback needs keys, `require_key` or `insecure_no_auth`."""
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
    require_key: bool = False
    """Whether callers need a key also before the first one is made: until then every caller is refused."""
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
    browser_models: dict[str, Path] = Field(default_factory=dict)
    """Folders with models for browsers that no chain runs, such as Whisper as ONNX, by the name of the model."""
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
    """Maximum size of a request's headers together, with its path and query."""
    max_header_count: Count = 100
    """Maximum number of a request's headers."""
    header_seconds: Seconds = 20.0
    """Maximum seconds until the headers of a request are complete, also of the first one of a connection."""
    body_seconds: Seconds = 30.0
    """Maximum seconds until a request's body is complete, and one second more for each `min_body_rate` bytes of it."""
    min_body_rate: Count = 1024
    """Bytes per second at which a body must arrive after `body_seconds`."""
    unread_seconds: Seconds = 60.0
    """Maximum seconds for which a client may take nothing of its answer."""
    keep_alive_seconds: Seconds = 65.0
    """For how many seconds a connection waits for its next request; longer than a proxy keeps one."""
    max_texts: Count = 2048
    """Maximum texts or documents in one request."""
    max_messages: Count = 2048
    """Maximum messages in one conversation."""
    max_choices: Count = 8
    """Maximum answers to one request (`n`), and images."""
    max_answer_tokens: Count = 131_072
    """Maximum of `max_tokens` that a caller may ask for."""

    @classmethod
    def file_names(cls) -> set[str]:
        """Return the names that the table may have: a default for each task instead of `defaults`."""
        return (set(cls.model_fields) - {"defaults"}) | {f"{_DEFAULT}{task}" for task in installed(GROUP)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe the defaults as the keys that a file has."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        properties = handler.resolve_ref_schema(schema)["properties"]
        properties.pop("defaults", None)
        for task in sorted(installed(GROUP)):
            about = f"The chain of a request for {task} that names no model; by default the only one for it."
            properties[f"{_DEFAULT}{task}"] = {"type": "string", "description": about}
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
    def _is_closed_or_open(self) -> Self:
        if self.require_key and self.insecure_no_auth:
            raise ConfigError("require_key and insecure_no_auth contradict each other; leave one of them out")
        return self

    @field_validator("cors_origins")
    @classmethod
    def _are_origins_or_all(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in value and len(value) > 1:
            raise ConfigError("cors_origins is a list of origins, or ['*'] alone")
        return value

    @field_validator("redis")
    @classmethod
    def _is_of_a_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigError("redis is the URL of a Redis, such as redis://localhost:6379/0")
        return value

    @field_validator("root_path")
    @classmethod
    def _is_a_prefix(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.endswith("/")):
            raise ConfigError("root_path begins with a slash, and does not end with one")
        return value

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
        file = open_config(path)
        given: dict[str, Any] = {}
        if file is not None:
            file.refuse(section_problems(file))
            file.refuse(server_problems(file))
            given = with_absolute_paths(file.data.get(SECTION, {}), file.path)
        for variable, message in variable_faults(environment):
            raise ConfigError(f"{variable}: {message}")
        over = settings_of_environment(environment)
        chosen = {name: value for name, value in (flags or {}).items() if value is not None}
        for name, value in chosen.items():
            for message in _faults(name, value):
                raise ConfigError(message)
        return cls.model_validate({**given, **over, **chosen})


def server_problems(file: ConfigFile) -> Iterator[Problem]:
    """Yield what is wrong with `[server]`, as far as it does not depend on the chains."""
    table = file.data.get(SECTION, {})
    if isinstance(table, dict):
        found = problems_of(ServerSettings, table, ServerSettings.file_names())
        yield from (problem.below((SECTION,)) for problem in found)


def name_problems(settings: ServerSettings, chains: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with the names of chains in the settings.

    Args:
        settings: of the server.
        chains: the task of each chain, by its name.
    """
    for alias, name in settings.aliases.items():
        if alias in chains:
            words = (
                f"[server.aliases] {alias!r} is the name of a chain already; leave the alias out or rename one of them"
            )
            yield Problem((SECTION, "aliases", alias), words)
        elif name not in chains:
            words = f"[server.aliases] {alias!r} is for the chain {name!r}{_nearest(name, set(chains))}"
            yield Problem((SECTION, "aliases", alias), words)
    by_task: dict[str, set[str]] = {}
    for chain, purpose in chains.items():
        by_task.setdefault(purpose, set()).add(chain)
    for task, name in settings.defaults.items():
        there = by_task.get(task, set())
        if name not in there:
            words = f"[server] default_{task} = {name!r} is not the name of a chain for {task}{_nearest(name, there)}"
            yield Problem((SECTION, f"{_DEFAULT}{task}"), words)


def _nearest(name: str, names: set[str]) -> str:
    return did_you_mean(name, names) if names else ""


def variable_faults(environment: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """Yield the variables that begin with HF_GATEWAY_SERVER_ and are wrong, each with what is wrong with it."""
    known = variables()
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and value.strip() and variable not in known:
            yield variable, f"no setting of the server has this variable{did_you_mean(variable, known)}"
    for name, value in settings_of_environment(environment).items():
        yield from ((f"{PREFIX}{name.upper()}", message) for message in _faults(name, value))


def _faults(name: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with a setting from the environment or a flag; without its value, which may be a password.

    Args:
        name: of the setting.
        value: its value.
    """
    for problem in problems_of(ServerSettings, {name: value}, ServerSettings.file_names()):
        yield problem.message


def with_absolute_paths(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return `[server]` with its paths relative to the file's own folder.

    Args:
        table: the section.
        path: of the file.
    """
    made = dict(table)
    folder = path.resolve().parent
    if isinstance(contexts := made.get("contexts"), str):
        made["contexts"] = str(folder / Path(contexts).expanduser())
    for table_of_paths in ("indexes", "browser_models"):
        if isinstance(named := made.get(table_of_paths), dict):
            made[table_of_paths] = {
                name: str(folder / Path(place).expanduser()) if isinstance(place, str) else place
                for name, place in named.items()
            }
    return made


def variables() -> set[str]:
    """Return the environment variables of the server: those of every setting that is a single value or a list."""
    tables = {name for name, field in ServerSettings.model_fields.items() if _is_table(field.annotation)}
    return {f"{PREFIX}{name.upper()}" for name in ServerSettings.file_names() - tables}


def _is_table(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def settings_of_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings that variables name; lists are separated by commas, and an empty variable counts as unset."""
    found: dict[str, Any] = {}
    for variable in variables():
        if value := environment.get(variable, "").strip():
            name = variable.removeprefix(PREFIX).lower()
            field = ServerSettings.model_fields.get(name)
            is_list = field is not None and getattr(field.annotation, "__origin__", None) is tuple
            found[name] = [part.strip() for part in value.split(",") if part.strip()] if is_list else value
    return found
