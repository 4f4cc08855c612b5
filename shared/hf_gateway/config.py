"""Settings of a chain: from arguments, from the environment, from `hf-gateway.toml`. The same for both frameworks.

# hf-gateway.toml: in the folder one works in, in the user's configuration folder, or where HF_GATEWAY_CONFIG points
[chains.docs]
model = "BAAI/bge-small-en-v1.5"
targets = ["tei:http://tei:8080", "hf", "local"]

[keys]
require_for_hosted = false
[keys.models]
"meta-llama/Llama-3.1-8B-Instruct" = "required"
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hf_gateway.credentials import HUB, ROUTER, EnvKey, Secret, is_hugging_face, key, notice_once
from hf_gateway.errors import ConfigError, nearest
from hf_gateway.key_policy import HouseRules, KeyLevel, truthy
from hf_gateway.target import Target, checked_url

FILE_NAME = "hf-gateway.toml"
DEAD_HOST = "api-inference.huggingface.co"


def _secret(value: Any) -> Secret | None:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"api_key is a string, not {type(value).__name__}")
    found = key(value, "api_key")
    if isinstance(found, EnvKey):
        named = os.environ.get(found.name, "")
        return Secret(named, f"api_key, read from {found.name},")
    return found


def _targets(value: Any) -> tuple[Target, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = [item for item in value.split(",") if item.strip()]
    if isinstance(value, Target | Mapping):
        value = [value]
    return tuple(Target.of(item) for item in value)


ApiKey = Annotated[Secret | None, BeforeValidator(_secret)]
Targets = Annotated[tuple[Target, ...] | None, BeforeValidator(_targets)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EmbedOptions(BaseModel):
    """What all classes for embeddings take, besides the model's name; each field is an argument of theirs.

    Unknown arguments are errors that name the nearest known one. The fields are frozen, since the chain is built from them:
    assigning to one would change nothing but the look of things.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_assignment=False
    )

    targets: Targets = Field(default=None, frozen=True)
    """Where to go, in this order; without it HF_GATEWAY_EMBED_TARGETS, and without that the model runs in this process."""
    revision: str | None = Field(default=None, frozen=True)
    """Commit, branch or tag of the model, for targets that load it themselves."""
    dimensions: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Keep only the first so many numbers (Matryoshka) and scale back to length 1 where the model's vectors have it."""
    normalize: bool = Field(default=False, frozen=True)
    """Scale vectors to length 1 even where the model does not."""
    truncate: bool = Field(default=False, frozen=True)
    """Cut a text that is longer than the model takes; without it that is a `ContextOverflow`, so that nothing is lost unseen."""
    query_prompt: str | None = Field(default=None, frozen=True)
    """Put before a query, instead of the model's own saved prompt; "" for none."""
    document_prompt: str | None = Field(default=None, frozen=True)
    """Put before a document, instead of the model's own saved prompt; "" for none."""
    api_key: ApiKey = Field(default=None, frozen=True, exclude=True, repr=False)
    """A Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`."""
    timeout: Seconds = Field(default=60.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries; a large batch is several requests."""
    attempt_timeout: Seconds = Field(default=30.0, frozen=True, exclude=True)
    """Seconds for one call to one target."""
    connect_timeout: Seconds = Field(default=5.0, frozen=True, exclude=True)
    """Seconds to connect."""
    max_retries: Annotated[int, Field(ge=0)] = Field(default=1, frozen=True, exclude=True)
    """How often one target is asked again after a failure that may pass; 0 means never."""
    max_concurrency: Annotated[int, Field(gt=0)] = Field(default=8, frozen=True, exclude=True)
    """How many async calls may be under way at once; the others wait for their turn."""

    config: str | None = Field(default=None, frozen=True, exclude=True, repr=False)
    """The config file whose `[keys]` hold; without it the one in force. `from_config` fills it in."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; with changes, build anew, so that they are checked and the chain is that of the copy."""
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **update})

    @model_validator(mode="before")
    @classmethod
    def _know_every_argument(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            names = {field.alias or name for name, field in cls.model_fields.items()} | set(cls.model_fields)
            for name in values:
                if name not in names:
                    raise ConfigError(f"{cls.__name__} has no argument {name!r}{nearest(name, names)}")
        return values


class EmbedSettings(EmbedOptions):
    """Everything that describes an embedding chain."""

    model: str | None = Field(default=None, frozen=True)
    """Hub id of the model, or a folder."""

    @classmethod
    def of(cls, options: EmbedOptions, model: str | None) -> Self:
        """Take over what a framework's class was given."""
        return cls(model=model, **{name: getattr(options, name) for name in EmbedOptions.model_fields})

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Any) -> Self:
        """Read `[chains.<name>]`; keyword arguments go over what the file says. Raises ConfigError with file and line."""
        return cls(**{**read_chain(name, path), **changes})


