"""Redaction: what may be shown of a URL, and which names and texts may stand for a key.

A URL is parsed by RFC 3986; of one that does not conform, a doubtful part is hidden rather than shown: an unquoted password may
contain `/`, `?` or `#`, so everything up to the last `@` is hidden. Scheme, host, port and path are shown, since they say which
server is meant; parameters, query and fragment are not.
"""

import re
from functools import lru_cache

HIDDEN = "***"
"""Replaces a hidden part."""

_SCHEMES = frozenset({"http", "https", "ws", "wss", "ftp", "socks4", "socks5", "socks5h"})
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+")
_PORT = re.compile(r":(?:\d{1,5})?(?=[/;?#]|$)")
_PATH = re.compile(r"/[^;?#\s\"'<>\\^`{|}]*")

_STRONG_WORDS = frozenset({
    "password", "passwords", "passwd", "pwd", "passphrase", "passwort", "kennwort", "secret", "secrets", "credential",
    "credentials", "apikey", "apikeys", "accesskey", "secretkey", "privatekey", "authkey", "authtoken", "accesstoken",
    "refreshtoken", "bearer",
})  # fmt: skip
_STRONG_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "accesskey",
    "secretkey",
    "authtoken",
    "accesstoken",
)
"""Ends of words that are written as one: `PGPASSWORD`, `clientsecret`."""
_STRONG_PAIRS = frozenset({
    *((first, "key") for first in ("api", "access", "private", "secret", "subscription", "license", "auth", "ssh", "account")),
    *((first, "token") for first in ("api", "access", "auth", "refresh", "bearer", "session", "private", "secret", "security")),
    *((first, "token") for first in ("hf", "hub", "github", "gitlab", "slack", "wandb", "bot", "push")),
})  # fmt: skip
_WEAK_WORDS = frozenset({"key", "keys", "token", "tokens", "auth", "authorization", "sig", "signature"})
_BEHIND = frozenset({"value", "string", "str"})
_SPECIAL_TOKENS = frozenset({
    "eos", "bos", "pad", "unk", "sep", "cls", "mask", "start", "end", "begin", "stop", "image", "audio", "video", "tool", "fill",
    "prefix", "suffix", "middle", "special",
})  # fmt: skip

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


_GATEWAY_KEY = re.compile(r"(hfg_[a-z2-9]{12}_)[A-Za-z0-9_-]+")
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")


def without_gateway_keys(text: str) -> str:
    """Return a text with the secret parts of keys of a server's callers hidden, wherever a caller wrote them."""
    return _GATEWAY_KEY.sub(rf"\1{HIDDEN}", text) if "hfg_" in text else text


MODEL_NAMES_NO_MODEL = (
    "the model's name is a token of Hugging Face, which is not repeated here: give the id of a model, and the token as api_key, "
    "in HF_TOKEN or by `hf-gateway login`"
)
"""What is said of arguments in the wrong order; a model's name is shown in errors, ledgers and metrics."""


def is_hub_token(text: str) -> bool:
    """Return whether a text has the form of a user access token of Hugging Face, `hf_` and 16 or more letters and digits."""
    return _HUB_TOKEN.fullmatch(text.strip()) is not None


@lru_cache(256)
def public_part(url: str) -> str:
    """Return scheme, host, port and path of a checked URL: enough to identify the server, and nothing that may be a key."""
    return re.split("[;?#]", url, maxsplit=1)[0].rstrip("/")


def shown_url(url: str) -> str:
    """Return a URL, or a text that was meant as one, as messages may show it, with `***` for hidden parts."""
    scheme, mark, rest = url.strip().partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        return HIDDEN
    _, at, place = rest.rpartition("@")
    host = _HOST.match(place)
    if host is None:
        return f"{scheme}://{HIDDEN}"
    found = f"{scheme}://{f'{HIDDEN}@' if at else ''}{host[0]}"
    end = host.end()
    for part in (_PORT, _PATH):
        if piece := part.match(place, end):
            found, end = found + piece[0], piece.end()
    if end == len(place):
        return found
    return f"{found}{place[end] if place[end] in ':/;?#' else ''}{HIDDEN}"


def quoted(text: str, instead: str) -> str:
    """Return a text in quotes if it is plainly a name, and a replacement if it may be or contain a key.

    Args:
        text: foreign text.
        instead: the replacement.
    """
    return repr(text) if len(text) <= 60 and not _may_be_key(text) else instead


def _may_be_key(text: str) -> bool:
    """Whether a text contains anything like a key: a long run of letters and digits, or a password's place."""
    if "@" in text or "//" in text or re.search(r"\b(?:hfg?_|sk[_-]|gh[pousr]_|xox[a-z]-)\w", text):
        return True
    runs = re.findall(r"[A-Za-z0-9+/=_~-]{16,}", text)
    return any(re.search(r"\d", run) or run.lower() != run for run in runs) or bool(re.search(r"\w{32}", text))


def names_key(name: str) -> bool:
    """Whether a name denotes a key, a password or a secret: `api_key`, `wandb.apiKey`, `PASSWORD`."""
    words = _words(name)
    return any(word in _STRONG_WORDS or word.endswith(_STRONG_ENDINGS) for word in words) or any(
        pair in _STRONG_PAIRS for pair in zip(words, (word.removesuffix("s") for word in words[1:]), strict=False)
    )


def may_name_key(name: str) -> bool:
    """Whether a name may denote a key, as `wandb_key` does; `label_key` and `eos_token` do not."""
    words = _words(name)
    while words and words[-1] in _BEHIND:
        words.pop()
    special = any(word in _SPECIAL_TOKENS for word in words[:-1])
    return names_key(name) or (bool(words) and words[-1] in _WEAK_WORDS and not special)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]
