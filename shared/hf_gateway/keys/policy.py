"""Whether a target needs a key, with the reason. The axis is the kind of backend, the origin and the access of the model.

Facts: the notes of each server's own documentation. The router answers nobody without a token; a public repository is
downloaded by anybody; TEI, vLLM, TGI and llama.cpp ask for a key only when they were started with one; Ollama has none.
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
"""Who may download a model: everybody, those who accepted its licence, its owner; or nobody has asked the Hub yet."""

HOSTED = frozenset({"hf", "endpoint"})
"""The kinds that run on somebody else's machine for money; the only ones that the house rule concerns."""


class KeyLevel(enum.Enum):
    """How much a key matters to a target."""

    NEVER = "never"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class KeyRequirement:
    """A level and why, in words that can be put before a person."""

    level: KeyLevel
    reason: str


@dataclass(frozen=True)
class KeyPolicyOverrides:
    """What an owner decided on top: a key for every hosted target, or a level for single models.

    hosted: HUGGINGFACE_REQUIRE_API_KEY, or `require_for_hosted` in the config file. models: model id → level.
    """

    hosted: bool = False
    models: Mapping[str, KeyLevel] = field(default_factory=dict)


def requirement(
    target: Target, access: Access = "unknown", rules: KeyPolicyOverrides = KeyPolicyOverrides()
) -> KeyRequirement:
    """Say whether a target needs a key. Pure: the same answer for the same arguments."""
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
    """Say in one line what to do about a key that is required and absent, or None when nothing is missing.

    url: where the key would be sent; alone: there is no other target in the chain.
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
    """Read a switch from the environment the way huggingface_hub does."""
    return re.fullmatch(r"1|on|yes|true", value.strip(), re.IGNORECASE) is not None
