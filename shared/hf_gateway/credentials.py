"""Keys: where one comes from, and the one origin it is bound to.

A key is found in this order: given for the target, given to the class, the environment, the keyring of the operating system
(`hf-gateway login`), the login of huggingface_hub. The environment and that login hold a Hugging Face token, and it goes to
Hugging Face's own hosts over https and nowhere else: a base URL that points at another machine does not get it, neither does a
redirect. In the keyring each key is stored for the one origin that it was given for.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.errors import ConfigError

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"
ROUTER = "https://router.huggingface.co"

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY")
"""Read in this order; all but the first are older names that other libraries use, and give a notice once."""

KEYRING = "the keyring of the operating system (`hf-gateway login`)"
"""How a key from there is called where its source is told."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Secret:
    """A key that shows itself only when asked to: `***` in text, and absent from pickles (it unpickles to None)."""

    __slots__ = ("_value",)

    def __init__(self, value: str, what: str = "the key") -> None:
        """Take the key, without the blanks and line breaks that copying adds; `what` names it in the error."""
        value = value.strip()
        if not value:
            raise ConfigError(f"{what} is empty")
        if not re.fullmatch(r"[!-~]+", value):
            # Checked here since an HTTP library would quote the whole header in its own error.
            raise ConfigError(f"{what} has a blank, a line break or a character outside ASCII in it; copy it again")
        self._value = value

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value

    def fingerprint(self) -> str:
        """Return eight characters that tell keys apart and tell nothing about the key."""
        return hashlib.blake2b(self._value.encode(), digest_size=4, person=b"hf-gateway").hexdigest()

    def scrub(self, text: str) -> str:
        """Return text with the key replaced, for words that come from a server."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        """Show that there is one."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Equal when the keys are."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._value)

    def __copy__(self) -> "Secret":
        """Immutable: a copy is the same one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        """Immutable: a copy is the same one."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the key out of pickles."""
        return (_nothing, ())


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class EnvKey:
    """A key that is read from the environment variable `name` whenever it is needed."""

    name: str

    def __str__(self) -> str:
        """Write it as the short form does."""
        return f"env:{self.name}"


def key(value: str, what: str = "the key") -> Secret | EnvKey:
    """Read a key as people give it: the key itself, or `env:NAME`. Raises ConfigError."""
    name = value.removeprefix("env:")
    if name != value:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{what}: 'env:' needs the name of an environment variable after it")
        return EnvKey(name)
    return Secret(value, what)


@dataclass(frozen=True)
class Credential:
    """A key with the origin it may be sent to and where it was found."""

    secret: Secret = field(repr=False)
    origin: str
    source: str

    def header_for(self, url: str) -> dict[str, str]:
        """Return the Authorization header when the URL is of the key's origin, and nothing otherwise."""
        if origin_of(url) == self.origin:
            return {"authorization": f"Bearer {self.secret.reveal()}"}
        return {}


def origin_of(url: str) -> str:
    """Return scheme, host and port, as in RFC 6454: `https://huggingface.co:443`."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.').lower()}:{port}"


def is_hugging_face(url: str) -> bool:
    """Say whether a Hugging Face token may go there without being bound to it by hand."""
    parts = urlsplit(origin_of(url))
    host = parts.hostname or ""
    return (
        parts.scheme == "https"
        and parts.port == 443
        and (host == "huggingface.co" or host.endswith((".huggingface.co", ".endpoints.huggingface.cloud")))
    )


def find(
    url: str | None,
    *,
    bound: Secret | EnvKey | None = None,
    given: Secret | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credential | None:
    """Find the key for a URL, or None, which is a normal state.

    bound: the target's own credential; given: the key of the class, if it is meant for this target. url: where it will be
    sent; None for a target that sends nothing.
    """
    if url is None:
        return None
    origin = origin_of(url)
    if isinstance(bound, EnvKey):
        value = environment.get(bound.name, "").strip()
        return (
            Credential(Secret(value, f"the key in {bound.name}"), origin, f"the environment variable {bound.name}")
            if value
            else None
        )
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


def _in_environment(origin: str, environment: Mapping[str, str]) -> Credential | None:
    for name in TOKEN_VARIABLES:
        if value := environment.get(name, "").strip():
            if name != TOKEN_VARIABLES[0]:
                notice_once(f"using the token in {name}; the name that every Hugging Face tool reads is HF_TOKEN")
            return Credential(Secret(value, f"the token in {name}"), origin, f"the environment variable {name}")
    return None


def _no_implicit_token() -> bool:
    """Say whether tokens that lie on this machine are to be used only when they are given."""
    return os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE")


def _in_keyring(stored_for: str, origin: str) -> Credential | None:
    from hf_gateway import keyring_store

    secret = keyring_store.load(stored_for)
    return Credential(secret, origin, KEYRING) if secret is not None else None


def _logged_in(origin: str) -> Credential | None:
    from huggingface_hub import get_token

    token = get_token()
    return Credential(Secret(token, "the token of `hf auth login`"), origin, "`hf auth login`") if token else None


_noticed: set[str] = set()


def notice_once(message: str) -> None:
    """Warn, but only the first time in this process."""
    if message not in _noticed:
        _noticed.add(message)
        log.warning("%s", message)
