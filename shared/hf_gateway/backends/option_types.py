"""What the values of a target's options are: they come from config files as well, where a mistake is easily made."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.errors import ConfigError

MAX_INTEGER = 10**9

OPTION_TYPES: Mapping[str, str] = {
    "access": "text",
    "batch_size": "whole",
    "bill_to": "text",
    "device": "text",
    "dim": "whole",
    "encoding": "text",
    "engine": "text",
    "max_texts": "whole",
    "num_ctx": "whole",
    "openai": "flag",
    "options": "object",
    "prompt_names": "object",
    "stream": "flag",
    "stream_usage": "flag",
    "trust_remote_code": "flag",
}
"""Of the kinds that come with hf-gateway, which mean the same by a name."""

_WORDS = {
    "flag": "true or false",
    "object": "a table",
    "text": "a text",
    "whole": f"a whole number from 1 to {MAX_INTEGER}",
}


def check_options(label: str, options: Mapping[str, Any], types: Mapping[str, str]) -> None:
    """Check the values of a target's options; None is one that is left out. Raises ConfigError for one of another type."""
    for name, value in options.items():
        kind = types.get(name)
        if kind is not None and value is not None and not _has_type(value, kind):
            raise ConfigError(f"target {label!r}: {name} is {_WORDS[kind]}, not {repr(value)[:80]}")


def _has_type(value: Any, kind: str) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "object":
        return isinstance(value, Mapping)
    if kind == "text":
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INTEGER
