"""Keys of callers: `hfg_<12 public>_<43 secret>`.

The public part names the key in lists, logs and the ledger. The secret part has 256 random bits, so that one SHA-256 of the
whole key is stored and compared; a slow hash is for passwords, which people choose.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

PREFIX = "hfg_"
ID_CHARS = 12
SECRET_BYTES = 32
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""32 characters, without those that are read as others."""
_GRAMMAR = re.compile(rf"hfg_([{_ALPHABET}]{{{ID_CHARS}}})_([A-Za-z0-9_-]{{43}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A key as a caller presented it, of the right form."""

    id: str
    """The public part."""
    sha256: bytes = field(repr=False)
    """SHA-256 of the whole key."""


def parse_key(text: str) -> PresentedKey | None:
    """Return a key if a text has exactly the form of one; nothing else is ever looked up."""
    found = _GRAMMAR.fullmatch(text)
    return None if found is None else PresentedKey(found[1], digest(text))


def new_key(key_id: str | None = None) -> tuple[str, PresentedKey]:
    """Make a key from the operating system's random numbers.

    Args:
        key_id: the public part, for a key that replaces another one; by default a new one.

    Returns:
        The key, which is not stored, and what is stored of it.
    """
    public = key_id or "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS))
    text = f"{PREFIX}{public}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return text, PresentedKey(public, digest(text))


def digest(text: str) -> bytes:
    """Return the SHA-256 of a credential."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def is_same(presented: bytes, stored: bytes | None) -> bool:
    """Return whether two digests are equal, in a time that does not depend on where they differ.

    Args:
        presented: of the credential that the caller sent.
        stored: of the one that is valid; None if there is no such credential.
    """
    return hmac.compare_digest(presented, stored or bytes(len(presented))) and stored is not None
