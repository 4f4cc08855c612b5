"""The credential of a request: one function reads it from every header that clients put it in.

`Authorization: Bearer …` (OpenAI, Hugging Face, JWT), `x-api-key: …` (Anthropic's manner), `api-key: …` (Azure's manner).
`apikey`, which Supabase's clients send with a public value, is not one. A browser that signed in sends a cookie, which counts
only where no header has a credential. A query is never read.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from hf_gateway.server.access.caller import RawHeaders
from hf_gateway.server.access.keys import PresentedKey, parse_key
from hf_gateway.server.problems import Problem

COOKIE = "hf_gateway_session"
SESSION_PREFIX = "hfs_"
MAX_CREDENTIAL_CHARS = 16_384
_BEARER = re.compile(rb"bearer +(.*)", re.IGNORECASE | re.DOTALL)
_PLAIN = (b"x-api-key", b"api-key")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)
_KEY_IN_URL = re.compile(rb"hfg_[a-z2-9]{12}_", re.IGNORECASE)
_SESSION = re.compile(rf"{SESSION_PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller presented."""

    kind: Literal["key", "token", "session", "other"]
    """A key of this server, a JWT, a browser's session, or anything else, such as the dummy key that a client insists on."""
    text: str = field(repr=False)
    """The credential itself."""
    key: PresentedKey | None = None
    """The key, parsed."""


def read_credential(headers: RawHeaders, *, cookie: bool = True) -> Credential | None:
    """Return the credential of a request, or None.

    Args:
        headers: the request's, names in lower case.
        cookie: whether a browser's cookie counts: not if another origin's page sent it.

    Raises:
        Problem: 400 for two different credentials, or one that cannot be one.
    """
    found: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            # Another scheme is a proxy's own, and no credential here.
            if (bearer := _BEARER.fullmatch(value.strip())) is not None:
                found.add(bearer[1].strip())
        elif name in _PLAIN:
            found.add(value.strip())
    found.discard(b"")
    if len(found) > 1:
        raise Problem(
            400,
            "several_credentials",
            "the request has two different credentials in authorization, x-api-key and api-key; send one",
        )
    if found:
        return _classified(_text(found.pop()))
    return _of_cookie(headers) if cookie else None


def refuse_key_in_url(*parts: bytes) -> None:
    """Raise Problem 400 for a key of this server in a path or a query, where logs of proxies and browsers keep it."""
    if _KEY_IN_URL.search(b" ".join(parts)):
        raise Problem(
            400,
            "key_in_url",
            "keys are not read from URLs, which are logged: send it in the header 'authorization: Bearer …', and replace "
            "this one with `hf-gateway keys rotate`",
        )


def _classified(text: str) -> Credential:
    if (key := parse_key(text)) is not None:
        return Credential("key", text, key)
    return Credential("token" if _TOKEN.fullmatch(text) else "other", text)


def _text(value: bytes) -> str:
    if len(value) > MAX_CREDENTIAL_CHARS or not value.isascii():
        raise Problem(
            400,
            "invalid_credential",
            f"a credential is at most {MAX_CREDENTIAL_CHARS:,} characters of ASCII; it is not repeated here",
        )
    return value.decode("ascii")


def _of_cookie(headers: RawHeaders) -> Credential | None:
    found = set()
    for name, value in headers:
        if name != b"cookie":
            continue
        for part in value.decode("latin-1").split(";"):
            key, _, text = part.strip().partition("=")
            if key == COOKIE and _SESSION.fullmatch(text):
                found.add(text)
    if len(found) > 1:
        raise Problem(400, "several_credentials", f"the request has two different cookies {COOKIE}; delete them")
    return Credential("session", found.pop()) if found else None
