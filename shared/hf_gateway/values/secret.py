"""A key that cannot be shown by accident, and the forms in which users write one."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from hf_gateway.errors import ConfigError

REVEALING_CHARS = 8
"""Characters from the beginning of a key that are hidden even without the rest of it."""


class Secret:
    """A key that is shown only on request: `***` in text, and absent from pickles (it unpickles to None)."""

    __slots__ = ("_value",)

    def __init__(self, value: str, what: str = "the key") -> None:
        """Store the key, without the blanks and line breaks that copying adds; `what` names it in errors."""
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
        """Return eight characters that distinguish keys and reveal nothing about them."""
        return hashlib.blake2b(self._value.encode(), digest_size=4, person=b"hf-gateway").hexdigest()

    def scrub(self, text: str) -> str:
        """Return a server's text with the key replaced, also where only the beginning of it is left of a text that was cut."""
        text = text.replace(self._value, "***")
        beginning, rest = self._value[:REVEALING_CHARS], self._value[REVEALING_CHARS:]
        if not rest or beginning not in text:
            return text
        first, *others = text.split(beginning)
        return first + "".join(f"***{_without_beginning(each, rest)}" for each in others)

    def __repr__(self) -> str:
        """Return `***`."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Compare the keys."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._value)

    def __copy__(self) -> "Secret":
        """Return itself: it is immutable."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        """Return itself: it is immutable."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the key out of pickles."""
        return (_nothing, ())


def _without_beginning(text: str, rest: str) -> str:
    """Return a text without what it has in common with the beginning of another."""
    pairs = zip(text, rest, strict=False)
    return text[next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(text), len(rest))) :]


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class EnvKey:
    """A key that is read from the environment variable `name` whenever it is needed."""

    name: str
    """Name of the variable."""
    refusal: str | None = field(default=None, compare=False, repr=False)
    """Why it must not be read: the config file that names it is not trusted with it."""

    def __str__(self) -> str:
        """Return the short form."""
        return f"env:{self.name}"


@dataclass(frozen=True)
class FileKey:
    """A key that is read from a file, as containers mount secrets; a new content counts without a restart."""

    path: str
    """Absolute path of the file."""
    refusal: str | None = field(default=None, compare=False, repr=False)
    """Why it must not be read: the config file that names it is not trusted with it."""

    @property
    def name(self) -> str:
        """The name under which a user's own file allows it."""
        return str(self)

    def __str__(self) -> str:
        """Return the short form."""
        return f"file:{self.path}"


KeyReference = EnvKey | FileKey
"""Where a key is, instead of the key itself."""


def parse_key(value: str, what: str = "the key") -> Secret | EnvKey | FileKey:
    """Parse a key as users write it: the key itself, `env:NAME`, or `file:/PATH`.

    Args:
        value: the text.
        what: names the key in errors.

    Raises:
        ConfigError: it is empty, or contains characters that a header cannot carry.
    """
    name = value.removeprefix("env:")
    if name != value:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{what}: 'env:' needs the name of an environment variable after it")
        return EnvKey(name)
    path = value.removeprefix("file:")
    if path != value:
        if not path.startswith("/") or not path.isprintable():
            raise ConfigError(
                f"{what}: 'file:' needs the absolute path of a file after it, such as file:/run/secrets/name"
            )
        return FileKey(path)
    return Secret(value, what)