def chosen_targets(
    options: EmbedOptions, model: str | None, environment: Mapping[str, str] = os.environ
) -> tuple[str | None, tuple[Target, ...]]:
    """Return the model and the targets in force, each target with its model. Raises ConfigError for a chain of nothing."""
    model = model or environment.get("HF_GATEWAY_EMBED_MODEL") or None
    targets = options.targets
    if targets is None:
        targets = _targets(environment.get("HF_GATEWAY_EMBED_TARGETS") or "local") or ()
    if not targets:
        raise ConfigError("targets is empty; name at least one, such as 'local'")
    return model, tuple(target.inheriting(model, options.revision) for target in targets)


def config_path(path: str | Path | None = None) -> Path | None:
    """Return the file in force, or None when there is none; one that was named must be there."""
    named = path or os.environ.get("HF_GATEWAY_CONFIG")
    if named:
        found = Path(named).expanduser()
        if not found.is_file():
            raise ConfigError(f"{found}: no such file" + ("" if path else " (HF_GATEWAY_CONFIG names it)"))
        return found
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return next((place for place in (Path(FILE_NAME), home / "hf-gateway" / FILE_NAME) if place.is_file()), None)


def read_config(path: str | Path | None = None) -> tuple[Path | None, dict[str, Any]]:
    """Parse the file in force; ({} for none). Raises ConfigError naming file and line."""
    found = config_path(path)
    if found is None:
        return None, {}
    try:
        text = found.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = where[1] if where else len(text.splitlines())
        raise ConfigError(f"{found}:{line}: not TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{found}: cannot be read: {error}") from None
    for name in data:
        if name not in ("chains", "keys"):
            raise ConfigError(
                f"{found}:{line_of(text, [], name)}: unknown section {name!r}{nearest(name, ['chains', 'keys'])}"
            )
    return found, data


def read_chain(name: str, path: str | Path | None = None) -> dict[str, Any]:
    """Return the settings of `[chains.<name>]`, checked by name. Raises ConfigError naming file and line."""
    found, data = read_config(path)
    if found is None:
        raise ConfigError(
            f"there is no {FILE_NAME} here, so there is no chain {name!r}; write one, or give model and targets"
        )
    text = found.read_text(encoding="utf-8")
    chains = data.get("chains", {})
    if not isinstance(chains, dict):
        raise ConfigError(f"{found}:{line_of(text, [], 'chains')}: chains is a section, [chains.{name}]")
    if name not in chains:
        raise ConfigError(f"{found}: there is no [chains.{name}]{nearest(name, set(chains)) if chains else ''}")
    chain = chains[name]
    if not isinstance(chain, dict):
        raise ConfigError(f"{found}:{line_of(text, ['chains'], name)}: {name!r} is a section, [chains.{name}]")
    for setting in chain:
        if setting not in EmbedSettings.model_fields:
            line = line_of(text, ["chains", name], setting)
            raise ConfigError(
                f"{found}:{line}: unknown setting {setting!r}{nearest(setting, set(EmbedSettings.model_fields))}"
            )
    try:
        EmbedSettings(**chain)
    except ValueError as error:  # pydantic's own, for values of the wrong type
        wrong = str(getattr(error, "errors", list)()[0]["loc"][0]) if hasattr(error, "errors") else ""
        said = error.errors()[0]["msg"] if hasattr(error, "errors") else error
        raise ConfigError(f"{found}:{line_of(text, ['chains', name], wrong)}: {wrong}: {said}") from None
    except ConfigError as error:
        raise ConfigError(f"{found}:{line_of(text, ['chains', name], 'targets')}: {error.message}") from None
    return {**chain, "config": str(found.resolve())}


