"""`[keys]` of hf-gateway.toml: which targets need a key, and which variables a file from a working folder may send where."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from hf_gateway.errors import ConfigError
from hf_gateway.settings.env_keys import allowed_in
from hf_gateway.settings.sections import Section
from hf_gateway.values.kinds import KeyLevel
from hf_gateway.values.redaction import quoted


def _check_level(value: Any) -> Any:
    if not isinstance(value, str) or value not in {level.value for level in KeyLevel}:
        named = quoted(str(value), "what was given")
        raise ConfigError(f"{named} is not a level; write never, optional or required")
    return value


def _check_servers(value: Any) -> Any:
    try:
        allowed_in({"": value})
    except ValueError:
        raise ConfigError(
            'env has, by the name of each variable, the servers it may be sent to, such as ["http://vllm:8000"]'
        ) from None
    return value


class KeysSection(Section):
    """`[keys]`: the owner's rules about keys."""

    require_for_hosted: Annotated[bool, Strict()] = False
    """Whether targets of other companies (`hf`, `endpoint`) are only called with a key, even where none is needed; the same as
    HUGGINGFACE_REQUIRE_API_KEY."""
    models: dict[str, Annotated[Literal["never", "optional", "required"], BeforeValidator(_check_level)]] = Field(
        default_factory=dict
    )
    """Whether targets of a model need a key, by the model's id."""
    env: dict[str, Annotated[str | list[str], BeforeValidator(_check_servers)]] = Field(default_factory=dict)
    """In the user's own file only: to which servers a file of a working folder may send an environment variable, by its name;
    one URL or a list."""
