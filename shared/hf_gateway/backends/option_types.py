"""Types of the values of a target's options, which also come from config files, where mistakes are easily made."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.errors import ConfigError

MAX_INTEGER = 10**9

OptionType = str | tuple[str, ...]
"""The type of an option's value: "whole", "flag", "text" or "object", or the allowed words."""

OPTION_TYPES: Mapping[str, OptionType] = {
    "access": ("public", "protected", "private"),
    "batch_size": "whole",
    "bill_to": "text",
    "device": "text",
    "dim": "whole",
    "encoding": ("auto", "float", "base64"),
    "engine": "text",
    "max_texts": "whole",
    "num_ctx": "whole",
    "openai": "flag",
    "options": "object",
    "prompt_names": "object",
    "scores": ("auto", "probability", "logit"),
    "stream": "flag",
    "stream_usage": "flag",
    "think_tags": ("auto", "opened", "keep"),
    "trust_remote_code": "flag",
}
"""For the kinds that come with hf-gateway, in which a name always means the same."""

_WORDS = {
    "flag": "true or false",
    "object": "a table",
    "text": "a text",
    "whole": f"a whole number from 1 to {MAX_INTEGER}",
}


def check_options(label: str, options: Mapping[str, Any], types: Mapping[str, OptionType]) -> None:
    """Check the values of a target's options; None counts as missing, unless the option has a list of words.

    Args:
        label: of the target.
        options: the values by name.
        types: the types by name; an option without one is not checked.

    Raises:
        ConfigError: a value of another type, or another word.
    """
    for name, value in options.items():
        kind = types.get(name)
        if isinstance(kind, tuple):
            if value not in kind:
                words = f"{', '.join(map(repr, kind[:-1]))} or {kind[-1]!r}"
                raise ConfigError(f"target {label!r}: {name} is {words}, not {repr(value)[:80]}")
        elif kind is not None and value is not None and not _has_type(value, kind):
            raise ConfigError(f"target {label!r}: {name} is {_WORDS[kind]}, not {repr(value)[:80]}")


def _has_type(value: Any, kind: str) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "object":
        return isinstance(value, Mapping)
    if kind == "text":
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INTEGER