def line_of(text: str, section: list[str], name: str) -> int:
    """Return the line, from 1, where a key or section of a TOML text stands; its section's line, or 1, if not found."""
    header = ".".join(section)
    here, best = not section, 1
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.fullmatch(r"\[+\s*([^\]]+?)\s*\]+\s*(#.*)?", line.strip()):
            title = heading[1].replace('"', "").replace("'", "")
            here = title == header
            if here or (not section and title.split(".")[0] == name):
                best = number
                if not section:
                    return number
        elif here and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return best


def house_rules(path: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> HouseRules:
    """Return the owner's rules about keys, from HUGGINGFACE_REQUIRE_API_KEY and the config file's `[keys]`."""
    found, data = read_config(path)
    keys = data.get("keys", {})
    if found is not None:
        _check_keys(found, keys)
    hosted = truthy(environment.get("HUGGINGFACE_REQUIRE_API_KEY", "")) or keys.get("require_for_hosted") is True
    models: dict[str, KeyLevel] = {}
    for model, level in keys.get("models", {}).items():
        try:
            models[model] = KeyLevel(level)
        except ValueError:
            assert found is not None
            line = line_of(found.read_text(encoding="utf-8"), ["keys", "models"], model)
            raise ConfigError(f"{found}:{line}: {level!r} is not a level; write never, optional or required") from None
    return HouseRules(hosted, models)


def _check_keys(found: Path, keys: Any) -> None:
    text = found.read_text(encoding="utf-8")
    if not isinstance(keys, dict):
        raise ConfigError(f"{found}:{line_of(text, [], 'keys')}: keys is a section, [keys]")
    kinds = {"require_for_hosted": bool, "models": dict}
    for name, value in keys.items():
        line = line_of(text, ["keys"], name)
        if name not in kinds:
            raise ConfigError(f"{found}:{line}: unknown setting {name!r}{nearest(name, set(kinds))}")
        if not isinstance(value, kinds[name]):
            raise ConfigError(f"{found}:{line}: {name} is {'true or false' if kinds[name] is bool else 'a table'}")


def router_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the base of the hosted inference: HUGGINGFACE_BASE_URL, an old-style HF_ENDPOINT, or the router."""
    for name in ("HUGGINGFACE_BASE_URL", "HF_ENDPOINT"):
        value = environment.get(name, "").strip()
        if not value or (name == "HF_ENDPOINT" and not _names_inference(value)):
            continue
        url = checked_url(value, f"hf, from {name}")
        if urlsplit(url).hostname == DEAD_HOST:
            notice_once(f"{name} names {DEAD_HOST}, which no longer answers; calling {ROUTER} instead")
            return ROUTER
        if name == "HF_ENDPOINT":
            notice_once(
                "HF_ENDPOINT names an inference server, and means the Hub; set HUGGINGFACE_BASE_URL for inference"
            )
        return url
    return ROUTER


def hub_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the Hub's base: HF_ENDPOINT, unless that names an inference server as older guides have it."""
    value = environment.get("HF_ENDPOINT", "").strip()
    return checked_url(value, "the Hub, from HF_ENDPOINT") if value and not _names_inference(value) else HUB


def _names_inference(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    path = urlsplit(url).path.rstrip("/")
    return (
        host == DEAD_HOST
        or host.startswith("router.")
        or path.endswith(("/models", "/v1"))
        or (is_hugging_face(url) and host.endswith(".cloud"))
    )
