"""Whether a target needs a key, and why; depends on the kind of backend, the origin and the model's access.

From each server's own documentation: the router answers no request without a token; a public repository can be downloaded
without one; TEI, vLLM, TGI and llama.cpp ask for a key only if they were started with one; Ollama has no keys.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hf_gateway.keys.credentials import Credential, is_hugging_face
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.target import Target

Access = Literal["public", "gated", "private", "unknown"]
"""Who may download a model: everyone, those who accepted its licence, its owner; unknown if the Hub was not asked yet."""

HOSTED = frozenset({"hf", "endpoint"})
"""The kinds that run on another company's machine for money; the only ones that KeyPolicyOverrides.hosted concerns."""


class KeyLevel(enum.Enum):
    """How much a key matters to a target."""

    NEVER = "never"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class KeyRequirement:
    """A level with its reason."""

    level: KeyLevel
    """How much a key matters."""
    reason: str
    """Why, in words for users."""


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
    if rules.hosted and target.kind in HOSTED:
        return KeyRequirement(KeyLevel.REQUIRED, "HUGGINGFACE_REQUIRE_API_KEY asks for a key on every hosted target")
    match target.kind:
        case "local" if access in ("gated", "private"):
            return KeyRequirement(
                KeyLevel.REQUIRED, f"the model runs in this process, but it is {access} and must be downloaded first"
            )
        case "local":
            return KeyRequirement(
                KeyLevel.NEVER, "the model runs in this process; a public model is downloaded without a key"
            )
        case "hf":
            return KeyRequirement(
                KeyLevel.REQUIRED,
                "Hugging Face Inference Providers answer only with a token that may make inference calls",
            )
        case "endpoint" if target.options.get("access") == "public":
            return KeyRequirement(KeyLevel.NEVER, "the endpoint was declared public")
        case "endpoint":
            return KeyRequirement(
                KeyLevel.OPTIONAL, "a protected or private Inference Endpoint needs a token, a public one does not"
            )
        case "ollama":
            return KeyRequirement(
                KeyLevel.NEVER, "Ollama has no keys; a cloud model behind it needs `ollama signin` on that machine"
            )
        case "hash":
            return KeyRequirement(KeyLevel.NEVER, "the vectors are computed here, from the text alone")
        case _:
            return KeyRequirement(KeyLevel.OPTIONAL, "your own server asks for a key only if it was started with one")


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
    return f"{way}, or run it locally: `targets=['local']`" if alone and target.kind in HOSTED else way


def _how_to_give(target: Target, url: str | None) -> str:
    if target.kind == "hf" and url is not None and not is_hugging_face(url):
        return (
            "the Hugging Face token is not sent to other hosts by itself; bind it on purpose with "
            f"Target('hf', url={shown_url(url)!r}, credential='env:HF_TOKEN')"
        )
    if target.kind in ("hf", "local"):
        return "set HF_TOKEN (https://huggingface.co/settings/tokens) or pass api_key="
    return f"give it as Target({target.kind!r}, url=..., credential='env:NAME')"


def parse_flag(value: str) -> bool:
    """Parse a boolean from the environment as huggingface_hub does."""
    return re.fullmatch(r"1|on|yes|true", value.strip(), re.IGNORECASE) is not None
