"""Where a key is found, and the one origin that it is bound to.

Order of the sources: the target's own key, the key of the class, the environment, the keyring of the operating system
(`hf-gateway login`), the login of huggingface_hub. The environment and that login hold a Hugging Face token, which is sent to
Hugging Face's own hosts over https and to no other host: neither a base URL on another machine nor a redirect gets it. In the
keyring each key is stored for the one origin that it was entered for.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from hf_gateway.keys import os_keyring
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.secret import EnvKey, FileKey, Secret

HUB = "https://huggingface.co"
ROUTER = "https://router.huggingface.co"

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY")
"""Read in this order; all but the first are older names that other libraries use, and are reported once."""

KEYRING = "the keyring of the operating system (`hf-gateway login`)"
"""The `source` of a key that was found there."""

MAX_KEY_FILE_CHARS = 65_536
"""How much of a file with a key is read; keys are far shorter."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Credential:
    """A key with the origin it may be sent to, and where it was found."""

    secret: Secret = field(repr=False)
    """The key."""
    origin: str
    """Scheme, host and port, as `origin_of` returns them."""
    source: str
    """Where it was found, in words for users."""

    def header_for(self, url: str) -> dict[str, str]:
        """Return the Authorization header if the URL is of the key's origin, otherwise an empty dict."""
        if origin_of(url) == self.origin:
            return {"authorization": f"Bearer {self.secret.reveal()}"}
        return {}


@lru_cache(256)
def origin_of(url: str) -> str:
    """Return scheme, host and port, as in RFC 6454: `https://huggingface.co:443`."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.').lower()}:{port}"


@lru_cache(256)
def is_hugging_face(url: str) -> bool:
    """Return whether a Hugging Face token may be sent to a URL without being bound to its host explicitly."""
    parts = urlsplit(origin_of(url))
    host = parts.hostname or ""
    return (
        parts.scheme == "https"
        and parts.port == 443
        and (host == "huggingface.co" or host.endswith((".huggingface.co", ".endpoints.huggingface.cloud")))
    )


def is_dedicated_endpoint(url: str) -> bool:
    """Return whether a URL is of an Inference Endpoint: a host of Hugging Face that runs a customer's model."""
    return is_hugging_face(url) and origin_of(url).removesuffix(":443").endswith(".endpoints.huggingface.cloud")


def find_credential(
    url: str | None,
    *,
    bound: Secret | EnvKey | FileKey | None = None,
    given: Secret | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credential | None:
    """Find the key for a URL. Returns None if there is no key, which is not an error.

    Args:
        url: where it will be sent; None for a target that sends no requests.
        bound: the target's own credential.
        given: the key of the class, if it is meant for this target.
        environment: the variables to read.
    """
    if url is None:
        return None
    origin = origin_of(url)
    if isinstance(bound, EnvKey):
        value = "" if bound.refusal else environment.get(bound.name, "").strip()
        return (
            Credential(Secret(value, f"the key in {bound.name}"), origin, f"the environment variable {bound.name}")
            if value
            else None
        )
    if isinstance(bound, FileKey):
        return None if bound.refusal else _in_file(bound.path, origin)
    if bound is not None:
        return Credential(bound, origin, "the target's own credential")
    if given is not None:
        return Credential(given, origin, "the argument api_key")
    if not is_hugging_face(url):
        return _in_keyring(origin, origin)
    if (token := _in_environment(origin, environment)) is not None:
        return token
    if _no_implicit_token():
        return None
    return _in_keyring(origin, origin) or _in_keyring(origin_of(HUB), origin) or _logged_in(origin)


def _in_file(path: str, origin: str) -> Credential | None:
    value = read_key_file(path)
    return Credential(Secret(value, f"the key in {path}"), origin, f"the file {path}") if value else None


def read_key_file(path: str) -> str:
    """Return the content of a file with a key, without blanks around it; empty if there is no such file, or it cannot be read.

    Args:
        path: absolute path of the file.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_KEY_FILE_CHARS).strip()
    except OSError as error:
        notice_once(f"the key in {path} cannot be read: {error.strerror}")
        return ""


def _in_environment(origin: str, environment: Mapping[str, str]) -> Credential | None:
    for name in TOKEN_VARIABLES:
        if value := environment.get(name, "").strip():
            if name != TOKEN_VARIABLES[0]:
                notice_once(f"using the token in {name}; the name that every Hugging Face tool reads is HF_TOKEN")
            return Credential(Secret(value, f"the token in {name}"), origin, f"the environment variable {name}")
    return None


def _no_implicit_token() -> bool:
    """Return whether tokens stored on this machine are to be used only when they are passed explicitly."""
    return os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE")


def _in_keyring(stored_for: str, origin: str) -> Credential | None:
    secret = os_keyring.load(stored_for)
    return Credential(secret, origin, KEYRING) if secret is not None else None


def _logged_in(origin: str) -> Credential | None:
    from huggingface_hub import get_token

    token = get_token()
    return Credential(Secret(token, "the token of `hf auth login`"), origin, "`hf auth login`") if token else None
