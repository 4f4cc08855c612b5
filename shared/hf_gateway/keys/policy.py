"""Whether a target needs a key, and why; depends on the kind of backend, the origin and the model's access.

From each server's own documentation: the router answers no request without a token; a public repository can be downloaded
without one; TEI, vLLM, TGI and llama.cpp ask for a key only if they were started with one; Ollama has no keys.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hf_gateway.errors import ConfigError
from hf_gateway.keys.credentials import Credential, is_hugging_face
from hf_gateway.values.kinds import Access, KeyLevel, KeyRequirement, kind_of
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.target import Target


@dataclass(frozen=True)
class KeyPolicyOverrides:
    """Overrides by the owner of a deployment: a key for every hosted target, or a level for single models."""

    hosted: bool = False
    """Whether every hosted target needs a key: HUGGINGFACE_REQUIRE_API_KEY, or `require_for_hosted` in the config file."""
    models: Mapping[str, KeyLevel] = field(default_factory=dict)
    """Levels by model id."""


def requirement(
    target: Target, access: Access = "unknown", rules: KeyPolicyOverrides = KeyPolicyOverrides()
) -> KeyRequirement:
    """Return whether a target needs a key, and why. Pure: the same result for the same arguments.

    Args:
        target: the target.
        access: who may download its model.
        rules: the owner's overrides.
    """
    if target.model is not None and target.model in rules.models:
        return KeyRequirement(rules.models[target.model], f"the config file says so for {target.model}")
    kind = kind_of(target.kind)
    if rules.hosted and kind.hosted:
        return KeyRequirement(KeyLevel.REQUIRED, "HUGGINGFACE_REQUIRE_API_KEY asks for a key on every hosted target")
    by_option = kind.key_by_option.get(target.options.get("access", ""))
    return by_option or kind.key_by_model_access.get(access, kind.key)


def missing_key_hint(
    target: Target, needed: KeyRequirement, credential: Credential | None, url: str | None, *, alone: bool = True
) -> str | None:
    """Return one line that says what to do about a required key that is missing, or None if no key is missing.

    Args:
        target: the target.
        needed: its requirement.
        credential: the key that was found.
        url: where the key would be sent.
        alone: whether the chain has no other target.
    """
    if needed.level is not KeyLevel.REQUIRED or credential is not None:
        return None
    way = _how_to_give(target, url)
    return f"{way}, or run it locally: `targets=['local']`" if alone and kind_of(target.kind).hosted else way


def _how_to_give(target: Target, url: str | None) -> str:
    kind = kind_of(target.kind)
    if kind.default_origin == "router" and url is not None and not is_hugging_face(url):
        return (
            "the Hugging Face token is not sent to other hosts by itself; bind it on purpose with "
            f"Target({target.kind!r}, url={shown_url(url)!r}, credential='env:HF_TOKEN')"
        )
    if kind.default_origin is not None:
        return "set HF_TOKEN (https://huggingface.co/settings/tokens) or pass api_key="
    return f"give it as Target({target.kind!r}, url=..., credential='env:NAME') or 'file:/run/secrets/name'"


def parse_flag(value: str) -> bool:
    """Parse a boolean from the environment as huggingface_hub does."""
    return re.fullmatch(r"1|on|yes|true", value.strip(), re.IGNORECASE) is not None


def read_switch(
    variable: str, environment: Mapping[str, str] = os.environ, *, default: bool = False, also: Sequence[str] = ()
) -> bool:
    """Read a variable that switches a rule on or off; a misspelt word would leave the rule off without a sign.

    Args:
        variable: its name.
        environment: the variables to read.
        default: the value of an empty or missing variable.
        also: other words that the variable may have, which count as on.

    Raises:
        ConfigError: it has another word.
    """
    value = environment.get(variable, "").strip().lower()
    if not value:
        return default
    if parse_flag(value) or value in also:
        return True
    if value in _OFF:
        return False
    words = "".join(f", {word}" for word in also)
    raise ConfigError(f"{variable} is one of 1, on, yes, true{words}, or one of {', '.join(_OFF)}, or empty")


_OFF = ("0", "off", "no", "false")
