r"""Target: a place that serves a model, and how to reach it.

Short form `kind`, `kind:argument` or `kind:argument@revision`; the meaning of the argument follows from its form and the kind:

    local:intfloat/e5-small-v2@refs/pr/1    a model, and its revision
    tei:http://tei:8080                     a URL
    hf:scaleway                             a provider
    hash:512                                a dimension
    bm25                                    nothing
    lexical                                 nothing
    local:/home/me@corp/model               a folder; likewise C:\models\m, ./m and ~/m

A Hub id contains no `@`, so the first one begins the revision; a folder's path may contain any number.
"""

import dataclasses
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.redaction import MODEL_NAMES_NO_MODEL, is_hub_token, may_name_key, public_part, quoted, shown_url
from hf_gateway.values.secret import EnvKey, FileKey, KeyReference, Secret, parse_key

if TYPE_CHECKING:
    from hf_gateway.values.vector_space import VectorSpace

KIND = re.compile(r"[a-z][a-z0-9_-]*")
_HOST_AND_PORT = re.compile(r"[a-z][a-z0-9.-]{0,40}:\d{1,5}")
MAX_REVISION_CHARS = 250
"""A revision becomes the name of a file in the Hub's cache."""
# The rules of `git check-ref-format`, and no more: a commit, a branch, a tag, `refs/pr/1`.
_REVISION = re.compile(r"(?![-/.])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)|[/.]$))(?!@$)[^\s~^:?*\[\\]+")
_PATH = re.compile(r"[/\\~]|\.{1,2}(?:[/\\]|$)|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class Target:
    """A place that serves a model, and how to reach it.

    Raises:
        ConfigError: an invalid URL, or one with a password in it; a revision that git would not accept.
    """

    kind: str
    """Name of a backend: local, hf, endpoint, tei, openai, ollama, hash, bm25, lexical, or one of another package."""
    model: str | None = None
    """The model's name there; None for the chain's own model."""
    url: str | None = None
    """The server's URL, for the kinds that need one; http or https, without user name or password."""
    revision: str | None = None
    """Commit, branch or tag of the model, for the kinds that load it themselves."""
    provider: str | None = None
    """The Inference Provider, for `hf`; or `cheapest` or `fastest`."""
    credential: Secret | EnvKey | FileKey | None = field(default=None, repr=False)
    """A key for this server only: the key itself, `env:NAME` to read it from the environment when needed, or `file:/PATH`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this kind; its backend refuses unknown names."""
    space: "VectorSpace | None" = None
    """The vector space this target serves, if neither the server nor the model's files describe it correctly."""

    def __post_init__(self) -> None:
        """Check and normalise the fields, without any request."""
        self._check_types()
        if not KIND.fullmatch(self.kind):
            raise ConfigError(
                f"{quoted(self.kind, 'what was given')} is not the kind of a target; write 'kind:argument', such as 'local' or 'tei:http://tei:8080'"
            )
        if self.model is not None and is_hub_token(self.model):
            raise ConfigError(MODEL_NAMES_NO_MODEL)
        if self.url is not None:
            object.__setattr__(self, "url", checked_url(self.url, self.kind))
        if self.revision is not None and not is_revision(self.revision):
            named = quoted(self.revision, "what stands after @")
            raise ConfigError(
                f"{named} is not a revision; write a branch, a tag or a commit, as in 'local:org/model@main'"
            )
        if self.provider is not None and (not self.provider or quoted(self.provider, "") == ""):
            raise ConfigError(
                f"target '{self.kind}': what was given is not the name of a provider, such as 'hf:scaleway'; "
                "a token is given as api_key= or in HF_TOKEN"
            )
        if isinstance(self.credential, str):
            object.__setattr__(
                self, "credential", parse_key(self.credential, f"the credential of target '{self.kind}'")
            )
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def _check_types(self) -> None:
        """Raise ConfigError for a field of the wrong type, as config files may have it."""
        for name in ("kind", "model", "url", "revision", "provider"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "kind"):
                raise ConfigError(f"a target's {name} is a text, not {type(value).__name__}")
        if not isinstance(self.credential, str | Secret | EnvKey | FileKey | None):
            raise ConfigError(f"a target's credential is a text, not {type(self.credential).__name__}")
        if not isinstance(self.options, Mapping):
            raise ConfigError(f"a target's options are names and values, not {type(self.options).__name__}")
        if self.space is not None and not hasattr(self.space, "merged"):
            raise ConfigError(f"a target's space is a table or a VectorSpace, not {type(self.space).__name__}")

    @classmethod
    def of(cls, value: "str | Target | Mapping[str, Any]") -> Self:
        """Build a target from the short form or a mapping of the fields; a Target is returned as it is.

        Raises:
            ConfigError: it is invalid; names the nearest field for an unknown one.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"a target is a string such as 'local' or a Target, not {type(value).__name__}")
        names = {item.name for item in dataclasses.fields(cls)}
        for name in value:
            if name not in names:
                raise ConfigError(f"a target has no field {name!r}{did_you_mean(name, names)}")
        if "kind" not in value:
            raise ConfigError(f"a target needs its kind; got only {', '.join(map(repr, value)) or 'nothing'}")
        fields = dict(value)
        if isinstance(fields.get("space"), Mapping):
            from hf_gateway.values.vector_space import VectorSpace

            fields["space"] = VectorSpace.from_dict(fields["space"])
        return cls(**fields)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the short form. Raises ConfigError."""
        kind, _, argument = text.strip().partition(":")
        if not argument:
            return cls(kind)
        if "://" in argument:
            return cls(kind, url=argument)
        match kind_of(kind).argument:
            case "provider":
                return cls(kind, provider=argument)
            case "dimension":
                if not argument.isascii() or not argument.isdigit():
                    raise ConfigError(f"target '{kind}': the argument is a dimension, such as '{kind}:512'")
                return cls(kind, options={"dim": int(argument)})
            case "none":
                raise ConfigError(f"target '{kind}' has no argument; write '{kind}'")
            case "url":
                # Only a host with its port is repeated: users put keys there.
                place = argument if _HOST_AND_PORT.fullmatch(argument) else "localhost:8000"
                raise ConfigError(f"target '{kind}' needs a whole URL, such as '{kind}:http://{place}'")
            case _:
                model, revision = _model_and_revision(argument)
                return cls(kind, model=model, revision=revision)

    def inheriting(self, model: str | None, revision: str | None = None) -> Self:
        """Return the target with the chain's model if it names no model; the revision goes with the model.

        Args:
            model: the chain's model.
            revision: the revision of that model.
        """
        if self.model is not None or model is None:
            return self
        return dataclasses.replace(self, model=model, revision=self.revision or revision)

    @cached_property
    def label(self) -> str:
        """The target's name in logs, errors and tables: the short form, without a URL's parameters and query."""
        if self.url is not None:
            return f"{self.kind}:{public_part(self.url)}"
        match kind_of(self.kind).argument:
            case "provider":
                argument = self.provider
            case "dimension":
                argument = self.options.get("dim")
            case "none":
                argument = None
            case _:
                argument = (
                    f"{self.model}{'@' + self.revision if self.revision else ''}" if self.model is not None else None
                )
        return self.kind if argument is None else f"{self.kind}:{argument}"

    def __repr__(self) -> str:
        """Show the fields that are set, without the key, and of a URL only what cannot be one."""
        shown = self.to_dict() | ({"url": shown_url(self.url)} if self.url is not None else {})
        return f"Target({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, without the key; `of` reads them back. A URL keeps its query."""
        found: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name == "credential":
                # The name of a variable or file is not secret, and without it the target could not be rebuilt.
                value = str(value) if isinstance(value, KeyReference) and value.refusal is None else None
            elif item.name == "options":
                value = dict(value)
            elif item.name == "space" and value is not None:
                value = value.to_dict()
            if value is not None and value != {}:
                found[item.name] = value
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Make it a field type for pydantic models: validated by `of`, serialised by `to_dict`, so without the key."""
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(cls.to_dict)
        return core_schema.no_info_plain_validator_function(cls.of, serialization=written)

    @classmethod
    def __get_pydantic_json_schema__(cls, _core_schema: Any, _handler: Any) -> dict[str, Any]:
        """Describe what `of` reads from a file: the short form, or the fields by name."""
        return {"anyOf": [{"type": "string", "pattern": rf"^\s*{KIND.pattern}(:.*|\s*)$"}, cls.table_schema()]}

    @classmethod
    def table_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the fields by name."""
        fields: dict[str, dict[str, Any]] = {item.name: {"type": "string"} for item in dataclasses.fields(cls)}
        fields |= {"options": {"type": "object"}, "space": {"type": "object"}}
        return {"type": "object", "properties": fields, "required": ["kind"], "additionalProperties": False}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields; a key is left out (see `Secret`)."""
        values = tuple(getattr(self, item.name) for item in dataclasses.fields(self))
        return (type(self), tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values))

    def __hash__(self) -> int:
        """Hash by the short form, since options need not be hashable."""
        return hash((self.label, self.model, self.revision))


def is_revision(text: str) -> bool:
    """Return whether git would accept a text as the name of a commit, a branch or a tag."""
    return len(text) <= MAX_REVISION_CHARS and text.isprintable() and _REVISION.fullmatch(text) is not None


def is_path(model: str) -> bool:
    """Return whether a model's name is the path of a folder, on this or another platform, rather than a Hub id."""
    return _PATH.match(model) is not None


def _model_and_revision(argument: str) -> tuple[str, str | None]:
    """Split at the `@` of a Hub id; of a path only if the part before it exists and the whole does not."""
    if is_path(argument) or os.path.exists(argument):  # noqa: PTH110 - Path.exists raises for names that are too long
        folder, at, revision = argument.rpartition("@")
        exists = [os.path.exists(os.path.expanduser(path)) for path in (argument, folder)]  # noqa: PTH110, PTH111
        return (folder, revision) if at and exists == [False, True] else (argument, None)
    model, at, revision = argument.partition("@")
    return model, revision if at else None


def checked_url(url: str, kind: str) -> str:
    """Return a target's URL without a trailing slash.

    Args:
        url: the URL as given.
        kind: the target's kind, for errors.

    Raises:
        ConfigError: it is invalid, or contains a user name, a password or a key. The message repeats no key.
    """
    parts, port = parsed_url(url.strip())
    if parts is None:
        raise ConfigError(f"target '{kind}': {shown_url(url)!r} is not a URL: its host or its port cannot be read")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"target '{kind}': {shown_url(url)!r} is not an http or https URL, such as 'http://localhost:8080'"
        )
    if "@" in url:  # anywhere: an unquoted password may have a '/' or a '?' in it
        raise ConfigError(
            f"target '{kind}': {shown_url(url)!r} carries a user name or password, which would end up in logs; "
            f"leave it out and give the key as Target({kind!r}, url=..., credential=...)"
        )
    if parts.fragment:
        raise ConfigError(f"target '{kind}': {shown_url(url)!r} has a fragment ('#…'), which no server ever sees")
    if any(may_name_key(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ConfigError(
            f"target '{kind}': {shown_url(url)!r} carries a key in its query, which would end up in logs; "
            f"leave it out and give the key as Target({kind!r}, url=..., credential=...)"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), parts.query, ""))


def parsed_url(url: str) -> tuple[SplitResult | None, int | None]:
    """Return the parts of a URL and its port, or (None, None) if it is invalid; urlsplit's own error may quote a password."""
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        return None, None
